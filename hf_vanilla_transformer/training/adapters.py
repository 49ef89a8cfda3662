"""LoRA adapters of peft in a run of training: added to a model, saved by themselves, merged in the end."""

import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME

from ..data.tokenization import save_tokenizer
from ..embeddings import TokenEmbedding

logger = logging.get_logger(__name__)

# Fields of peft's config, and the arguments of a run that they are made from.
_OPTIONS = {
    "r": "lora_rank",
    "target_modules": "lora_modules",
    "exclude_modules": "frozen_modules",
    "trainable_token_indices": "new_tokens",
}
_ADAPTABLE = (nn.Linear, nn.Embedding, TokenEmbedding)


def add_adapters(
    model: Any, rank: int, modules: Sequence[str], new_rows: Sequence[int] = (), frozen: Sequence[str] = ()
) -> Any:
    """Adds LoRA adapters to a model, whose own weights do not learn any more.

    Args:
        model: a `VanillaTransformerForConditionalGeneration`.
        rank: of the adapters; their alpha is twice the rank.
        modules: names of the projections and embeddings that get one: the last part of a name, or all of it.
        new_rows: token ids whose rows of the embedding learn as they are, without an adapter.
        frozen: names of parts that get no adapter.

    Returns:
        The peft model.

    Raises:
        ValueError: peft is missing, a name is not of such a module, or no module is left.
    """
    try:
        from peft import LoraConfig, TaskType, get_peft_model
    except ImportError as error:
        raise ValueError("lora_rank needs peft: pip install peft") from error
    parts = dict(model.named_modules())
    adapted: set[str] = set()
    for name in modules:
        found = {each for each in parts if each == name or each.endswith(f".{name}")}
        if not found:
            raise ValueError(f"lora_modules: the model has no {name!r}; name parts such as q_proj, v_proj or fc1")
        for each in found:
            if type(parts[each]) not in _ADAPTABLE:
                raise ValueError(
                    f"lora_modules: {each} is a {type(parts[each]).__name__}; adapters are for single projections and "
                    "embeddings, such as q_proj, v_proj or fc1"
                )
        adapted |= found
    # Of modules that are named in full: `model.encoder` does not stand for `model.encoder_norm`.
    is_frozen = re.compile(r"(" + "|".join(map(re.escape, frozen)) + r")(\..*)?") if frozen else None
    if is_frozen is not None and all(is_frozen.fullmatch(name) for name in adapted):
        raise ValueError(
            f"frozen_modules={' '.join(frozen)} has all of lora_modules={' '.join(modules)}: nothing is left to learn"
        )
    embeddings = _embeddings(model)
    if new_rows and adapted & embeddings.keys():
        raise ValueError(
            f"lora_modules: {' '.join(sorted(adapted & embeddings.keys()))} would get an adapter, and rows of new "
            "tokens that learn by themselves; take these modules out of lora_modules, or add no tokens"
        )
    rows: Any = None
    if new_rows:  # where embeddings are tied, peft takes the change to the input embedding to the others
        tied = model.config.tie_word_embeddings
        rows = {name: list(new_rows) for name in embeddings if not tied or name == _input_embedding(model)}
    config = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM,
        r=rank,
        lora_alpha=2 * rank,
        target_modules=list(modules),
        exclude_modules=is_frozen.pattern if is_frozen is not None else None,
        trainable_token_indices=rows,
    )
    with warnings.catch_warnings():  # of what comes of merging, which `merge_adapters` sees to
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        return get_peft_model(model, config)


def refuse_other_adapters(model: Any, checkpoint: Path) -> None:
    """Refuses to resume a run with other adapters than it had.

    Args:
        model: of the run as it is now, with or without adapters.
        checkpoint: what it is to be resumed from.

    Raises:
        ValueError: they do not belong together; the message names the option.
    """
    saved_at, configs = checkpoint / ADAPTER_CONFIG_NAME, getattr(model, "peft_config", None)
    if saved_at.exists() != bool(configs):
        has, now = ("no ", "") if configs else ("", " no")
        raise ValueError(
            f"{checkpoint} has {has}adapters, and this run has{now} lora_rank; resume with the same options"
        )
    if not configs:
        return
    saved, now = json.loads(saved_at.read_text(encoding="utf-8")), next(iter(configs.values())).to_dict()
    for field, option in _OPTIONS.items():
        before, after = (sorted(each) if isinstance(each, set | list) else each for each in (saved[field], now[field]))
        if before != after:
            raise ValueError(
                f"{checkpoint} has adapters of another {option} ({field} {before}, now {after}); resume with the same "
                "options, or start again in another output_dir"
            )


def save_adapter(model: Any, tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> None:
    """Saves an adapter by itself, for those who have the model that it belongs to.

    Args:
        model: a peft model.
        tokenizer: saved too; from it `AutoPeftModelForSeq2SeqLM` knows how many rows the embeddings have.
        folder: where.
    """
    # Rows of new tokens are in the adapter; the others are the model's.
    model.save_pretrained(folder, save_embedding_layers=False)
    save_tokenizer(tokenizer, folder)


def merge_adapters(model: Any) -> Any:
    """Merges adapters into the weights of their model.

    Merging adds to a matrix in place. Where embeddings are tied (§3.4) and one of them has an adapter of its own, the
    others would get its change too; so they are untied before, and the model is then saved with a matrix each.

    Args:
        model: a peft model; not to be used afterwards.

    Returns:
        The model itself, which predicts what the peft model predicted.
    """
    from peft.tuners.lora import LoraLayer

    base = model.get_base_model()
    adapted = [name for name, part in _embeddings(base).items() if isinstance(part, LoraLayer)]
    if base.config.tie_word_embeddings and adapted:
        logger.warning(
            f"{' and '.join(adapted)} have adapters of their own, so the saved model has untied embeddings "
            "(tie_word_embeddings=False)"
        )
        base.untie_embeddings()
    return model.merge_and_unload()


def _embeddings(model: Any) -> dict[str, nn.Module]:
    """The modules by name that have the rows of the vocabulary."""
    parts = (model.get_input_embeddings(), model.get_decoder().embed_tokens, model.get_output_embeddings())
    return {name: part for name, part in model.named_modules() if any(part is each for each in parts)}


def _input_embedding(model: Any) -> str:
    return next(name for name, part in model.named_modules() if part is model.get_input_embeddings())
