"""Resuming a run: from which checkpoint, whether that checkpoint is of this run, and what may not have changed."""

import hashlib
import json
import shutil
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..evaluation.scores import OF_TRANSLATIONS
from ..inference.checkpoint_fingerprints import checkpoint_fingerprint
from .arguments import VanillaTransformerTrainingArguments
from .checkpoints import find_damage, last_good_checkpoint, list_checkpoints, remove_checkpoint
from .folder_lock import training_folder
from .ranks import by_main_process
from .validation_metrics import decided_by_scores, deciding_metric

logger = logging.get_logger(__name__)

# In every checkpoint: of which run it is, and with which settings that run began.
RUN_FILE = "run.json"

# What results.json and RUN_FILE call the update of the schedule with which a run begins, counted from 0.
FIRST_UPDATE = "first_update"

# Settings that a resumed run would ignore, since they are in the checkpoint, or that would give its batches another
# order. All others may change, and count from then on.
_FIXED = (
    *("objective", "noise_density", "mean_span_length", "denoising_steps", "init_encoder_from", "init_decoder_from"),
    "distill_share",
    *("source_lang", "target_lang", "streaming", "shuffle_buffer"),
    *("max_length", "max_length_ratio", "drop_duplicates", "vocab_size", "num_sentinels", "max_tokens", "batching"),
    *("bpe_dropout", "source_units", "target_units", "corpus_temperature"),
    *("model_name_or_path", "preset", "model_class", "config_overrides", "frozen_modules", "lora_rank", "lora_modules"),
    *(
        "new_tokens",
        "continue_schedule",
        "learning_rate",
        "lr_scheduler_type",
        "lr_scheduler_kwargs",
        "warmup_steps",
        "optim",
    ),
    *("optim_args", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "seed", "data_seed", "ema_decay"),
)
# Of two scores, the better one is known only where these are the same: they may change where nothing is decided by it.
_SCORED_BY = ("metric_for_best_model", "validation text", "generation_num_beams", "gnmt_length_penalty")
# What a finished run leaves in its folder, besides checkpoints.
_RESULTS = ("results.json", "model.safetensors", "model.safetensors.index.json", "adapter")
_LAST = ("last", "true", "True", True)
_AFRESH = (None, False, "false", "False")


