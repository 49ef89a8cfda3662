"""What all imports share: tensors are read without running code, names translated by a table, shapes checked."""

import json
import re
import warnings
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..configuration_vanilla_transformer import VanillaTransformerConfig
from ..modeling_pretrained import VanillaTransformerPreTrainedModel
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration

# A table maps patterns of our parameter names to theirs, applied in order. Where they stack the projections of queries,
# keys and values in one matrix, their name ends in the part that is meant: `in_proj_weight[q]`.
Names = Mapping[str, str]

# A model of this package, whose class says which.
Built = TypeVar("Built", bound=VanillaTransformerPreTrainedModel)

_STACKED = re.compile(r"(.*)\[([qkv])\]")

# So many of the names that differ are in the message about a checkpoint that does not fit.
_SHOWN = 5

ENCODER_EMBEDDING = "model.encoder.embed_tokens.weight"
DECODER_EMBEDDING = "model.decoder.embed_tokens.weight"
PROJECTION = "lm_head.weight"
PROJECTION_BIAS = "lm_head.bias"


def their_name(our_name: str, names: Names) -> str:
    """Translates one of our parameter names by a table.

    Args:
        our_name: such as "model.encoder.layers.0.feed_forward.fc1.weight".
        names: the table.

    Returns:
        Their name of it, with a suffix such as "[q]" where a part is meant.
    """
    for ours, theirs in names.items():
        our_name = re.sub(ours, theirs, our_name)
    return our_name


