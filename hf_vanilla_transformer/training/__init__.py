"""§5 training: the arguments of a run, its recipe, the trainer, checkpoints one can trust, and what a run leaves."""

from .arguments import VanillaTransformerTrainingArguments
from .averaging import average_checkpoints, last_checkpoints
from .recipes import parse_arguments, read_recipe
from .report import summary_lines
from .run import PreparedRun, TrainingResult, prepare, prepare_only, pretrain, train
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
    "prepare_only",
    "pretrain",
    "read_recipe",
    "summary_lines",
    "train",
]
