"""Line for line: translations as lines of text, and the loop that writes them."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

from tqdm import tqdm

from ..translation_batches import Translation
from .pipes import INTERRUPTED, PIPE_CLOSED, send_to_nobody
from .translator import Translator


def translated_lines(
    translator: Translator,
    lines: Iterable[str],
    nbest: int = 1,
    scores: bool = False,
    alignments: bool = False,
    first: int = 0,
    **options: Any,
) -> Iterator[list[str]]:
    r"""Translates lines into lines.

    With `nbest` 1, no scores and no alignments, a line is the translation. Otherwise it has columns, separated by tabs:
    with `nbest` above 1, the number of the input line, from `first`; with `scores`, the score and the log-probability;
    the translation, in which tabs become spaces; with `alignments`, pairs such as "0-0 1-2" of a source token and a
    target token, counted from 0 ("Pharaoh" format), the source tokens, and the target tokens, each separated by spaces.

    Args:
        translator: what translates them.
        lines: text.
        nbest: translations of each line.
        scores: whether to write scores.
        alignments: whether to write alignments.
        first: number of the first line.
        **options: of `translate_with_details`: `batch_size`, `batch_tokens`, `read_ahead`, and those of `generate()`.

    Yields:
        For each input line its `nbest` output lines, without line ends.

    Raises:
        TypeError: as in `translate_with_details`.
        ValueError: likewise.
    """
    found = translator.translate_with_details(lines, nbest=nbest, scores=scores, alignments=alignments, **options)
    for index, translations in enumerate(found, start=first):
        prefix = [str(index)] if nbest > 1 else []
        yield [_line(prefix, translation) for translation in translations]


def _line(prefix: list[str], translation: Translation) -> str:
    columns = list(prefix)
    if translation.score is not None:
        columns += [f"{translation.score:.6f}", f"{translation.log_prob:.6f}"]
    columns.append(translation.text)
    if translation.alignment is not None:
        columns.append(" ".join(f"{source}-{target}" for source, target in translation.alignment))
        for tokens in (translation.source_tokens, translation.tokens):
            columns.append(" ".join("_".join(token.split()) or "_" for token in tokens or ()))
    if len(columns) == 1:
        return translation.text
    return "\t".join(column.replace("\t", " ") for column in columns)


def write_lines(
    translations: Iterable[Sequence[str]], output: TextIO, total: int | None = None, quiet: bool = False
) -> int:
    """Writes lines as they come, with a progress bar and a summary on standard error.

    The progress bar is shown only if standard error is a terminal and `output` is not.

    Args:
        translations: for each sentence its lines, as `translated_lines` yields them.
        output: where to write; flushed after each sentence.
        total: how many sentences there are, if that is known.
        quiet: whether to leave out the bar and the summary.

    Returns:
        The exit status: 0; 130 after Ctrl-C, when all finished translations have been written; or 141 if the reader of
        the output has closed it.
    """
    start, count, status = time.perf_counter(), 0, 0
    with tqdm(total=total, unit=" sentences", disable=True if quiet or output.isatty() else None) as bar:
        try:
            for lines in translations:
                output.writelines(f"{line}\n" for line in lines)
                output.flush()
                count += 1
                bar.update()
        except KeyboardInterrupt:
            status = INTERRUPTED
        except BrokenPipeError:
            status = PIPE_CLOSED
            send_to_nobody(output)
    if not quiet:
        seconds = time.perf_counter() - start
        how = {INTERRUPTED: "interrupted: ", PIPE_CLOSED: "output closed: "}.get(status, "")
        said = "1 sentence" if count == 1 else f"{count:,} sentences"
        rate = f"{count / max(seconds, 1e-9):,.1f} sentences/s"
        print(
            f"{how}{said} translated in {seconds:,.1f} s ({rate})",
            file=sys.stderr,
        )
    return status
