"""Parsers of command lines whose errors are one line that helps."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn

from ..data.suggestions import did_you_mean


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser that says what is wrong in one line, and what a mistyped option was probably meant to be.

    Args:
        *args: as of `argparse.ArgumentParser`.
        **kwargs: likewise; unless they say so, options are not abbreviated, and description and epilog are printed as
            they are written.
    """

    after_unexpected = ""
    instead: ClassVar[Mapping[str, str]] = {}  # advice about options that others have, by name

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        defaults = {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(*args, **{**defaults, **kwargs})

    def error(self, message: str) -> NoReturn:
        """Prints the message, without a usage that would bury it, and exits with status 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Refuses unknown options first of all, for what else is wrong may come of them; and words left over."""
        words = sys.argv[1:] if args is None else list(args)
        if self._subparsers is None:  # whose options are their own
            for word in words:
                if word == "--":
                    break
                if word.startswith("--") and word.partition("=")[0] not in self._option_string_actions:
                    self.error(self._describe_unknown(word.partition("=")[0]))
        namespace, rest = super().parse_known_args(words, namespace)
        if rest:
            self.error(f"unexpected word {rest[0]!r}{self.after_unexpected}")
        return namespace, rest

    def _describe_unknown(self, option: str) -> str:
        name = option.lstrip("-").replace("-", "_")
        if name in self.instead:
            return f"unknown option {option}: {self.instead[name]}"
        known = {string.lstrip("-").replace("-", "_"): string for string in sorted(self._option_string_actions)}
        hint = did_you_mean(name, known)
        for plain, string in known.items():  # as its author spells it
            hint = hint.replace(f" {plain}?", f" {string}?")
        return f"unknown option {option}{hint}"
