"""Test sets by name: those that sacrebleu knows, datasets of the Hub, and files of pairs."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from sacrebleu.dataset import DATASETS

from ..data.corpora import Corpus, TextFormat
from ..data.text_files import read_aligned
from ..tokenization_tags import tag_tokens

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

    @property
    def untagged(self) -> list[str]:
        """The sources without `tag`, which is no word of theirs."""
        before = "" if self.tag is None else " ".join([*tag_tokens(self.tag), ""])
        return [source.removeprefix(before) for source in self.sources]


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


def read_test_sets(
    names: Sequence[str] | None,
    source: str | None,
    references: Sequence[str] | None,
    source_lang: str | None = None,
    target_lang: str | None = None,
    translations: Sequence[str] = (),
) -> tuple[list[EvaluationSet], dict[str, list[list[str]]]]:
    """Reads what systems are evaluated on, test sets or files, and translations of it.

    Args:
        names: of test sets, as in `read_test_set`; None or nothing where there are files.
        source: a file of sentences; None where there is only something to compare with references.
        references: files, each with one translation for each sentence.
        source_lang: as in `read_test_set`.
        target_lang: likewise.
        translations: files with one translation for each sentence of all sets, one set after the other.

    Returns:
        The test sets, one of files; and the translations of each, by the name of their file.

    Raises:
        OSError: a file or test set is not there.
        ValueError: the files do not belong together.
    """
    if not names:
        texts = read_aligned([*(references or ()), *([source] if source else []), *translations])
        data = EvaluationSet(None, texts[source] if source else [], [texts[path] for path in references or ()])
        return [data], {name: [texts[name]] for name in translations}
    test_sets = [read_test_set(name, source_lang, target_lang) for name in names]
    *starts, total = accumulate((len(data.sources) for data in test_sets), initial=0)
    ends = [*starts[1:], total]
    made = {}
    for name, lines in read_aligned(translations).items():
        if len(lines) != total:
            said = " and ".join(str(data.name) for data in test_sets)
            have = f"test set {said} has" if len(test_sets) == 1 else f"test sets {said} have"
            raise ValueError(f"{name} has {len(lines)} lines, but the {have} {total}")
        made[name] = [lines[start:end] for start, end in zip(starts, ends, strict=True)]
    return test_sets, made


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
