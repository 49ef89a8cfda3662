"""BLEU, chrF and TER of translations, by sacrebleu, with their signatures."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.metrics.base import Metric

# Tokenisers that sacrebleu recommends for languages in which spaces do not separate words.
_TOKENIZERS = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}

# One reference for each translation, or several for each.
References = Sequence[str] | Sequence[Sequence[str]]


@dataclass(frozen=True)
class TranslationScores:
    """Corpus scores in percent, and their signatures.

    Args:
        bleu: from 0 to 100.
        bleu_signature: how sacrebleu computed it; to be quoted with the number.
        chrf: character n-gram F-score, from 0 to 100.
        chrf_signature: likewise.
        ter: translation edit rate: edits per 100 words of reference, the fewer the better; None if not computed.
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
    """Scores translations by their references.

    Args:
        translations: detokenised sentences.
        references: for each translation, one or a sequence of several.
        ter: whether to compute TER too, which takes many times as long as the rest.
        lowercase: whether to ignore case; sacrebleu's TER always ignores it.
        tokenize: name of sacrebleu's tokeniser for BLEU; "none" for text that is tokenised.

    Returns:
        The scores of all translations together.

    Raises:
        ValueError: there is no translation, a translation has no reference, or there is no such tokeniser.
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
        ter: as in `score_translations`, and so are the others.
        lowercase: whether to ignore case.
        tokenize: name of the tokeniser for BLEU.

    Returns:
        `bleu`, `chrf` and, on request, `ter`.

    Raises:
        ValueError: there is no such tokeniser (the message names all), or it is not installed.
    """
    if tokenize not in BLEU.TOKENIZERS:
        raise ValueError(f"`tokenize`={tokenize!r}, but sacrebleu has: {', '.join(sorted(BLEU.TOKENIZERS))}")
    # `force` only silences a warning about text that looks tokenised.
    try:
        bleu = BLEU(lowercase=lowercase, tokenize=tokenize, force=tokenize == "none")
    except RuntimeError as error:  # what it needs is not installed
        raise ValueError(f"`tokenize`={tokenize!r} cannot be used: {' '.join(str(error).split())}") from error
    metrics = {"bleu": bleu, "chrf": CHRF(lowercase=lowercase)}
    return {**metrics, "ter": TER()} if ter else metrics


def default_tokenizer(language: str | None) -> str:
    """Returns the tokeniser that sacrebleu uses for a language by default.

    Args:
        language: such as `de`; None if it is unknown.

    Returns:
        A value of `tokenize`.
    """
    return _TOKENIZERS.get(language or "", "13a")


def reference_streams(translations: Sequence[str], references: References) -> list[list[str | None]]:
    """Turns the references of each translation into those of sacrebleu: whole texts, one reference of each in a text.

    Args:
        translations: the translations.
        references: for each translation, one or a sequence of several; their number may differ.

    Returns:
        As many texts as a translation has references at most, with None where it has fewer.

    Raises:
        ValueError: there is no translation, or a translation has no reference.
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
