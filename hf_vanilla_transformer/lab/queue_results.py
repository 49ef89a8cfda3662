"""What came of the runs of a queue: a line of JSON for each, appended whole or not at all, and a table of them."""

import errno
import fcntl
import json
import math
import os
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .. import __version__
from ..evaluation.scores import METRICS
from ..training.config_overrides import parse_overrides
from ..training.model_setup import model_class
from ..training.recipes import given_values
from ..training.report import CLOCK, without_secrets
from ..training.schedule import peak_learning_rate
from .planning import format_table
from .run_list import QueuedRun

# One run by one line of the file: either its scores, or its error, with the update at which it diverged if it did.
Row = dict[str, Any]

# How the message of the trainer begins when a loss or a gradient is not finite.
_DIVERGENCE = re.compile(r"update (\d+): the (?:loss|norm of the gradient) is (?:nan|-?inf)\b")

# Options that change neither what a run learns nor how its end is chosen, but how long it takes or what it says.
_WITHOUT_INFLUENCE = {
    *("output_dir", "resume_from_checkpoint", "overwrite_output_dir", "save_total_limit", "data_cache_dir"),
    *("disable_tqdm", "report_to", "run_name", "project", "log_level", "log_level_replica", "log_on_each_node"),
    *("logging_dir", "logging_steps", "logging_strategy", "logging_first_step", "logging_nan_inf_filter"),
    *("preprocessing_workers", "dataloader_num_workers", "dataloader_pin_memory", "max_eval_tokens", "use_cpu"),
    *("push_to_hub", "hub_model_id", "hub_strategy", "hub_private_repo", "hub_always_push", "hub_revision"),
}
_TITLES = {"loss": "Loss", **METRICS}


def finished_results(run: QueuedRun) -> dict[str, Any] | None:
    """Reads what a run has left that has come to its end.

    Args:
        run: of a list.

    Returns:
        What its `results.json` holds; None if there is none.

    Raises:
        ValueError: the file cannot be read, or is of a run with other settings; the message has these.
    """
    path = run.output_dir / "results.json"
    if not path.exists():
        return None
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        before, metrics = dict(results["arguments"]), dict(results["metrics"])
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}: {error}); remove it, and the run is repeated"
        ) from error
    now = json.loads(json.dumps(without_secrets(given_values(run.arguments))))
    names = (before.keys() | now.keys()) - _WITHOUT_INFLUENCE
    if "learning_rate" in names - now.keys() and before.get("learning_rate") == _found_learning_rate(run):
        names.discard("learning_rate")
    if not run.arguments.validation_data:
        names.discard("eval_strategy")  # the run has turned it off
    if differing := sorted(name for name in names if before.get(name) != now.get(name)):
        changes = "; ".join(f"{name} was {_said(before, name)}, now {_said(now, name)}" for name in differing)
        raise ValueError(
            f"{path} is of a run with other settings: {changes}. Give the run another name or output_dir, or remove "
            "the folder"
        )
    return {**results, "metrics": metrics}


def _found_learning_rate(run: QueuedRun) -> float | None:
    """What a run that is told no learning rate has found by §5.3; None where its model is not there."""
    if not (run.output_dir / "config.json").is_file():
        return None
    config = model_class(run.arguments.model_class).config_class.from_pretrained(run.output_dir)
    return peak_learning_rate(config.d_model, int(run.arguments.warmup_steps))


