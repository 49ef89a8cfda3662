"""A trained model and its tokenizer from a folder, or several models that decode together."""

from collections.abc import Sequence

from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from .ensemble import EnsembleForConditionalGeneration


def load_translator(
    folders: Sequence[str], device: str = "cpu", dtype: str = "auto"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads what scripts are to work with: a model and its tokenizer, or several models as an ensemble.

    Args:
        folders: of a model each, or its name on the Hub.
        device: where to compute.
        dtype: type of the weights, such as `float32` or `bfloat16`; "auto" for that in which they are saved.

    Returns:
        The model, in eval mode, and the tokenizer of the first.

    Raises:
        OSError: there is no such model.
        ValueError: the device cannot be used, or the models of an ensemble have not one vocabulary.
    """
    models, tokenizers = [], []
    for folder in folders:
        model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=dtype, trust_remote_code=False)
        try:
            models.append(model.to(device).eval())
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"`device`={device!r} cannot be used: {error}") from error
        tokenizers.append(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
        if tokenizers[-1].get_vocab() != tokenizers[0].get_vocab():
            raise ValueError(
                f"the tokenizers of {folders[0]} and {folder} have different vocabularies; "
                "only models of one vocabulary work together"
            )
    return models[0] if len(models) == 1 else EnsembleForConditionalGeneration(models).eval(), tokenizers[0]
