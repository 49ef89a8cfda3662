"""In, from files to a folder: what the command `convert` does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..data.tokenization import save_tokenizer
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from .bert import load_bert, load_bert_tokenizer
from .checkpoints import errors_name, read_pickle, require_tensors
from .fairseq import load_fairseq, load_fairseq_tokenizer
from .gpt2 import load_gpt2, load_gpt2_tokenizer
from .llama import load_llama, load_llama_tokenizer
from .marian import load_marian, load_marian_tokenizers
from .output_folder import OF_MODELS, OF_TOKENIZERS, OF_WEIGHTS, TARGET_TOKENIZER, output_folder
from .sentencepiece import load_sentencepiece_tokenizer
from .torch_transformer import load_torch_transformer

# What reads the model of a folder of transformers, and what reads its tokenizer.
_FOLDERS: dict[str, tuple[Callable[..., PreTrainedModel], Callable[..., PreTrainedTokenizerBase | None]]] = {
    "bert": (load_bert, load_bert_tokenizer),
    "gpt2": (load_gpt2, load_gpt2_tokenizer),
    "llama": (load_llama, load_llama_tokenizer),
}


def convert_marian(
    checkpoint: str | Path, output_dir: str | Path, overwrite: bool = False
) -> VanillaTransformerForConditionalGeneration:
    """Converts a Marian or OPUS-MT folder to one of this package, tokenizers included.

    The tokenizer in the folder encodes sources and, with one vocabulary, decodes translations. Where source and
    target are cut differently, that of the target is saved too, in the sub-folder `target_tokenizer`.

    Args:
        checkpoint: a folder, as `load_marian` and `load_marian_tokenizers` want it.
        output_dir: written when all else is done; must be free or empty.
        overwrite: whether an earlier result in `output_dir` may be replaced.

    Returns:
        The model that was saved.

    Raises:
        OSError: a file is missing, or `output_dir` has files in it or is the checkpoint.
        ValueError: it does not fit.
    """
    with output_folder(output_dir, overwrite, source=checkpoint, own=OF_MODELS) as written:
        model = load_marian(checkpoint)
        source, target = load_marian_tokenizers(checkpoint)
        _save(model, source, target, written)
    return model


def convert_folder(
    kind: str, checkpoint: str | Path, output_dir: str | Path, overwrite: bool = False
) -> PreTrainedModel:
    """Converts a folder of BERT, GPT-2 or LLaMA to one of this package, with its tokenizer if it has one.

    Args:
        kind: "bert", "gpt2" or "llama".
        checkpoint: a folder, as `load_bert`, `load_gpt2` or `load_llama` wants it.
        output_dir: written when all else is done; must be free or empty.
        overwrite: whether an earlier result in `output_dir` may be replaced.

    Returns:
        The model that was saved: an encoder or a decoder alone.

    Raises:
        KeyError: there is no such kind.
        OSError: a file is missing, or `output_dir` has files in it or is the checkpoint.
        ValueError: it does not fit.
    """
    load, load_tokenizer = _FOLDERS[kind]
    with output_folder(output_dir, overwrite, source=checkpoint, own=OF_MODELS) as written:
        model, tokenizer = load(checkpoint), load_tokenizer(checkpoint)
        model.save_pretrained(written)
        if tokenizer is not None:
            tokenizer.save_pretrained(written)  # as it is: these are tokenizers of transformers
    return model


def convert_fairseq(
    checkpoint: str | Path,
    output_dir: str | Path,
    source_dictionary: str | Path,
    target_dictionary: str | Path | None = None,
    sentencepiece_model: str | Path | None = None,
    overwrite: bool = False,
    **fields: Any,
) -> VanillaTransformerForConditionalGeneration:
    """Converts a fairseq checkpoint and its dictionaries to a folder of this package.

    Args:
        checkpoint: a `.pt` file, as `load_fairseq` wants it.
        output_dir: written when all else is done; must be free or empty.
        source_dictionary: the source's `dict.*.txt`.
        target_dictionary: the target's; None means the same.
        sentencepiece_model: what cuts text into the tokens of the dictionaries, if that is SentencePiece.
        overwrite: whether an earlier result in `output_dir` may be replaced.
        **fields: of our config, such as `num_heads` where the checkpoint does not say it.

    Returns:
        The model that was saved.

    Raises:
        OSError: a file cannot be read, or `output_dir` has files in it.
        ValueError: it does not fit.
    """
    with output_folder(output_dir, overwrite, own=OF_MODELS) as written:
        model = load_fairseq(checkpoint, **fields)
        config = model.config
        source = target = load_fairseq_tokenizer(
            source_dictionary, config.source_vocab_size or config.vocab_size, sentencepiece_model
        )
        if target_dictionary and Path(target_dictionary).read_bytes() != Path(source_dictionary).read_bytes():
            target = load_fairseq_tokenizer(target_dictionary, config.vocab_size, sentencepiece_model)
        _save(model, source, target, written)
    return model


def convert_torch_transformer(
    checkpoint: str | Path, output_dir: str | Path, overwrite: bool = False, **options: Any
) -> VanillaTransformerForConditionalGeneration:
    """Converts the saved state_dict of a module around `torch.nn.Transformer`; the folder has no tokenizer.

    Args:
        checkpoint: what `torch.save(module.state_dict(), file)` wrote.
        output_dir: written when all else is done; must be free or empty.
        overwrite: whether an earlier result in `output_dir` may be replaced.
        **options: of `load_torch_transformer`.

    Returns:
        The model that was saved.

    Raises:
        OSError: the file cannot be read, or `output_dir` has files in it.
        ValueError: it does not fit, or is not a state_dict.
    """
    with output_folder(output_dir, overwrite, own=OF_WEIGHTS) as written, errors_name(checkpoint):
        model = load_torch_transformer(require_tensors(read_pickle(checkpoint)), **options)
        model.save_pretrained(written)
    return model


def convert_sentencepiece(
    checkpoint: str | Path, output_dir: str | Path, overwrite: bool = False
) -> PreTrainedTokenizerFast:
    """Converts a SentencePiece model to a folder with a fast tokenizer, to train a model with.

    Args:
        checkpoint: a `.model` or `.spm` file, as `load_sentencepiece_tokenizer` wants it.
        output_dir: written when all else is done; must be free or empty.
        overwrite: whether an earlier result in `output_dir` may be replaced.

    Returns:
        The tokenizer that was saved.

    Raises:
        ImportError: sentencepiece or protobuf is not installed.
        OSError: the file cannot be read, or `output_dir` has files in it.
        ValueError: it is not such a file, or a fast tokenizer cannot follow it.
    """
    with output_folder(output_dir, overwrite, own=OF_TOKENIZERS) as written:
        tokenizer = load_sentencepiece_tokenizer(checkpoint)
        save_tokenizer(tokenizer, written)
    return tokenizer


def _save(
    model: VanillaTransformerForConditionalGeneration,
    source: PreTrainedTokenizerFast,
    target: PreTrainedTokenizerFast,
    folder: Path,
) -> None:
    model.save_pretrained(folder)
    save_tokenizer(source, folder)
    if target is not source:
        save_tokenizer(target, folder / TARGET_TOKENIZER)
