"""Checkpoints of other systems in, and ours out to them; one module and one table of names a system."""

from .fairseq import load_fairseq, load_fairseq_tokenizer
from .marian import load_marian, load_marian_tokenizers
from .torch_transformer import load_torch_transformer

__all__ = [
    "load_fairseq",
    "load_fairseq_tokenizer",
    "load_marian",
    "load_marian_tokenizers",
    "load_torch_transformer",
]