def _said(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "the default"


def row_of(run: QueuedRun, results: Mapping[str, Any]) -> Row:
    """Makes the line of a run that has come to its end.

    Args:
        run: of a list.
        results: as `finished_results` returns them.

    Returns:
        The line: whose it is, what it changed, what came of it, its curve (`curve_of`), when, and by which version.
    """
    metrics = results["metrics"]
    scores = _scores(metrics, "final_")
    known = {name: metrics.get(name) for name in ("parameters", "updates", "minutes", "final_weights", "signatures")}
    curve, path = curve_of(results.get("history", [])), run.output_dir / "results.json"
    return {**_beginning(run), **known, "scores": scores, "curve": curve, **_ending(path.stat().st_mtime)}


def curve_of(history: Iterable[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Finds in the log of a run what validation found, and when.

    Args:
        history: the log, one entry a line.

    Returns:
        A point for each validation: `minutes` that the run had taken, over all its starts; `update`; and scores by
        name. Where weights were chosen or averaged in the end, theirs are the last point.
    """
    points = []
    for entry in history:
        scores = _scores(entry, "eval_") | _scores(entry, "final_")
        if scores and "minutes" in entry:
            points.append({"minutes": entry["minutes"], "update": entry["step"], **scores})
    return points


def _scores(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Those of some values that are scores with a prefix, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in values.items()
        if name.startswith(prefix) and name not in CLOCK and type(value) in (int, float)
    }


def failure_row(run: QueuedRun, error: str) -> Row:
    """Makes the line of a run that has failed.

    Args:
        run: of a list.
        error: what went wrong.

    Returns:
        The line. It has `diverged_at`, an update, where a loss or a gradient was not finite: that is a result.
    """
    divergence = _DIVERGENCE.match(error)
    failure = {"error": error, **({"diverged_at": int(divergence[1])} if divergence else {})}
    return {**_beginning(run), **failure, **_ending(datetime.now(timezone.utc).timestamp())}


def _beginning(run: QueuedRun) -> Row:
    options = without_secrets({name: value for name, value in run.options.items() if name != "seed"})
    place = {"recipe": run.recipe, "seed": run.arguments.seed, "options": options, "output_dir": str(run.output_dir)}
    return {"name": run.name, "entry": run.entry, **place}


def _ending(seconds: float) -> Row:
    date = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
    return {"date": date, "version": __version__}


def read_rows(path: str | Path) -> list[Row]:
    """Reads the lines of a file of results.

    Args:
        path: the file; need not exist.

    Returns:
        The lines, without one that a machine which went down has left unfinished at the end.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is no result; the message names file and line.
    """
    return _rows(Path(path).read_bytes(), path) if Path(path).exists() else []


def _rows(text: bytes, path: str | Path) -> list[Row]:
    lines = text.decode("utf-8", errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        row = _parsed(line)
        if row is not None:
            rows.append(row)
        elif line.strip() and number < len(lines):
            raise ValueError(f"{path}, line {number}: no result of a run, which is a JSON object with a name")
    return rows


def append_row(path: str | Path, row: Row) -> None:
    """Appends a line to a file of results, whole or not at all, also while others do; scores that it has, once.

    Args:
        path: the file.
        row: the line.

    Raises:
        OSError: it cannot be written; the file is as it was then.
        ValueError: as `read_rows`.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = file.read()
        if "error" not in row and _without_clock(row) in map(_without_clock, _rows(text, path)):
            return
        last = text[text.rfind(b"\n") + 1 :]
        is_whole = _parsed(last.decode("utf-8", errors="replace")) is not None
        end = len(text) if is_whole else len(text) - len(last)  # what is unfinished is overwritten
        file.truncate(end)
        line = b"\n" * is_whole + json.dumps(row, ensure_ascii=False).encode() + b"\n"
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, f"no room for {len(line)} bytes", str(path))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def _without_clock(row: Row) -> str:
    """As text, since a score that is no number is unlike itself."""
    timeless = {name: value for name, value in row.items() if name not in ("date", "version")}
    return json.dumps(json.loads(json.dumps(timeless)), sort_keys=True)


def _parsed(line: str) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("name"), str) else None


def latest_rows(rows: Iterable[Row]) -> dict[str, Row]:
    """Finds the last line of each run, in the order in which the runs appear first.

    Args:
        rows: lines of a file of results.

    Returns:
        Lines by name of the run.
    """
    return {row["name"]: row for row in rows}


def last_row(run: QueuedRun, rows: Iterable[Row]) -> Row | None:
    """Finds the last line of a run that has the settings which the list gives the run now.

    Args:
        run: of a list.
        rows: lines of its file of results.

    Returns:
        The line; None where there is none, or all are of another recipe, another seed or other options, apart from
        options that change nothing of what a run learns.
    """
    named = [row for row in rows if row["name"] == run.name]
    if not named:
        return None
    settings = _influences(json.loads(json.dumps(_beginning(run))))
    return next((row for row in reversed(named) if "options" in row and _influences(row) == settings), None)


def score_of(row: Row, metric: str) -> float | None:
    """Reads one score of a run.

    Args:
        row: its line.
        metric: such as `loss`.

    Returns:
        The score; nan where the run diverged, None where it has none.
    """
    score: float | None = math.nan if "diverged_at" in row else row.get("scores", {}).get(metric)
    return score


def scores_text(row: Row) -> str:
    """Writes the scores of a run for people.

    Args:
        row: its line.

    Returns:
        Such as "loss 1.621, BLEU 37.90"; "no scores" where there was no validation text.
    """
    named = ((_TITLES.get(name, name), value) for name, value in row["scores"].items() if name != "perplexity")
    return ", ".join(f"{name} {_number(name, value)}" for name, value in named) or "no scores"


def results_table(listed: Sequence[Row], former: Sequence[Row] = ()) -> str:
    """Writes results as a table of Markdown, with the mean of those runs of an entry that differ by their seed.

    Args:
        listed: lines of runs that have ended or diverged, the first being what the others are compared with; those of
            other failures are left out.
        former: likewise, of runs that are in the list no longer; they come last, and no mean has them, since more than
            their seed may be another.

    Returns:
        The table; nothing for no rows.
    """
    listed, former = ([row for row in of if "error" not in row or "diverged_at" in row] for of in (listed, former))
    rows = [*listed, *former]
    if not rows:
        return ""
    scored = dict.fromkeys(name for row in rows for name in row.get("scores", {}))
    names = [name for name in scored if name != "perplexity"]
    names.sort(key=[*_TITLES, *names].index)
    header = ["Run", "Changed", "Parameters", "Updates", *(_TITLES.get(name, name) for name in names), "Minutes"]
    table = []
    for row in rows:
        cells = [_cell(row["name"]), _cell(_difference(row, rows[0]))]
        if "diverged_at" in row:
            cells += ["", f"diverged at update {row['diverged_at']:,}", *("" for _ in names), ""]
        else:
            scores = [_number(name, row["scores"][name]) if name in row["scores"] else "" for name in names]
            cells += [f"{row['parameters'] / 1e6:.2f}M", f"{row['updates']:,}", *scores, f"{row['minutes']:.1f}"]
        table.append(cells)
        twins = [each for each in listed if each["entry"] == row["entry"]]
        if len(twins) > 1 and twins[-1] is row:
            means = [_mean(name, [score_of(each, name) for each in twins]) for name in names]
            minutes = [each["minutes"] for each in twins if "minutes" in each]
            time = f"{statistics.fmean(minutes):.1f}" if minutes else ""
            table.append([f"mean of {_cell(row['entry'])}", f"{len(twins)} seeds", "", "", *means, time])
    return "\n".join(format_table(header, *table))


def divergence_text(diverged: int, runs: int) -> str:
    """Writes how many of the runs of an entry diverged, such as "diverged in 2 of 2"; nothing where none did."""
    return f"diverged in {diverged} of {runs}" if diverged else ""


def _mean(name: str, values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if diverged := sum(not math.isfinite(value) for value in known):
        return divergence_text(diverged, len(values))
    if len(known) < len(values):
        return ""
    return f"{_number(name, statistics.fmean(known))} ± {_number(name, statistics.stdev(known))}"


def _difference(row: Row, first: Row) -> str:
    """What a run has other than the first, option by option, and field by field of the config."""
    ours, theirs = _settings(row), _settings(first)
    changed = [f"{name}={ours[name]}" for name in ours if name not in theirs or ours[name] != theirs[name]]
    return ", ".join(changed + [f"no {name}" for name in theirs if name not in ours])


def _settings(row: Row) -> dict[str, Any]:
    options = dict(row["options"])
    overrides = parse_overrides(options.pop("config_overrides", None) or [], None)  # of any model_class
    return {"recipe": row.get("recipe"), **options, **overrides, "seed": row.get("seed")}


def _influences(row: Row) -> dict[str, Any]:
    """The settings of a run that change what it learns."""
    return {name: value for name, value in _settings(row).items() if name not in _WITHOUT_INFLUENCE}


def _number(name: str, value: float) -> str:
    return f"{value:.3f}" if name.lower() in ("loss", "nll") else f"{value:.2f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
