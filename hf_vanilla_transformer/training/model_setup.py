"""What a run begins with: a new model of some shape, or a trained one with parts frozen, adapted or extended."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from transformers.trainer import TRAINER_STATE_NAME

from ..configuration_vanilla_transformer import VanillaTransformerConfig
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from .arguments import VanillaTransformerTrainingArguments
from .config_overrides import parse_overrides


def build_model(args: VanillaTransformerTrainingArguments, tokenizer: PreTrainedTokenizerBase) -> tuple[Any, int]:
    """Builds or loads the model of a run.

    Args:
        args: the run; gives shape or folder, and what of the model learns.
        tokenizer: its tokens are rows of the embedding.

    Returns:
        The model, with adapters as a peft model; and the update of the schedule with which the run begins, from 0.

    Raises:
        ValueError: preset, overrides, a name of a part or a folder are not usable; the message says which.
        OSError: there is no such model.
    """
    overrides = parse_overrides(args.config_overrides)
    first_update = 0
    if args.model_name_or_path is not None:
        model = VanillaTransformerForConditionalGeneration.from_pretrained(
            args.model_name_or_path, dtype=torch.float32, **overrides
        )
        if len(tokenizer) > model.config.vocab_size:
            model.resize_token_embeddings(len(tokenizer))
        if args.continue_schedule:
            first_update = _updates_done(args.model_name_or_path)
    else:
        special_tokens = {
            "bos_token_id": tokenizer.bos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "decoder_start_token_id": tokenizer.bos_token_id,
        }
        config = VanillaTransformerConfig.from_preset(
            args.preset, **{"vocab_size": len(tokenizer), **special_tokens, **overrides}
        )
        if config.vocab_size < len(tokenizer):
            raise ValueError(
                f"config_overrides: vocab_size={config.vocab_size} is less than the {len(tokenizer)} tokens of the "
                "tokenizer; leave it out, or train a smaller tokenizer with --vocab_size"
            )
        model = VanillaTransformerForConditionalGeneration(config)
        model.generation_config.num_beams = args.generation_num_beams or 1
    for name in args.frozen_modules:
        try:
            model.get_submodule(name).requires_grad_(False)
        except AttributeError as error:
            raise ValueError(f"frozen_modules: the model has no {name!r}; name parts such as model.encoder") from error
    return (_with_adapters(model, args) if args.lora_rank else model), first_update


def _with_adapters(model: Any, args: VanillaTransformerTrainingArguments) -> Any:
    try:
        from peft import LoraConfig, TaskType, get_peft_model
    except ImportError as error:
        raise ValueError("lora_rank needs peft: pip install peft") from error
    config = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM,
        r=args.lora_rank,
        lora_alpha=2 * args.lora_rank,
        target_modules=args.lora_modules,
    )
    return get_peft_model(model, config)


def _updates_done(folder: str) -> int:
    """How many updates a model's run had done when it was saved: in a checkpoint, or at the end."""
    for name, keys in ((TRAINER_STATE_NAME, ("global_step",)), ("results.json", ("metrics", "updates"))):
        path = Path(folder) / name
        if path.exists():
            value = json.loads(path.read_text(encoding="utf-8"))
            for key in keys:
                value = value[key]
            return int(value)
    raise ValueError(
        f"continue_schedule: {folder} has neither {TRAINER_STATE_NAME} nor results.json, which say where it stopped"
    )
