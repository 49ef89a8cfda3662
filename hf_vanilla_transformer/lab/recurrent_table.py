"""Recurrent models beside the Transformer: training, minutes to a loss, scores by length, and what the texts claim."""

from collections.abc import Sequence
from typing import Any

from ..evaluation import (
    EvaluationSet,
    check_bounds,
    compare_by_length,
    default_tokenizer,
    score_translations,
    system_of_model,
)
from .planning import format_table
from .queue_results import finished_results
from .recurrent_claims import SystemScores, claim_rows
from .recurrent_runs import TrainedRun, marked_name, minutes_rows, training_rows
from .run_list import RunList

# Most words of a source in each group. Captions of Multi30k's val have 4 to 27: 275, 340, 234 and 165 of them.
BOUNDS = (9, 12, 15)
# Samples of the sentences, from which intervals are estimated.
_RESAMPLES = 1000
_NOTES = (
    "*: of the runs of one model, that with the lower final loss; claims are tested of these.",
    "Losses are in nats per token of the validation text. The final one is that of the weights that translate, such as "
    "an average, and no point on the way.",
    "Minutes are of training alone. cpu: CPU time of one thread, which other programs do not change; wall: wall time. "
    "Between two evaluations, the loss is taken to fall on a straight line. Tokens per second are by wall time.",
    "±: half of a 95 % interval, by bootstrap resampling of the sentences, paired where models are compared. It says "
    "nothing of other seeds, of which there is one for each run.",
    "Multiplicative attention differs from additive in its wiring too, which goes step by step in additive alone; "
    "recurrent_multiplicative_fed differs in the score alone.",
    "At equal parameters, a deeper model is a narrower one. Where one CPU core computes, it hardly shows that a "
    "Transformer computes all positions at once.",
)


def recurrent_tables(
    runs: RunList,
    data: EvaluationSet,
    bounds: Sequence[int] = BOUNDS,
    losses: Sequence[float] | None = None,
    **options: Any,
) -> str:
    """Translates with the models of a list, and compares them beside what the texts claim.

    Args:
        runs: the list; runs that have not ended are left out.
        data: what to translate.
        bounds: as in `score_by_length`.
        losses: as in `minutes_rows`.
        **options: of `system_of_model`, such as `device`.

    Returns:
        Four tables of Markdown, with the signature of BLEU and notes.

    Raises:
        ValueError: no run has ended, a run has not what the tables need, or an argument is out of its range.
        OSError: a file cannot be read.
    """
    check_bounds(bounds)
    ended = [(run, results) for run in runs.runs if (results := finished_results(run)) is not None]
    if not ended:
        raise ValueError(f"no run of {runs.path} has ended; train them with `vanilla-transformer queue {runs.path}`")
    trained = [TrainedRun.of(run, results) for run, results in ended]
    systems = [system_of_model([str(run.output_dir)], [data], **options) for run, _ in ended]
    references, tokenize = list(zip(*data.references, strict=True)), default_tokenizer(data.target_lang)
    (by_length,) = compare_by_length(systems, [data], bounds, num_resamples=_RESAMPLES)
    columns = list(zip(*by_length.rows(), strict=True))  # titles, sentences, and one of each system
    titles = [f"{words} words ({count})" for words, count in zip(columns[0][1:], columns[1][1:], strict=True)]
    scores, rows = {}, [["BLEU", "all", *titles]]
    for run, system, column in zip(trained, systems, columns[2:], strict=True):
        whole = score_translations(
            system.translations[0], references, ["bleu"], tokenize=tokenize, num_resamples=_RESAMPLES
        )["bleu"]
        scores[run.name] = SystemScores(whole, by_length.systems[system.name])
        rows.append([marked_name(run, trained), f"{whole.value:.2f} ± {whole.interval:.2f}", *column[1:]])
    longest = max(len(source.split()) for source in data.sources)
    tested = f"The longest source has {longest} words; longer text was not tested."
    tables = [training_rows(trained), minutes_rows(trained, losses), rows, claim_rows(trained, scores)]
    notes = [f"- {note}" for note in (f"BLEU: {whole.signature}", tested, *_NOTES)]
    return "\n\n".join("\n".join(part) for part in (*(format_table(*table) for table in tables), notes))
