"""What all imports share: tensors read without running code, names translated by a table, a check that all fit."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..configuration_vanilla_transformer import VanillaTransformerConfig
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration

# A table maps patterns of our parameter names to theirs, applied in order. Where they stack the projections of queries,
# keys and values in one matrix, their name ends in the part that is meant: `in_proj_weight[q]`.
Names = Mapping[str, str]

_STACKED = re.compile(r"(.*)\[([qkv])\]")

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
    """Looks up a tensor, or the third of it that the name's suffix means.

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
    return tensors[stacked[1]].chunk(3)["qkv".index(stacked[2])]


def read_folder(folder: str | Path) -> dict[str, torch.Tensor]:
    """Reads the weights of a transformers folder: safetensors, or else pickled tensors and nothing but tensors.

    Args:
        folder: has `model.safetensors` or `pytorch_model.bin` in it.

    Returns:
        All tensors by name, on the CPU.

    Raises:
        FileNotFoundError: there is neither file.
    """
    safe, pickled = Path(folder) / "model.safetensors", Path(folder) / "pytorch_model.bin"
    if safe.is_file():
        return load_file(safe)
    if pickled.is_file():
        return torch.load(pickled, map_location="cpu", weights_only=True)
    raise FileNotFoundError(f"{folder}: has neither {safe.name} nor {pickled.name}, so there are no weights to read")


def find(tensors: Mapping[str, torch.Tensor], what: str, *names: str) -> str:
    """Says under which of several names a tensor stands.

    Args:
        tensors: by their names.
        what: what to call it in the message.
        *names: where to look, the first first.

    Returns:
        The first of `names` that is there.

    Raises:
        ValueError: none is.
    """
    for name in names:
        if name in tensors:
            return name
    raise ValueError(f"the checkpoint has no {what}: looked for {', '.join(names)}")


def embedding_fields(encoder: torch.Tensor, decoder: torch.Tensor, projection: torch.Tensor) -> dict[str, Any]:
    """Says in fields of our config which of three matrices are one.

    Args:
        encoder: (V of the source, D), the source's embedding.
        decoder: (V, D), the target's.
        projection: (V, D), before the softmax.

    Returns:
        `vocab_size`, `source_vocab_size`, `d_model` and `tie_word_embeddings`.
    """
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


def build(
    fields: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    names: Names,
    places: Mapping[str, str],
    ignored: str = r"(?!)",
) -> VanillaTransformerForConditionalGeneration:
    """Makes a model of foreign weights, if each tensor has its place and each place its tensor.

    Args:
        fields: of our config.
        tensors: theirs, by their names.
        names: the table.
        places: exceptions to the table: the whole name of a parameter of ours, and theirs.
        ignored: pattern of those of their names that hold no weights.

    Returns:
        The model in float32 and in eval mode.

    Raises:
        ValueError: it does not fit; the message has every name and shape that differs.
    """
    model = VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**fields))
    state, problems, used = {}, [], set()
    for our_name, parameter in model.named_parameters():
        name = places.get(our_name) or their_name(our_name, names)
        used.add(name.split("[")[0])
        try:
            tensor = part_of(tensors, name)
        except KeyError:
            problems.append(f"missing: {name}, for our {our_name} {tuple(parameter.shape)}")
            continue
        if tensor.numel() == parameter.numel() and tensor.squeeze().shape == parameter.squeeze().shape:
            state[our_name] = tensor.reshape(parameter.shape).float()
        else:
            problems.append(f"shape: {name} is {tuple(tensor.shape)}, our {our_name} {tuple(parameter.shape)}")
    for name in tensors:
        if name not in used and name not in places.values() and not re.search(ignored, name):
            problems.append(f"no place for: {name} {tuple(tensors[name].shape)}")
    if problems:
        raise ValueError("the checkpoint does not fit the model:\n  " + "\n  ".join(problems))
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