@dataclass(frozen=True)
class RunIdentity:
    """Which run this is; kept in each of its checkpoints.

    Args:
        settings: what must not change when it is resumed, by name.
        run_id: another one for every fresh start.
        decided_by_scores: settings of this start that compare validation scores with the best so far.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    decided_by_scores: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        args: VanillaTransformerTrainingArguments,
        data: str | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        first_update: int = 0,
        validation: str | None = None,
    ) -> "RunIdentity":
        """Describes a run that starts afresh.

        Args:
            args: the run, with its learning rate set.
            data: fingerprint of the training text; None where it is not known.
            tokenizer: of the run.
            first_update: the update of the schedule with which the run begins, from 0.
            validation: fingerprint of the validation text; None where it is not known.

        Returns:
            The identity, with an id of its own.
        """
        settings: dict[str, Any] = {name: _plain(getattr(args, name)) for name in _FIXED}
        settings["processes x gradient_accumulation_steps"] = args.world_size * args.gradient_accumulation_steps
        if args.streaming:  # each of its readers, a process or a worker of its loader, has its part of the text
            settings["processes"] = args.world_size
            settings["dataloader_num_workers"] = max(args.dataloader_num_workers, 1)  # none reads as one does
        settings["final_weights=ema"] = args.final_weights == "ema"
        settings[FIRST_UPDATE] = first_update
        settings["training text"] = data
        settings["distill_from"] = [checkpoint_fingerprint(each, decoding=False) for each in args.distill_from]
        if args.lora_rank and args.model_name_or_path:  # of which checkpoints of adapters have nothing
            base = checkpoint_fingerprint(args.model_name_or_path, decoding=False)
            settings["the model of model_name_or_path"] = base
        settings["tokenizer"] = None if tokenizer is None else _fingerprint(tokenizer)
        settings["metric_for_best_model"] = deciding_metric(args)
        if deciding_metric(args).rpartition("_")[2] in OF_TRANSLATIONS:  # what they are depends on the search
            settings["generation_num_beams"] = args.generation_num_beams
            settings["gnmt_length_penalty"] = args.gnmt_length_penalty
        settings["validation text"] = validation
        return cls(settings, decided_by_scores=tuple(decided_by_scores(args)))

    @classmethod
    def read(cls, checkpoint: Path) -> "RunIdentity | None":
        """Reads whose checkpoint this is.

        Args:
            checkpoint: its folder.

        Returns:
            The identity; None where it is not known.
        """
        try:
            values = json.loads((checkpoint / RUN_FILE).read_text(encoding="utf-8"))
            return cls(values["settings"], values["run_id"])
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def write(self, checkpoint: Path) -> None:
        """Writes the identity into a checkpoint that is not sealed yet.

        Args:
            checkpoint: its folder.
        """
        text = json.dumps({"run_id": self.run_id, "settings": self.settings}, indent=1)
        (checkpoint / RUN_FILE).write_text(text + "\n", encoding="utf-8")

    def resumed_from(self, checkpoint: Path) -> "RunIdentity":
        """Finds out whether a run may be resumed with the settings that it is given now.

        Args:
            checkpoint: of an earlier start, whose id is kept.

        Returns:
            The identity of the resumed run.

        Raises:
            ValueError: settings differ that must not; the message has all of them, with both values.
        """
        before = self.read(checkpoint)
        if before is None:
            logger.warning(f"{checkpoint} has no {RUN_FILE}: whether it belongs to this run cannot be told")
            return self
        changed = self._changed_since(before)
        if not self.decided_by_scores:
            changed = [name for name in changed if name not in _SCORED_BY]
        if changed:
            differences = [f"{name} was {before.settings[name]!r}, now {self.settings[name]!r}" for name in changed]
            if set(changed) & set(_SCORED_BY):
                differences.append(f"{' and '.join(self.decided_by_scores)} would compare scores of one with the other")
            raise ValueError(
                f"{checkpoint} cannot be resumed from with other settings: {'; '.join(differences)}. Give the former "
                f"ones; or start a new run in another output_dir, with model_name_or_path={checkpoint} to begin with "
                "its weights"
            )
        return RunIdentity(self.settings, before.run_id, self.decided_by_scores)

    def is_scored_as(self, checkpoint: Path) -> bool:
        """Returns whether the scores of a resumed run can be compared with those that its checkpoint has.

        Args:
            checkpoint: what it is resumed from.
        """
        before = self.read(checkpoint)
        return before is None or not set(self._changed_since(before)) & set(_SCORED_BY)

    def _changed_since(self, before: "RunIdentity") -> list[str]:
        former = before.settings
        return [name for name, value in self.settings.items() if name in former and former[name] != value]


def find_checkpoint(given: str | Path | bool | None, output_dir: str | Path) -> Path | None:
    """Finds what a run is to be resumed from; all processes find the same, and one of them reads.

    A checkpoint that was being replaced when the run was killed is put back first.

    Args:
        given: a checkpoint's folder; "last" (or True), the newest good checkpoint in `output_dir`; "auto", that if
            there is one, and else a fresh start; or None (or False) for a fresh start.
        output_dir: folder of the run.

    Returns:
        The checkpoint; None for a fresh start.

    Raises:
        ValueError: there is none, it is damaged, or it has no state of the optimizer; or a process trains there.
    """
    if given in _AFRESH or not by_main_process(Path(output_dir).is_dir):
        return by_main_process(lambda: _find_checkpoint(given, output_dir))
    with training_folder(output_dir):
        return by_main_process(lambda: _find_checkpoint(given, output_dir))


def _find_checkpoint(given: str | Path | bool | None, output_dir: str | Path) -> Path | None:
    if given in _AFRESH:
        return None
    if given in (*_LAST, "auto"):
        checkpoint = last_good_checkpoint(output_dir)
        if checkpoint is None:
            if damaged := list_checkpoints(output_dir):
                raise ValueError(
                    f"resume_from_checkpoint={given}: all {len(damaged)} checkpoints in {output_dir} are damaged"
                )
            if given != "auto":
                raise ValueError(
                    f"resume_from_checkpoint={given}: there is no checkpoint in {output_dir}. "
                    "For a fresh start where there is none, give auto"
                )
            return None
    else:
        checkpoint = Path(str(given))
        damage = find_damage(checkpoint)
        if damage is not None:
            raise ValueError(
                f"resume_from_checkpoint={given}: {damage}. Give a checkpoint, such as {output_dir}/checkpoint-100, or "
                "last, or auto"
            )
    if not any(path.name.startswith(("optimizer", "global_step")) for path in checkpoint.iterdir()):
        raise ValueError(
            f"{checkpoint} has weights but no state of the optimizer (save_only_model), so training would not go on "
            f"where it stopped. Start a new run in another output_dir, with model_name_or_path={checkpoint}"
        )
    return checkpoint


def claim_folder(output_dir: str | Path, checkpoint: Path | None, overwrite: bool = False) -> None:
    """Refuses a folder that has another run in it, or clears it.

    Args:
        output_dir: folder of a run that is about to begin; need not exist.
        checkpoint: what it is resumed from; None for a fresh start.
        overwrite: whether checkpoints and results of the other run are removed.

    Raises:
        ValueError: there is another run, or newer checkpoints of this one; the message says what to do.
    """
    folder = Path(output_dir)
    if checkpoint is None:
        others = [*list_checkpoints(folder), *(folder / name for name in _RESULTS if (folder / name).exists())]
        problem = "is of an earlier run"
    else:
        before = RunIdentity.read(checkpoint)
        step = _step(checkpoint)
        others = [
            each
            for each in list_checkpoints(folder)
            if each.resolve() != checkpoint.resolve()
            and (_step(each) > step or (before and (other := RunIdentity.read(each)) and other.run_id != before.run_id))
            and find_damage(each) is None  # a damaged one is never used, and written anew when the run gets there
        ]
        problem = f"is of another run, or of updates after {checkpoint.name}"
    if not others:
        return
    if not overwrite:
        raise ValueError(
            f"output_dir={folder}: {others[-1].name} {problem}. Resume with --resume_from_checkpoint last, choose "
            "another --output_dir, or give --overwrite_output_dir true, which removes it"
        )
    for path in others:
        if path.name not in _RESULTS:
            remove_checkpoint(path)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    logger.warning(f"output_dir={folder}: removed {', '.join(path.name for path in others)}")


def _step(checkpoint: Path) -> int:
    digits = checkpoint.name.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else 0


def _plain(value: Any) -> Any:
    """What JSON makes of a setting, so that a setting and its copy in a file compare equal."""
    return json.loads(json.dumps(getattr(value, "value", value), default=str))


def _fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()[:16]


__all__ = ["FIRST_UPDATE", "RUN_FILE", "RunIdentity", "claim_folder", "find_checkpoint"]