def part_of(tensors: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    """Looks up a tensor, or the third of it that the suffix of the name selects.

    Args:
        tensors: by their names.
        name: as `their_name` gives it.

    Returns:
        The tensor, or a view of its part.

    Raises:
        KeyError: there is no tensor of that name.
    """
    stacked = _STACKED.fullmatch(name)
    if not stacked:
        return tensors[name]
    return thirds(tensors[stacked[1]])["qkv".index(stacked[2])]


def thirds(tensor: torch.Tensor) -> Sequence[torch.Tensor]:
    """Splits a matrix in which the projections of queries, keys and values are stacked.

    Args:
        tensor: (3 D, ...).

    Returns:
        Three views of (D, ...); the whole tensor three times, whose shape then fits nowhere, if it cannot be split.
    """
    return tensor.chunk(3) if tensor.dim() and tensor.shape[0] % 3 == 0 else [tensor] * 3


@contextmanager
def errors_name(path: str | Path) -> Iterator[None]:
    """Puts the name of a file before the message of each ValueError that does not mention it.

    Args:
        path: what is read.

    Yields:
        Nothing.
    """
    try:
        yield
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error


def read_pickle(path: str | Path) -> Any:
    """Reads a file of `torch.save` without running code of it.

    Args:
        path: the file. It may hold tensors, plain values and `argparse.Namespace`.

    Returns:
        Its content, with tensors on the CPU.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, no such file, or holds anything else.
    """
    try:
        with torch.serialization.safe_globals([Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch has to say about a file that it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of several classes for a file that it will not open
        if isinstance(error, OSError) and error.filename:  # without a name, it is of reading on where a file was cut
            raise
        if foreign := re.search(r"GLOBAL (\S+) was not an allowed global", str(error)):
            why = f"not opened, because it holds an object of {foreign[1]}, and reading that would run code of the file"
        elif "TorchScript" in str(error):
            why = "not opened, because it is a TorchScript archive, which has a program in it"
        else:
            why = "damaged, or not a file of tensors that torch.save wrote"
        remedy = "save the tensors alone, by torch.save(model.state_dict(), file), where the model comes from"
        raise ValueError(f"{path}: {why}; {remedy}") from error


def require_tensors(state: Any) -> dict[str, torch.Tensor]:
    """Makes sure that what was read is a state_dict.

    Args:
        state: anything.

    Returns:
        The tensors by their names.

    Raises:
        ValueError: it is something else; the message says what.
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"not a state_dict but a {type(state).__name__}; a state_dict has tensors by their names")
    others = [name for name, value in state.items() if not (isinstance(name, str) and isinstance(value, torch.Tensor))]
    if others or not state:
        shown = ", ".join(repr(name) for name in others[:5]) or "nothing"
        raise ValueError(
            f"not a state_dict, which has tensors by their names and nothing else: this has {shown}; save the "
            "state_dict by itself, by torch.save(model.state_dict(), file)"
        )
    return dict(state)


def read_json(path: str | Path) -> dict[str, Any]:
    """Reads a JSON file that holds names and values.

    Args:
        path: the file.

    Returns:
        Its content.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or holds something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON, or of UTF-8
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__} instead of names and values")
    return content


def read_folder(folder: str | Path) -> dict[str, torch.Tensor]:
    """Reads the weights of a transformers folder: safetensors, or else pickled tensors and nothing but tensors.

    Args:
        folder: has `model.safetensors` or `pytorch_model.bin` in it.

    Returns:
        All tensors by name, on the CPU.

    Raises:
        FileNotFoundError: there is neither file.
        ValueError: the file is damaged, or holds other things.
    """
    safe, pickled = Path(folder) / "model.safetensors", Path(folder) / "pytorch_model.bin"
    if safe.is_file():
        try:
            return load_file(safe)
        except SafetensorError as error:
            raise ValueError(f"{safe}: damaged: {error}; download or copy it again") from error
    if pickled.is_file():
        with errors_name(pickled):
            return require_tensors(read_pickle(pickled))
    raise FileNotFoundError(f"{folder}: has neither {safe.name} nor {pickled.name}, so there are no weights to read")


def find(tensors: Mapping[str, torch.Tensor], what: str, *names: str) -> str:
    """Finds out which of several names a tensor has.

    Args:
        tensors: by their names.
        what: what to call it in the message.
        *names: names to try, in this order.

    Returns:
        The first of `names` that a tensor has.

    Raises:
        ValueError: no tensor has any of them.
    """
    for name in names:
        if name in tensors:
            return name
    raise ValueError(f"the checkpoint has no {what}: looked for {', '.join(names)}")


def count_rows(tensors: Mapping[str, torch.Tensor], what: str, name: str) -> int:
    """Reads a width off a matrix.

    Args:
        tensors: by their names.
        what: what to call it in the message.
        name: of the matrix.

    Returns:
        How many rows it has.

    Raises:
        ValueError: there is no such tensor, or it is not a matrix.
    """
    tensor = tensors[find(tensors, what, name)]
    if tensor.dim() != 2:
        raise ValueError(f"the {what} ({name}) is not a matrix but a tensor of shape {tuple(tensor.shape)}")
    return tensor.shape[0]


def embedding_fields(encoder: torch.Tensor, decoder: torch.Tensor, projection: torch.Tensor) -> dict[str, Any]:
    """Finds out which of the three matrices are the same one, as fields of our config.

    Args:
        encoder: (V of the source, D), the source's embedding.
        decoder: (V, D), the target's.
        projection: (V, D), before the softmax.

    Returns:
        `vocab_size`, `source_vocab_size`, `d_model` and `tie_word_embeddings`.

    Raises:
        ValueError: one is not a matrix.
    """
    for what, tensor in (("embedding of the source", encoder), ("embedding of the target", decoder),
                         ("pre-softmax projection", projection)):  # fmt: skip
        if tensor.dim() != 2:
            raise ValueError(f"the {what} is not a matrix but a tensor of shape {tuple(tensor.shape)}; check its name")
    tied = torch.equal(decoder, projection)
    is_shared = tied and torch.equal(encoder, decoder)
    # Three matrices of equal size are what `tie_word_embeddings`=False makes of one vocabulary.
    is_own = not is_shared and (tied or encoder.shape != decoder.shape)
    return {
        "vocab_size": decoder.shape[0],
        "source_vocab_size": encoder.shape[0] if is_own else None,
        "d_model": decoder.shape[1],
        "tie_word_embeddings": tied,
    }


def reason_of(error: StrictDataclassError) -> str:
    """Says in one line what is wrong with a field of a config.

    Args:
        error: as huggingface_hub raises it, in several lines.

    Returns:
        The message without the name of the check that found it.
    """
    return re.sub(r"^.*?alidation error for \w+ '\w+': \w+: ", "", " ".join(str(error).split()))


def outranked_by(given: Mapping[str, Any], read: Mapping[str, Any]) -> dict[str, Any]:
    """Puts what a user said in the place of what a file says.

    Args:
        given: fields of our config, by their own names or their aliases in `attribute_map`.
        read: fields by their own names.

    Returns:
        Fields by their own names.
    """
    names = VanillaTransformerConfig.attribute_map
    return {**read, **{names.get(name, name): value for name, value in given.items()}}


def make_config(
    fields: Mapping[str, Any], config_class: type[VanillaTransformerConfig] = VanillaTransformerConfig
) -> VanillaTransformerConfig:
    """Builds our config, or says in one line which field is impossible.

    Args:
        fields: of our config.
        config_class: its class.

    Returns:
        The config.

    Raises:
        ValueError: a value has the wrong type, or does not go together with another.
    """
    try:
        return config_class(**fields)
    except StrictDataclassError as error:
        raise ValueError(f"impossible configuration: {reason_of(error)}") from error


def build(
    fields: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    names: Names,
    places: Mapping[str, str],
    ignored: str = r"(?!)",
    model_class: type[Built] = VanillaTransformerForConditionalGeneration,
) -> Built:
    """Builds a model from foreign weights; every tensor must be used, and every parameter filled.

    Args:
        fields: of our config.
        tensors: theirs, by their names.
        names: the table.
        places: exceptions to the table: the whole name of a parameter of ours, and theirs.
        ignored: pattern of those of their names that hold no weights.
        model_class: what to build.

    Returns:
        The model in float32 and in eval mode.

    Raises:
        ValueError: a field is impossible, or a tensor does not fit; the message has the first names and shapes that
            differ, and how many there are.
    """
    model = model_class(make_config(fields, model_class.config_class))
    state, problems, used = {}, [], set()
    for our_name, parameter in model.named_parameters():
        name = places.get(our_name) or their_name(our_name, names)
        used.add(name.split("[")[0])
        try:
            tensor = part_of(tensors, name)
        except KeyError:
            problems.append(f"missing: {name}, for our {our_name} {tuple(parameter.shape)}")
            continue
        if tensor.numel() != parameter.numel() or tensor.squeeze().shape != parameter.squeeze().shape:
            problems.append(f"shape: {name} is {tuple(tensor.shape)}, our {our_name} {tuple(parameter.shape)}")
        elif not tensor.is_floating_point():
            problems.append(f"type: {name} has {tensor.dtype} values, which are not weights")
        elif not tensor.isfinite().all():
            problems.append(f"values: {name} has values that are not finite")
        else:
            state[our_name] = tensor.reshape(parameter.shape).float()
    for name in tensors:
        if name not in used and name not in places.values() and not re.search(ignored, name):
            problems.append(f"no place for: {name} {tuple(tensors[name].shape)}")
    if problems:
        rest = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ValueError(f"the checkpoint does not fit the model: {'; '.join(problems[:_SHOWN])}{rest}")
    # Tied copies have no parameter of their own, and load_state_dict would miss them.
    with torch.no_grad():
        for our_name, parameter in model.named_parameters():
            parameter.copy_(state[our_name])
    return model.eval()


def count_layers(tensors: Mapping[str, torch.Tensor], prefix: str) -> int:
    """Counts the layers of a stack by the numbers in the names of their tensors.

    Args:
        tensors: by their names.
        prefix: what stands before the number, such as "encoder.layers.".

    Returns:
        How many different numbers there are.

    Raises:
        ValueError: there is none.
    """
    numbers = {match[1] for name in tensors if (match := re.match(re.escape(prefix) + r"(\d+)\.", name))}
    if not numbers:
        raise ValueError(f"the checkpoint has no layer: no name begins with {prefix}0")
    return len(numbers)
