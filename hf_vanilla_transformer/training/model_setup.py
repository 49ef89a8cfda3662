"""What a run begins with: a new model of some shape, or a trained one with parts frozen, adapted or extended."""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import logging
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME

from ..configuration_decoder_only import VanillaTransformerDecoderConfig
from ..configuration_encoder_only import VanillaTransformerEncoderConfig
from ..configuration_variants import require_tokens
from ..inference import load_config, load_model
from .adapters import add_adapters
from .arguments import VanillaTransformerTrainingArguments
from .config_overrides import parse_overrides
from .objectives import LEARNERS
from .resuming import FIRST_UPDATE, RunIdentity
from .weight_transfer import take_over_weights

logger = logging.get_logger(__name__)


def build_model(args: VanillaTransformerTrainingArguments, tokenizer: PreTrainedTokenizerBase) -> tuple[Any, int]:
    """Builds or loads the model of a run.

    Args:
        args: the run; gives shape or folder, and what of the model learns.
        tokenizer: its tokens are rows of the embedding.

    Returns:
        The model, with adapters as a peft model; and the update of the schedule with which the run begins, from 0.

    Raises:
        ValueError: preset, class, overrides, a name of a part or a folder are not usable; the message says which.
        OSError: there is no such model.
    """
    learner = LEARNERS[args.objective]
    kind = model_class(args.model_class, args.objective)
    overrides = _overrides(args, kind.config_class)
    first_update = 0
    new_rows = set(tokenizer.convert_tokens_to_ids(args.new_tokens))
    if args.model_name_or_path is not None:
        if (Path(args.model_name_or_path) / ADAPTER_CONFIG_NAME).exists():
            raise ValueError(
                f"model_name_or_path={args.model_name_or_path} is an adapter without its model; go on with the folder "
                "of a finished run, which has the merged model, or resume a run with resume_from_checkpoint"
            )
        _refuse_another_kind(args.model_name_or_path, args.objective)
        model = load_model(args.model_name_or_path, "float32", learner.auto_class, **overrides)
        if not isinstance(model, learner.model_class):
            raise ValueError(
                f"model_name_or_path={args.model_name_or_path} is a {model.config.model_type} model, and no "
                "Transformer of this package; `vanilla-transformer convert` imports those of Marian, fairseq and "
                "torch.nn.Transformer"
            )
        # Tokens that the model did not have, and those that are found in spare rows of its embedding.
        new_rows |= set(range(model.config.vocab_size, len(tokenizer)))
        if len(tokenizer) > model.config.vocab_size:
            model.resize_token_embeddings(len(tokenizer))
        if args.continue_schedule:
            first_update = _updates_done(args.model_name_or_path)
    else:
        special_tokens = {
            "bos_token_id": tokenizer.bos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        }
        if learner.has_two_stacks:
            special_tokens["decoder_start_token_id"] = tokenizer.bos_token_id
        config = kind.config_class.from_preset(
            args.preset, **{"vocab_size": len(tokenizer), **special_tokens, **overrides}
        )
        if config.vocab_size < len(tokenizer):
            raise ValueError(
                f"config_overrides: vocab_size={config.vocab_size} is less than the {len(tokenizer)} tokens of the "
                "tokenizer; leave it out, or train a smaller tokenizer with --vocab_size"
            )
        model = kind(config)
        if learner.has_two_stacks:
            model.generation_config.num_beams = args.generation_num_beams or 1
        take_over_weights(model, tokenizer, args.init_encoder_from, args.init_decoder_from)
    require_tokens(model.config, "training on text")
    if args.gnmt_length_penalty is not None:
        model.generation_config.gnmt_length_penalty = args.gnmt_length_penalty
        model.generation_config.length_penalty = None  # of the base, which would outrank it
    _freeze(model, args.frozen_modules)
    if new_rows and not model.get_input_embeddings().weight.requires_grad:
        raise ValueError(
            f"new tokens do not learn in a frozen embedding, which frozen_modules={' '.join(args.frozen_modules)} has; "
            "to freeze the layers alone, name model.encoder.layers or model.decoder.layers"
        )
    if args.lora_rank:
        model = add_adapters(model, args.lora_rank, args.lora_modules, sorted(new_rows), args.frozen_modules)
    return model, first_update


def learned_positions(args: VanillaTransformerTrainingArguments) -> int | None:
    """Finds out how long a text the model of a run can take, before there is that model.

    Args:
        args: the run.

    Returns:
        How many positions it learns, or a teacher if that is fewer; None for sinusoids, which have no end.

    Raises:
        ValueError: preset, class or overrides are not usable.
        OSError: there is no such model.
    """
    config_class = model_class(args.model_class, args.objective).config_class
    overrides = _overrides(args, config_class)
    if args.model_name_or_path is None:
        config: Any = config_class.from_preset(args.preset, **overrides)
    else:
        if (Path(args.model_name_or_path) / ADAPTER_CONFIG_NAME).exists():
            return None  # `build_model` refuses it
        _refuse_another_kind(args.model_name_or_path, args.objective)
        config = load_config(args.model_name_or_path, LEARNERS[args.objective].auto_class, **overrides)
    configs = [config, *(load_config(each, LEARNERS[args.objective].auto_class) for each in args.distill_from)]
    learned = [each for each in configs if getattr(each, "position_encoding", None) == "learned"]
    return min((each.num_learned_positions for each in learned), default=None)


