"""Publish a model on the Hub with its code, after a proof that it loads where this package is not."""

import sys
from collections.abc import Sequence

from ..inference.one_line_parser import OneLineParser
from ..publishing import ProvenOn, Published, UnfitFolderError, publish, publish_space

EXAMPLES = """
examples:
  vanilla-transformer publish runs/en-de --repo_id me/en-de --dry_run --output runs/en-de-hub \\
      --sentence "A dog runs." --sentence "Two men play football."
  vanilla-transformer publish model_cards/multi30k-de-en-tiny --repo_id me/multi30k-de-en-tiny
  vanilla-transformer publish runs/en-de --repo_id me/en-de --prove_on oldest newest --constraint constraints.txt
  vanilla-transformer publish --space runs/en-de me/en-fr --repo_id me/en-de-demo --dry_run --output runs/space

First a folder is built with the model, its code, tokenizer, card (README.md; written where there is none) and results.
Then its files are looked through: no pickles or archives, no secrets, no paths or names of this machine, no remains of
training, valid metadata. Then interpreters without this package load it by AutoConfig, AutoModel,
AutoModelForSeq2SeqLM, AutoTokenizer and pipeline("translation") with trust_remote_code=True, offline, and have to
translate as the model does here: always this interpreter, isolated and with the package hidden; those of --python; and
an environment for each version of --prove_on, in which pip installs torch and transformers (for torch's build for CPUs,
give --constraint a file with a line such as torch==2.13.0). Nothing leaves before all this has gone well, and before
the upload begins it is said on what the folder was not proven.

The upload is one commit. If it fails, the error says what was uploaded; the same command can be repeated: it makes no
second repository, and uploads nothing twice.

With --space (extra demo) it is a Space of the Hub that shows models on the page of `vanilla-transformer demo`: app.py,
requirements.txt, a card, this package as source, and the models, those of this machine as files and others by their
names on the Hub. Its files are looked through likewise, and app.py has to answer in a process of its own.

exit status: 0; 2 for a folder that must not be published, for a proof or an upload that fails, and for options that
cannot be used; 130 after Ctrl-C.
"""

# Options of what only the repository of a model has: the proof by other interpreters, and chosen files.
_OF_MODELS = ("sentence", "python", "prove_on", "constraint", "environments", "include", "exclude")


