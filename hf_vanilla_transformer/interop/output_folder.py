"""Where converted and exported models go: a folder that appears whole or not at all, and replaces nothing unasked."""

import errno
import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

# Where a folder keeps the tokenizer of the target, if that of the source cannot encode it.
TARGET_TOKENIZER = "target_tokenizer"

# Names of what results are made of, as patterns; the folder is that of conversions, which are made again.
OF_WEIGHTS = ("config.json", "generation_config.json", "*model*.safetensors*", "*model*.bin*", ".ctranslate2")
OF_TOKENIZERS = (
    *("tokenizer*.json", "vocab*", "*vocabulary.json", "merges.txt", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", TARGET_TOKENIZER),
)
OF_MODELS = (*OF_WEIGHTS, *OF_TOKENIZERS)
OF_GRAPHS = (*OF_MODELS, "encoder.*", "decoder.*", "README.md", "translate.py")


@contextmanager
def output_folder(
    output_dir: str | Path,
    overwrite: bool = False,
    source: str | Path | None = None,
    own: Collection[str] | None = None,
) -> Iterator[Path]:
    """Gives a folder to write in, which becomes `output_dir` if all goes well; after an error nothing is left of it.

    Args:
        output_dir: what to make; must be free or an empty folder, unless `overwrite`.
        overwrite: whether an earlier result in `output_dir` is replaced.
        source: what the new files are made of; is never written to, whatever `overwrite` says.
        own: patterns of the names that a result has. An earlier one is then replaced as a whole, so that nothing of it
            is taken for a part of the new one, and a folder in which there is anything else is refused. None is for
            files that have nothing to do with each other, such as pictures: those of the same names are replaced one
            by one, and others stay.

    Yields:
        A temporary folder next to `output_dir`.

    Raises:
        OSError: `output_dir` is a file, the source, not empty, has something in it that is no result, or cannot be
            written.
    """
    target = Path(output_dir)
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{target} is a file; name a folder, or a name that is free")
    if target.exists() and source and Path(source).exists() and target.samefile(source):
        raise FileExistsError(f"{target} is the folder of the model itself, which must stay as it is; name another one")
    present = sorted(path.name for path in target.iterdir()) if target.exists() else []
    if present and not overwrite:
        raise FileExistsError(
            f"{target} is not empty (it has {', '.join(present[:3])}{', ...' if present[3:] else ''}); name another "
            "folder, or allow that files in it are replaced: --overwrite, in Python overwrite=True"
        )
    if own is not None:
        refuse_foreign_files(target, [name for name in present if not any(fnmatch(name, each) for each in own)])
    target = target.resolve()  # a link stays, and `.` has a parent
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
        written = Path(temporary) / "written"  # with the usual rights, where those of a temporary folder are narrow
        written.mkdir()
        yield written
        if not target.exists():
            os.rename(written, target)
            return
        if not present:  # the folder stays, with its rights, and for whoever works in it
            if any(target.iterdir()):
                raise OSError(errno.ENOTEMPTY, "is not empty any more, by another process", str(target))
            for path in written.iterdir():
                os.rename(path, target / path.name)
            return
        if own is not None:
            _replace_folder(written, target, Path(temporary) / "before")
            return
        for path in sorted(path for path in written.rglob("*") if path.is_file()):
            place = target / path.relative_to(written)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)


def refuse_foreign_files(folder: Path, names: Collection[str], result: str = "such result") -> None:
    """Refuses to replace a folder that has more in it than an earlier result.

    Args:
        folder: it.
        names: of what is there besides; all is well where there are none.
        result: what the folder is to have.

    Raises:
        FileExistsError: there are such names; the message has them.
    """
    if names:
        raise FileExistsError(f"{folder} has {', '.join(sorted(names))}, which no {result} has made; remove that first")


def _replace_folder(written: Path, target: Path, before: Path) -> None:
    """Moves a folder aside, and gives its name to another; after an error it is back."""
    os.rename(target, before)
    try:
        os.rename(written, target)
    except BaseException:
        os.rename(before, target)
        raise
