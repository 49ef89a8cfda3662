"""The options of a run as words of a command line, the important ones first."""

import argparse
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

from transformers import HfArgumentParser, Seq2SeqTrainingArguments

from ..inference.one_line_parser import OneLineParser
from .arguments import VanillaTransformerTrainingArguments
from .refused_options import REFUSED

# What `--help` shows of a run, by purpose, in this order. The text is that of the field; those of transformers, which
# are written for every kind of model, have one here.
OPTION_GROUPS: dict[str, dict[str, str | None]] = {
    "data": {
        "train_data": "Corpora: FILE.jsonl, FILE.tsv, source=FILE,target=FILE or dataset=NAME[,config=NAME]"
        "[,split=NAME]; weight=2: counts twice; tag=2de: puts <2de> first.",
        "validation_data": None,
        "source_lang": None,
        "target_lang": None,
        "corpus_temperature": "T: shares of corpora by size^(1/T); 5 is usual for many languages.",
        "max_length": None,
        "max_length_ratio": None,
        "drop_duplicates": None,
        "streaming": None,
        "shuffle_buffer": None,
        "data_cache_dir": None,
        "preprocessing_workers": "Processes that tokenise. [as many as the text is worth, up to 8]",
        "prepare_only": "Train the tokenizer, tokenise, plan the batches, and stop. Can be repeated.",
        "dry_run": "Make so many updates on made-up text; say what memory and time they took.",
    },
    "tokenizer and batches": {
        "tokenizer_name_or_path": None,
        "vocab_size": "Tokens, or the most of them, of a vocabulary that is trained.",
        "source_units": "Of such a vocabulary: bpe, lowercase_bpe, characters, nfd_characters, words.",
        "target_units": "Likewise for targets; bpe is for both sides.",
        "num_sentinels": None,
        "max_tokens": None,
        "batching": None,
        "gradient_accumulation_steps": "Batches whose gradients are added up for one update.",
        "bpe_dropout": None,
    },
    "model": {
        "model_name_or_path": None,
        "init_encoder_from": "A trained model with an encoder of the same shape, with which a new one begins.",
        "init_decoder_from": None,
        "preset": None,
        "model_class": "Another class for a new model, as MODULE:CLASS, with its own presets.",
        "config_overrides": None,
        "frozen_modules": None,
        "new_tokens": "Tokens that tokenizer and model get, such as <2de>; decoding keeps them.",
    },
    "adapters": {"lora_rank": None, "lora_modules": None},
    "objective": {
        "objective": "translation; of plain text, span_corruption, denoising, masked_lm, causal_lm, prefix_lm.",
        "noise_density": "Share of the tokens that are taken out, masked or predicted.",
        "mean_span_length": "Tokens of a span (span_corruption) or hole (text_infilling), on average.",
        "denoising_steps": "Of token_masking, token_deletion, text_infilling, sentence_permutation, document_rotation.",
        "r_drop": None,
        "distill_from": "Trained models whose predictions are learned too (Kim & Rush, 2016).",
        "distill_share": "Their share of the loss.",
    },
    "optimizer and schedule": {
        "learning_rate": None,
        "lr_scheduler_type": "inverse_sqrt is §5.3; or any that transformers has.",
        "warmup_steps": None,
        "continue_schedule": None,
        "adam_beta1": "beta_1 of Adam (§5.3).",
        "adam_beta2": None,
        "adam_epsilon": None,
        "weight_decay": "Weight decay of AdamW; none in the paper.",
        "max_grad_norm": None,
    },
    "evaluation": {
        "eval_strategy": None,
        "eval_steps": "Updates between evaluations with eval_strategy=steps.",
        "max_eval_tokens": "Tokens of a side that evaluation takes at a time, padding included.",
        "generation_num_beams": None,
        "gnmt_length_penalty": "Alpha of the length penalty (§6.1), which `vanilla-transformer tune` chooses.",
        "validation_metrics": "Of bleu, chrf, ter, wer, per (error rates of lines and units).",
        "metric_for_best_model": "loss, perplexity, or one of validation_metrics.",
        "early_stopping_patience": None,
    },
    "checkpoints and final weights": {
        "save_strategy": None,
        "save_steps": "Updates between checkpoints with save_strategy=steps.",
        "save_total_limit": None,
        "resume_from_checkpoint": None,
        "overwrite_output_dir": None,
        "final_weights": "What is saved in the end: average of the last checkpoints (§6.1), last, best (by "
        "metric_for_best_model) or ema. [average; with lora_rank, last]",
        "average_last": None,
        "keep_worse_average": None,
        "ema_decay": None,
    },
    "run": {
        "output_dir": "Where checkpoints, log and model are written. Required, unless the recipe has it.",
        "num_train_epochs": "Times through the training text.",
        "max_steps": "Updates, in place of num_train_epochs.",
        "max_minutes": "Minutes of training (of CPU time, with one thread on a CPU); 0 is off.",
        "seed": "Of weights, dropout and the order of batches.",
        "bf16": "Compute matrix products in bfloat16.",
        "use_cpu": "Train on the CPU though there is a GPU.",
        "gradient_checkpointing": "Keep only the input of each layer: less memory, a third more arithmetic.",
        "dataloader_num_workers": "Processes that make batches ahead; 0 makes them in the process that trains.",
        "logging_steps": None,
        "disable_tqdm": "Lines in place of a progress bar.",
        "report_to": "Who else gets the log: tensorboard, wandb and others.",
        "push_to_hub": "Upload what is saved to the Hub; see also hub_model_id and hub_strategy.",
    },
}

