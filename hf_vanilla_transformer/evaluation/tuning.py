"""§6.1 "chosen after experimentation on the development set": length penalty and beams, by their scores."""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from ..data.seals import SEAL
from ..decoding import PaperGenerationMixin
from ..decoding_config import OUTRANKED_BY, PaperGenerationConfig
from ..inference import load_translator, translate
from .scores import HIGHER_IS_BETTER, default_tokenizer, score_translations
from .systems import check_translatable
from .test_sets import EvaluationSet

# What is tried unless somebody says otherwise: no penalty at all, the paper's, and more than it.
LENGTH_PENALTIES = (0.0, 0.6, 1.0, 1.4, 1.8)


@dataclass(frozen=True)
class TriedDecoding:
    """What one number of beams and one length penalty are worth.

    Args:
        num_beams: of the search.
        length_penalty: alpha of ((5 + n) / 6)^alpha.
        scores: of each model: the average over validation sets.
        length_ratio: words (what spaces separate) of all translations by those of as many references.
    """

    num_beams: int
    length_penalty: float
    scores: list[float]
    length_ratio: float

    @property
    def mean(self) -> float:
        """The mean score of the models."""
        return statistics.fmean(self.scores)


def try_decodings(
    folders: Sequence[str],
    test_sets: Sequence[EvaluationSet],
    length_penalties: Sequence[float] = LENGTH_PENALTIES,
    num_beams: Sequence[int] = (4,),
    metric: str = "bleu",
    device: str = "auto",
    dtype: str = "auto",
    batch_tokens: int = 4096,
    tag: str | None = None,
    step: Callable[[], object] = lambda: None,
) -> list[TriedDecoding]:
    """Translates validation sets with every pair of a number of beams and a length penalty, and scores them.

    Args:
        folders: of models, such as those of one recipe with several seeds.
        test_sets: the validation sets; each has the same weight.
        length_penalties: values of alpha.
        num_beams: numbers of beams. One beam is greedy search, which has no length penalty.
        metric: as in `score_translations`.
        device: where to translate; "auto" for the best device there is.
        dtype: of the weights; "auto" for the one in which they are saved.
        batch_tokens: tokens of a side that are translated at a time, padding included.
        tag: what to put in front of each source, such as "2de" for the token `<2de>`; a set may also have its own.
        step: is called after each pair with each model.

    Returns:
        What was tried, in the order of `num_beams` and then of `length_penalties`.

    Raises:
        OSError: there is no such model.
        ValueError: there is nothing to try, a value is out of its range, a model is not one of this package, or as in
            `check_translatable`.
    """
    if 1 in num_beams and len(length_penalties) > 1:
        raise ValueError("one beam is greedy search, on which length penalties have no effect; try more beams")
    pairs = list(product(num_beams, length_penalties))
    if not (pairs and folders and test_sets):
        raise ValueError("there is nothing to try: give models, validation sets, beams and length penalties")
    found: list[list[tuple[float, int]]] = [[] for _ in pairs]
    for folder in folders:
        model, tokenizer = load_translator([folder], device, dtype)
        if not isinstance(model, PaperGenerationMixin):
            raise ValueError(f"{folder} is a {type(model).__name__}, whose search has another length penalty")
        for data in test_sets:
            check_translatable(tokenizer, data, tag)
        for (beams, alpha), results in zip(pairs, found, strict=True):
            scores, words = [], 0
            for data in test_sets:
                made = list(
                    translate(
                        model,
                        tokenizer,
                        data.sources,
                        batch_tokens=batch_tokens,
                        tag=tag,
                        num_beams=beams,
                        gnmt_length_penalty=alpha,
                    )
                )
                references = list(zip(*data.references, strict=True))
                cut = default_tokenizer(data.target_lang)
                scores.append(score_translations(made, references, [metric], tokenize=cut)[metric].value)
                words += sum(len(text.split()) for text in made)
            results.append((statistics.fmean(scores), words))
            step()
    # The average length where a sentence has several references.
    expected = sum(
        statistics.fmean(sum(len(line.split()) for line in text) for text in data.references) for data in test_sets
    )
    return [
        TriedDecoding(
            beams,
            alpha,
            [score for score, _ in results],
            sum(words for _, words in results) / max(expected * len(folders), 1),
        )
        for (beams, alpha), results in zip(pairs, found, strict=True)
    ]


def best_decoding(tried: Sequence[TriedDecoding], metric: str = "bleu") -> TriedDecoding:
    """Returns what has the best mean; of equals the one that was tried first.

    Args:
        tried: at least one.
        metric: what the scores are of.
    """
    return (max if metric in HIGHER_IS_BETTER else min)(tried, key=lambda each: each.mean)


def check_savable(folder: str | Path) -> None:
    """Refuses a model with which no choice can be saved; to be asked before the long work.

    Args:
        folder: of the model.

    Raises:
        NotADirectoryError: the model is none on this disk.
        ValueError: it is a sealed checkpoint or an adapter, or what is there already would outrank the choice.
    """
    path = Path(folder)
    if not path.is_dir():
        raise NotADirectoryError(f"{folder} is no folder; a choice can be saved only with a model on this disk")
    if (path / SEAL).exists():
        raise ValueError(f"{folder} is a sealed checkpoint, which a change would damage; take the folder of its run")
    if (path / "adapter_config.json").exists():
        raise ValueError(f"{folder} is an adapter, which decodes as its base model says; take the merged model")
    config = json.loads((path / "generation_config.json").read_text(encoding="utf-8"))
    for name in OUTRANKED_BY["gnmt_length_penalty"]:
        if config.get(name) is not None:
            raise ValueError(
                f"{folder}: generation_config.json has {name}={config[name]}, which outranks the choice; take it out "
                "first"
            )


def save_decoding(folder: str | Path, chosen: TriedDecoding) -> None:
    """Writes a choice into the `generation_config.json` of a model, which then decodes so wherever it is loaded.

    Args:
        folder: of the model.
        chosen: beams and length penalty.

    Raises:
        OSError, ValueError: as `check_savable`.
    """
    check_savable(folder)
    config = PaperGenerationConfig.from_pretrained(folder)
    config.num_beams, config.gnmt_length_penalty = chosen.num_beams, chosen.length_penalty
    config.save_pretrained(folder)
