"""Training from text: reading it, learning a vocabulary from it, and learning to translate."""

from .arguments import PretrainingArguments
from .pretraining import PretrainingResult, pretrain, train
from .tokenization import train_tokenizer
from .trainer import VanillaTransformerTrainer

__all__ = [
    "PretrainingArguments",
    "PretrainingResult",
    "VanillaTransformerTrainer",
    "pretrain",
    "train",
    "train_tokenizer",
]