def model_class(name: str | None, objective: str = "translation") -> type[Any]:
    """Finds the class of a new model.

    Args:
        name: as MODULE:CLASS, where the module can be imported; None for this package's own.
        objective: what the model is to learn.

    Returns:
        The class, whose `config_class` describes its shape by `from_preset`.

    Raises:
        ValueError: there is no such module or class, or it is no model of this kind.
    """
    own = LEARNERS[objective].model_class
    if name is None:
        return own
    module, _, path = name.partition(":")
    if not module or not path:
        raise ValueError(f"model_class={name!r} is not of the form MODULE:CLASS, such as my_package.models:MyModel")
    try:
        found = getattr(importlib.import_module(module), path)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"model_class={name!r} cannot be imported: {error}") from error
    is_model = isinstance(found, type) and issubclass(found, PreTrainedModel)
    if not is_model or not hasattr(found.config_class, "from_preset"):
        raise ValueError(
            f"model_class={name!r} is no PreTrainedModel with a config_class that has `from_preset`; take a subclass "
            f"of {own.__name__}, or a class that is made like it"
        )
    if not LEARNERS[objective].has_two_stacks and not issubclass(found, own):
        raise ValueError(f"model_class={name!r} is no {own.__name__}, which objective={objective} trains")
    return found


def _overrides(args: VanillaTransformerTrainingArguments, config_class: Any) -> dict[str, Any]:
    """Reads config_overrides, and adds what the objective needs."""
    overrides = parse_overrides(args.config_overrides, config_class)
    for field, value in LEARNERS[args.objective].config:
        if overrides.setdefault(field, value) != value:
            raise ValueError(f"config_overrides: {field}={overrides[field]}, but objective={args.objective} is {value}")
    return overrides


def _refuse_another_kind(folder: str, objective: str) -> None:
    """Refuses to learn an objective with a model of another kind, and says what to do with it instead."""
    wanted, found = LEARNERS[objective], load_config(folder, None)
    is_encoder, is_decoder = (
        isinstance(found, each) for each in (VanillaTransformerEncoderConfig, VanillaTransformerDecoderConfig)
    )
    fits = found.is_encoder_decoder if wanted.has_two_stacks else isinstance(found, wanted.model_class.config_class)
    if fits or not (is_encoder or is_decoder or found.is_encoder_decoder):
        return  # what is no model of this package is refused when it is loaded
    hint = ""
    if wanted.has_two_stacks:
        hint = f"; to begin a new model with its weights, give init_{'en' if is_encoder else 'de'}coder_from={folder}"
    raise ValueError(
        f"model_name_or_path={folder} is a {found.model_type} model, and objective={objective} trains a "
        f"{wanted.model_class.__name__}{hint}"
    )


def _freeze(model: Any, names: Sequence[str]) -> None:
    """Stops parts of a model from learning, and says which others stop with them because their weights are tied."""
    for name in names:
        try:
            model.get_submodule(name).requires_grad_(False)
        except AttributeError as error:
            raise ValueError(f"frozen_modules: the model has no {name!r}; name parts such as model.encoder") from error
    if not any(weight.requires_grad for weight in model.parameters()):
        raise ValueError(f"frozen_modules={' '.join(names)} leaves nothing to learn; name fewer parts")
    prefixes = tuple(f"{name}." for name in names)
    also = [
        name.removesuffix(".weight")
        for name, weight in model.named_parameters(remove_duplicate=False)
        if names and not weight.requires_grad and not name.startswith(prefixes)
    ]
    if also:
        logger.warning(
            f"frozen_modules: {' and '.join(also)} do not learn either, since their weights are those of an embedding "
            "in a frozen part; to freeze the layers of the encoder alone, name model.encoder.layers"
        )


def _updates_done(folder: str) -> int:
    """How far the schedule was when a model was saved, in a checkpoint or at the end, its run's own start included."""
    state, results = Path(folder) / TRAINER_STATE_NAME, Path(folder) / "results.json"
    if state.exists():
        identity = RunIdentity.read(Path(folder))
        first_update = 0 if identity is None else identity.settings.get(FIRST_UPDATE, 0)
        return int(first_update) + int(json.loads(state.read_text(encoding="utf-8"))["global_step"])
    if results.exists():
        metrics = json.loads(results.read_text(encoding="utf-8"))["metrics"]
        return int(metrics.get(FIRST_UPDATE, 0)) + int(metrics["updates"])
    raise ValueError(
        f"continue_schedule: {folder} has neither {TRAINER_STATE_NAME} nor results.json, which say where it stopped"
    )
