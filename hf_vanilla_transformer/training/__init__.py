"""Training from text: reading it, learning a vocabulary from it, and learning to translate."""

from .arguments import PretrainingArguments
from .pretraining import PreparedRun, PretrainingResult, prepare, pretrain, train
from .tokenization import train_tokenizer
from .trainer import VanillaTransformerTrainer

__all__ = [
    "PreparedRun",
    "PretrainingArguments",
    "PretrainingResult",
    "VanillaTransformerTrainer",
    "prepare",
    "pretrain",
    "train",
    "train_tokenizer",
]
