"""Test sets by name: those that sacrebleu knows, datasets of the Hub, and files of pairs."""

import difflib
import re
from dataclasses import dataclass

from sacrebleu.dataset import DATASETS

from ..data.corpora import Corpus, TextFormat
from ..data.text_files import read_aligned

# sacrebleu's NAME:SOURCE-TARGET, such as wmt14/full:en-de.
_SACREBLEU = re.compile(r"([\w./-]+):(\w+)-(\w+)")


@dataclass(frozen=True)
class EvaluationSet:
    """What a system is evaluated on.

    Args:
        name: what to call it; None for files.
        sources: sentences; none where there is only something to compare with references.
        references: whole texts, each with one translation for each source.
        target_lang: language of the references; None where it is not known.
        tag: what the corpus says to put in front of its sources, where it stands already; None for nothing.
        reversed: whether sources and references have changed places.
    """

    name: str | None
    sources: list[str]
    references: list[list[str]]
    target_lang: str | None = None
    tag: str | None = None
    reversed: bool = False


def read_test_set(description: str, source_lang: str | None = None, target_lang: str | None = None) -> EvaluationSet:
    """Reads a test set.

    Args:
        description: `NAME:SOURCE-TARGET` for a test set of sacrebleu, such as `wmt14/full:en-de`, which is downloaded
            where it is not on the disk; else a corpus as `Corpus.parse` reads it: a .tsv or .jsonl file, or
            `dataset=NAME,config=...,split=...`.
        source_lang: key of the source in rows of jsonl and datasets; None for that of `TextFormat`.
        target_lang: key of the target, likewise.

    Returns:
        Its text.

    Raises:
        OSError: a file or dataset is not there, or cannot be downloaded.
        ValueError: there is no such test set or language pair, a row is no pair, or an option has no effect.
    """
    if match := _SACREBLEU.fullmatch(description):
        if source_lang or target_lang:
            raise ValueError(f"{description} names its languages itself; leave out source_lang and target_lang")
        return _sacrebleu_set(*match.groups())
    if description in DATASETS:
        raise ValueError(f"{description} has several languages; say which: {description}:SOURCE-TARGET")
    corpus = Corpus.parse(description)
    if corpus.weight != 1:
        raise ValueError(f"{description}: a test set has no weight; leave it out")
    if corpus.size is not None:
        raise ValueError(f"{description}: a test set is read whole, whatever its size; leave it out")
    if corpus.dataset is not None and corpus.split is None:
        raise ValueError(f"{description}: which part of the dataset? Add a split, such as ,split=test")
    languages = (source_lang or TextFormat.source_lang, target_lang or TextFormat.target_lang)
    rows = list(corpus.read_pairs(*languages))
    sources, references = ([row[side] for row in rows] for side in ("source", "target"))
    language = source_lang if corpus.reversed else target_lang
    return EvaluationSet(corpus.name, sources, [references], language, corpus.tag, corpus.reversed)


def files_of_test_set(description: str) -> list[str]:
    """Returns the files that a test set is read from; none for those that are downloaded.

    Args:
        description: as in `read_test_set`.

    Raises:
        ValueError: it describes no test set.
    """
    return [] if _SACREBLEU.fullmatch(description) else Corpus.parse(description).files


def _sacrebleu_set(name: str, source_lang: str, target_lang: str) -> EvaluationSet:
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "`sacrebleu --list` names all"
        raise ValueError(f"sacrebleu has no test set {name!r}; {hint}")
    dataset, pair = DATASETS[name], f"{source_lang}-{target_lang}"
    if pair not in dataset.langpairs:
        raise ValueError(f"sacrebleu's test set {name} has no {pair}, but: {', '.join(sorted(dataset.langpairs))}")
    try:
        source, references = dataset.get_source_file(pair), dataset.get_reference_files(pair)
    except (OSError, SystemExit) as error:  # sacrebleu ends the program where a download is not what it should be
        raise OSError(
            f"the test set {name}:{pair} is not on this disk and cannot be downloaded ({error}); download it by "
            f"`sacrebleu -t {name} -l {pair} --echo src` where there is a network, and copy ~/.sacrebleu/{name} (or "
            f"$SACREBLEU/{name})"
        ) from error
    texts = read_aligned([source, *references])
    return EvaluationSet(f"{name}:{pair}", texts[source], [texts[path] for path in references], target_lang)