def make_parser(prog: str | None = None) -> OneLineParser:
    """Describes the options."""
    parser = OneLineParser(prog=prog, description=__doc__, epilog=EXAMPLES)
    add = parser.add_argument
    add("folder", nargs="+", metavar="FOLDER", help="a model card's folder or its name, or the output of a "
        "run; with --space one or several, and names on the Hub")  # fmt: skip
    add("--space", action="store_true", help="publish a Space that shows the models on a page")
    add("--repo_id", metavar="OWNER/NAME", help="repository; made where there is none (default: the folder's name)")
    add("--dry_run", action="store_true", help="build, look through and prove the folder, and stop before the upload")
    add("--output", metavar="FOLDER", help="keep the built folder here; must be free or empty")
    add("--overwrite", action="store_true", help="replace files that are in --output already")
    add(
        "--sentence",
        action="append",
        default=[],
        help="prove with this, too; two are needed, those of the card counted",
    )
    add("--python", nargs="+", default=[], metavar="PATH", help="prove with these interpreters, too")
    add("--prove_on", nargs="+", default=[], metavar="VERSION", help="prove with these versions of transformers, too: "
        "oldest, newest (of the tested range), or one such as 5.18")  # fmt: skip
    add("--constraint", metavar="FILE", help="pip's constraints for the environments of --prove_on")
    add("--environments", metavar="FOLDER", help="keep the environments of --prove_on here, and use them again")
    add("--include", nargs="+", default=[], metavar="PATTERN", help="publish these files, too")
    add("--exclude", nargs="+", default=[], metavar="PATTERN", help="do not publish these files")
    add(
        "--allow", nargs="+", default=[], metavar="TEXT", help="what looks like a secret or a path and may be published"
    )
    add("--private", action="store_true", default=None, help="make a new repository a private one")
    add("--revision", metavar="BRANCH", help="upload to this branch; made where there is none")
    add("--commit_message", metavar="TEXT", help="of the commit")
    return parser


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads the options, publishes, and says what was proven and uploaded.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what the help calls the program; None for the name of the script.

    Returns:
        The exit status, as the help describes it.
    """
    parser = make_parser(prog)
    args = parser.parse_args(argv)
    if args.overwrite and args.output is None:
        parser.error("--overwrite has no effect without --output; leave it out")
    for option in ("private", "revision", "commit_message"):
        if args.dry_run and getattr(args, option):
            parser.error(f"--{option} has no effect with --dry_run, which uploads nothing; leave it out")
    for option in _OF_MODELS if args.space else ():
        if getattr(args, option):
            parser.error(f"--{option} has no effect with --space; leave it out")
    if not args.space and len(args.folder) > 1:
        parser.error("one model is published at a time; several are for --space")

    def say(line: str) -> None:
        print(f"{parser.prog}: {line}", file=sys.stderr)

    try:
        if args.space:
            published = publish_space(
                args.folder, args.repo_id, args.dry_run, args.output, args.overwrite, args.allow, args.private,
                args.revision, args.commit_message, say,
            )  # fmt: skip
        else:
            proven_on = ProvenOn(args.python, args.prove_on, args.constraint, args.environments)
            published = publish(
                args.folder[0], args.repo_id, args.dry_run, args.output, args.overwrite, args.sentence, proven_on,
                args.include, args.exclude, args.allow, args.private, args.revision, args.commit_message, say,
            )  # fmt: skip
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; the same command can be repeated", file=sys.stderr)
        return 130
    except UnfitFolderError as error:
        for finding in error.findings:
            print(f"{parser.prog}: error: {finding}", file=sys.stderr)
        leave_out = "" if args.space else "leave files out (--exclude PATTERN), "
        print(
            f"{parser.prog}: error: {' '.join(args.folder)} must not be published as it is; correct these files, "
            f"{leave_out}or say what may be published (--allow TEXT)",
            file=sys.stderr,
        )
        return 2
    except (ImportError, OSError, TypeError, ValueError) as error:
        print(f"{parser.prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for line in summary_lines(published, args.output):
        print(line)
    return 0


def summary_lines(published: Published, output: str | None) -> list[str]:
    """Describes what was built, proven and uploaded.

    Args:
        published: what was done.
        output: where the folder is kept.

    Returns:
        The lines.
    """
    lines = [f"{size:>12,} bytes  {name}" for name, size in published.files.items()]
    lines.append(f"{sum(published.files.values()):>12,} bytes  in {len(published.files)} files")
    rows = [("Left out", name) for name in _shortened(published.left_out)]
    rows += [("Translated", f"{source!r} -> {text!r}") for source, text in published.translations.items()]
    rows += [("Proven on", str(proof)) for proof in published.proofs]
    rows += [("Not proven on", line) for line in published.unproven]
    rows += [("Note", remark) for remark in published.remarks]
    if output is not None:
        rows.append(("Kept in", output))
    if published.upload is None:
        rows.append(("Uploaded", "nothing (--dry_run)"))
    else:
        rows.append(("Uploaded" if published.upload.has_changed else "Unchanged", published.upload.address))
    return lines + [f"{title + ':':<14} {text}" for title, text in rows]


def _shortened(names: Sequence[str]) -> list[str]:
    """Files of the top by their names, those of folders by their number; --include adds what is missed."""
    folders: dict[str, int] = {}
    for name in names:
        if "/" in name:
            folders[name.partition("/")[0]] = folders.get(name.partition("/")[0], 0) + 1
    top = [name for name in names if "/" not in name]
    return [*top, *(f"{name}/ ({count} file{'s' * (count > 1)})" for name, count in folders.items())]
