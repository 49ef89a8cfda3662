"""A trained model and its tokenizer from a folder, or several models that decode together."""

from collections.abc import Sequence

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from .ensemble import EnsembleForConditionalGeneration


def load_model(
    names: str | Sequence[str], device: str | torch.device = "cpu", dtype: str = "auto"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads what scripts are to work with.

    Args:
        names: folder (or Hub name) of a model and its tokenizer; of several, an ensemble is made.
        device: where to compute.
        dtype: type of the weights, such as `float32` or `bfloat16`; "auto" for that in which they are saved.

    Returns:
        The model, in eval mode, and the tokenizer of the first.

    Raises:
        OSError: there is no such model.
        ValueError: the models of an ensemble have not one vocabulary.
    """
    names = [names] if isinstance(names, str) else list(names)
    models, tokenizers = [], []
    for name in names:
        model = AutoModelForSeq2SeqLM.from_pretrained(name, dtype=dtype, trust_remote_code=False)
        models.append(model.to(device).eval())
        tokenizers.append(AutoTokenizer.from_pretrained(name, trust_remote_code=False))
    for name, tokenizer in zip(names, tokenizers, strict=True):
        if tokenizer.get_vocab() != tokenizers[0].get_vocab():
            raise ValueError(
                f"the tokenizers of {names[0]} and {name} have different vocabularies; "
                "only models of one vocabulary work together"
            )
    model = models[0] if len(models) == 1 else EnsembleForConditionalGeneration(models).eval()
    return model, tokenizers[0]
