"""BLEU, chrF and TER of translations, by sacrebleu, with the signatures that say what was computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.metrics.base import Metric

# What sacrebleu recommends for languages that do not separate words by spaces, or hardly.
_TOKENIZERS = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}

# Of each translation: one reference, or several.
References = Sequence[str] | Sequence[Sequence[str]]


@dataclass(frozen=True)
class TranslationScores:
    """Corpus scores in percent, and their signatures.

    Args:
        bleu: from 0 to 100.
        bleu_signature: how sacrebleu computed it; to be quoted next to the number.
        chrf: character n-gram F-score, from 0 to 100.
        chrf_signature: likewise.
        ter: translation edit rate: edits in 100 words of reference, the fewer the better; None if not asked for.
        ter_signature: likewise.
    """

    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str
    ter: float | None = None
    ter_signature: str | None = None


def score_translations(
    translations: Sequence[str],
    references: References,
    ter: bool = False,
    lowercase: bool = False,
    tokenize: str = "13a",
) -> TranslationScores:
    """Compares translations with what they should be.

    Args:
        translations: detokenised text, one sentence an entry.
        references: of each translation, one or a sequence of several.
        ter: whether to compute TER too, which takes many times as long as the rest.
        lowercase: whether case is not to count; in sacrebleu's TER it never does.
        tokenize: sacrebleu's name of what cuts text into the words of BLEU; "none" for text that is cut already.

    Returns:
        The scores of all translations together.

    Raises:
        ValueError: there is no translation, not one reference or more for each, or no such tokeniser.
    """
    metrics = make_metrics(ter, lowercase, tokenize)
    streams = reference_streams(translations, references)
    values: dict[str, float] = {}
    signatures: dict[str, str] = {}
    for name, metric in metrics.items():
        values[name] = metric.corpus_score(list(translations), streams).score
        signatures[f"{name}_signature"] = str(metric.get_signature())
    return TranslationScores(**values, **signatures)  # type: ignore[arg-type]  # names and kinds go together


def make_metrics(ter: bool = False, lowercase: bool = False, tokenize: str = "13a") -> dict[str, Metric]:
    """Builds sacrebleu's metrics.

    Args:
        ter: as in `score_translations`; and so are the others.
        lowercase: whether case is not to count.
        tokenize: what cuts text into the words of BLEU.

    Returns:
        `bleu`, `chrf` and, if asked for, `ter`.

    Raises:
        ValueError: there is no such tokeniser (the message names those there are), or it is not installed.
    """
    if tokenize not in BLEU.TOKENIZERS:
        raise ValueError(f"`tokenize`={tokenize!r}, but sacrebleu has: {', '.join(sorted(BLEU.TOKENIZERS))}")
    # `force` only says that text which looks tokenised is meant to be so.
    try:
        bleu = BLEU(lowercase=lowercase, tokenize=tokenize, force=tokenize == "none")
    except RuntimeError as error:  # what it needs is not installed
        raise ValueError(f"`tokenize`={tokenize!r} cannot be used: {' '.join(str(error).split())}") from error
    metrics = {"bleu": bleu, "chrf": CHRF(lowercase=lowercase)}
    return {**metrics, "ter": TER()} if ter else metrics


def default_tokenizer(language: str | None) -> str:
    """Says by what sacrebleu cuts text of a language into the words of BLEU, unless told otherwise.

    Args:
        language: such as `de`; None where it is not known.

    Returns:
        A name for `tokenize`.
    """
    return _TOKENIZERS.get(language or "", "13a")


def reference_streams(translations: Sequence[str], references: References) -> list[list[str | None]]:
    """Turns the references of each translation into what sacrebleu wants: whole texts, each with one a translation.

    Args:
        translations: what is to be compared.
        references: of each translation, one or a sequence of several; of some, there may be more than of others.

    Returns:
        As many texts as a translation has references at most, None where there is no more.

    Raises:
        ValueError: there is no translation, or not one reference or more for each.
    """
    if len(translations) != len(references) or not references:
        raise ValueError(
            f"{len(translations)} translations cannot be compared with {len(references)} references; "
            "give one or more for each, and at least one translation"
        )
    rows = [[each] if isinstance(each, str) else list(each) for each in references]
    if [] in rows:
        raise ValueError(f"translation {rows.index([])} (from 0) has no reference; give one or more for each")
    return [list(stream) for stream in zip_longest(*rows)]
