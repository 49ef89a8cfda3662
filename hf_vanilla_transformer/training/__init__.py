"""Training from text: reading it, learning a vocabulary from it, and learning to translate."""

from .arguments import VanillaTransformerTrainingArguments
from .averaging import average_checkpoints, last_checkpoints
from .command_line import run_command
from .pretraining import PreparedRun, TrainingResult, prepare, pretrain, train
from .recipes import parse_arguments, read_recipe
from .report import summary_lines
from .tokenization import train_tokenizer
from .trainer import VanillaTransformerTrainer

__all__ = [
    "PreparedRun",
    "TrainingResult",
    "VanillaTransformerTrainer",
    "VanillaTransformerTrainingArguments",
    "average_checkpoints",
    "last_checkpoints",
    "parse_arguments",
    "prepare",
    "pretrain",
    "read_recipe",
    "run_command",
    "summary_lines",
    "train",
    "train_tokenizer",
]
