"""In, from files to a folder: what `scripts/convert.py` does."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from .fairseq import load_fairseq, load_fairseq_tokenizer
from .marian import load_marian, load_marian_tokenizers
from .torch_transformer import load_torch_transformer

# Where a converted folder keeps the tokenizer of the target, if that of the source cannot encode it.
TARGET_TOKENIZER = "target_tokenizer"


def convert_marian(folder: str | Path, output_dir: str | Path) -> VanillaTransformerForConditionalGeneration:
    """Makes our folder of a Marian or OPUS-MT folder, tokenizers included.

    The tokenizer in the folder encodes sources and, with one vocabulary, decodes translations. Where source and
    target are cut differently, that of the target is saved too, in the sub-folder `target_tokenizer`.

    Args:
        folder: as `load_marian` and `load_marian_tokenizers` want it.
        output_dir: made where there is none.

    Returns:
        The model that was saved.

    Raises:
        OSError: a file is missing.
        ValueError: it does not fit.
    """
    model = load_marian(folder)
    source, target = load_marian_tokenizers(folder)
    _save(model, source, target, output_dir)
    return model


def convert_fairseq(
    checkpoint: str | Path,
    output_dir: str | Path,
    source_dictionary: str | Path,
    target_dictionary: str | Path | None = None,
    sentencepiece_model: str | Path | None = None,
    **fields: Any,
) -> VanillaTransformerForConditionalGeneration:
    """Makes our folder of a fairseq checkpoint and its dictionaries.

    Args:
        checkpoint: a `.pt` file, as `load_fairseq` wants it.
        output_dir: made where there is none.
        source_dictionary: the source's `dict.*.txt`.
        target_dictionary: the target's; None means the same.
        sentencepiece_model: what cuts text into the tokens of the dictionaries, if that is SentencePiece.
        **fields: of our config, such as `num_heads` where the checkpoint does not say it.

    Returns:
        The model that was saved.

    Raises:
        OSError: a file cannot be read.
        ValueError: it does not fit.
    """
    model = load_fairseq(checkpoint, **fields)
    config = model.config
    source = target = load_fairseq_tokenizer(
        source_dictionary, config.source_vocab_size or config.vocab_size, sentencepiece_model
    )
    if target_dictionary is not None and Path(target_dictionary).read_bytes() != Path(source_dictionary).read_bytes():
        target = load_fairseq_tokenizer(target_dictionary, config.vocab_size, sentencepiece_model)
    _save(model, source, target, output_dir)
    return model


def convert_torch_transformer(
    checkpoint: str | Path, output_dir: str | Path, **options: Any
) -> VanillaTransformerForConditionalGeneration:
    """Makes our folder of the saved state of a module around `torch.nn.Transformer`; there is no tokenizer in it.

    Args:
        checkpoint: what `torch.save(module.state_dict(), file)` wrote.
        output_dir: made where there is none.
        **options: of `load_torch_transformer`.

    Returns:
        The model that was saved.

    Raises:
        OSError: the file cannot be read.
        ValueError: it does not fit, or is no state.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{checkpoint}: not a state_dict: it must have tensors by their names and nothing else")
    model = load_torch_transformer(state, **options)
    model.save_pretrained(output_dir)
    return model


def _save(
    model: VanillaTransformerForConditionalGeneration,
    source: PreTrainedTokenizerFast,
    target: PreTrainedTokenizerFast,
    output_dir: str | Path,
) -> None:
    model.save_pretrained(output_dir)
    source.save_pretrained(output_dir)
    if target is not source:
        target.save_pretrained(Path(output_dir) / TARGET_TOKENIZER)