_INDENT = 28


class RunParser(OneLineParser, HfArgumentParser):
    """The options of a run: ours and the usual ones of transformers with `--help`, all others with `--help_all`.

    Args:
        recipe: what a recipe says, which `--help` shows in place of the defaults.
        prog: what to call the program.
        description: what `--help` begins with.
        epilog: what it ends with.
    """

    after_unexpected = "; a recipe comes first, before all options"
    instead = {name: advice for name, (_, advice) in REFUSED.items()}

    def __init__(
        self,
        recipe: Mapping[str, Any] | None = None,
        prog: str | None = None,
        description: str | None = None,
        epilog: str | None = None,
    ) -> None:
        super().__init__(
            VanillaTransformerTrainingArguments,
            prog=prog,
            description=description,
            epilog=epilog,
            add_help=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self._recipe = recipe or {}
        self.add_argument("-h", "--help", action=_Help, nargs=0, help="The usual options by purpose.")
        self.add_argument("--help_all", "--help-all", action=_Help, nargs=0, help="All options of transformers too.")
        for action in self._actions:
            action.default = argparse.SUPPRESS  # only what was given is returned
            if action.dest in REFUSED:
                action.help = argparse.SUPPRESS
        self.usage = "%(prog)s [RECIPE] [--OPTION VALUE ...]"

    def given(self, words: Sequence[str]) -> dict[str, Any]:
        """Reads flags.

        Args:
            words: of the command line, after the recipe.

        Returns:
            The values of those options that were given.

        Raises:
            SystemExit: an option is unknown or has a value of the wrong kind, or help was asked for.
        """
        return vars(self.parse_args(list(words)))

    def format_short_help(self) -> str:
        """Writes what `--help` shows: the options of `OPTION_GROUPS`, and those of ours that are in none of them."""
        options = {field.name: field for field in fields(VanillaTransformerTrainingArguments) if field.init}
        inherited = {field.name for field in fields(Seq2SeqTrainingArguments)}
        named = {name for group in OPTION_GROUPS.values() for name in group}
        rest = {name: None for name in options if name not in inherited | named}
        width = min(shutil.get_terminal_size((120, 24)).columns, 120)
        lines = [self.format_usage().strip(), "", *(self.description or "").strip().splitlines()]
        for title, group in (OPTION_GROUPS | ({"more": rest} if rest else {})).items():
            lines += ["", f"{title}:"] if title == "data" else [f"{title}:"]
            for name, text in group.items():
                if name in options:
                    lines += self._option_lines(options[name], text, width)
        lines.append("  --help_all".ljust(_INDENT) + "All options, transformers' own too.")
        return "\n".join([*lines, *(self.epilog or "").rstrip().splitlines()]) + "\n"

    def _option_lines(self, field: "Field[Any]", text: str | None, width: int) -> list[str]:
        shown = text or str(field.metadata.get("help", "")).replace("%%", "%")
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        value = self._recipe.get(field.name, default)
        value = " ".join(map(str, value)) if isinstance(value, list) else getattr(value, "value", value)
        known = f" [{value}]" if value not in (None, "", "none", False, 0, -1, MISSING) and len(str(value)) < 40 else ""
        room = 2 * (width - _INDENT) - len(known) - 8  # a word that does not fit on the first line leaves a gap
        clauses = textwrap.wrap(shown, room, max_lines=1, placeholder=" ...") if len(shown) > room else [shown]
        wrapped = textwrap.wrap(clauses[0] + known, width - _INDENT)
        first = f"  --{field.name}".ljust(_INDENT - 1) + " "
        if len(first) > _INDENT:
            return [first.rstrip(), *(" " * _INDENT + line for line in wrapped)]
        return [(first if number == 0 else " " * _INDENT) + line for number, line in enumerate(wrapped)]


class _Help(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        show_all = "all" in (option_string or "")
        parser._print_message(parser.format_help() if show_all else parser.format_short_help(), sys.stdout)
        parser.exit()
