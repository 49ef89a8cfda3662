"""Which languages a model has, and the tags that it is told them by."""

import re
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from ..tokenization_ids import tokens_in_text
from ..tokenization_tags import tags_to_add

# As `VanillaTransformerTokenizer` spells `src_lang` and `tgt_lang`.
_SOURCE_TAG, _TARGET_TAG = "<{}>", "<2{}>"
_SOURCE_CODE, _TARGET_CODE = re.compile(r"<([a-z]{2,3}(?:-\w{2,8})?)>"), re.compile(r"<2([a-z]{2,3}(?:-\w{2,8})?)>")


@dataclass(frozen=True)
class Languages:
    """The languages of one model.

    Args:
        sources: codes of those that it translates from; empty if nobody says.
        targets: codes of those that it translates into; likewise.
        tags: all tokens that it may find before a text.
        tokenizer: puts tags before texts.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    tags: tuple[str, ...]
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, declared: str | None = None) -> "Languages":
        """Reads languages off the tags of a tokenizer: `<en>` is a source, `<2de>` a target.

        Args:
            tokenizer: of the model.
            declared: as `declared_languages` takes it; a side that is left out (":ipa") is read off the tags.

        Returns:
            The languages.

        Raises:
            ValueError: `declared` is not of its form.
        """
        tags = tuple(tokens_in_text(tokenizer))
        given = ((), ()) if declared is None else declared_languages(declared)
        found = [
            tuple(match[1] for tag in tags if (match := code.fullmatch(tag))) for code in (_SOURCE_CODE, _TARGET_CODE)
        ]
        return cls(given[0] or found[0], given[1] or found[1], tags, tokenizer)

    def have(self, source: str | None, target: str | None) -> bool:
        """Says whether the model translates from one language into another; None fits any.

        Args:
            source: code of the one.
            target: code of the other.
        """
        return source in (None, *self.sources) and target in (None, *self.targets)

    def tag_for(self, source: str | None, target: str | None, tag: str | None) -> str | None:
        """The tags to put before a text.

        Args:
            source: its language; None if the model is not told.
            target: the language to translate into; likewise.
            tag: any other tag or tags.

        Returns:
            Tags, for `translate`; None for none.

        Raises:
            ValueError: the model does not have such a language or tag; the message says which it has.
        """
        found = []
        for code, known, spelled, what in (
            (source, self.sources, _SOURCE_TAG, "from"),
            (target, self.targets, _TARGET_TAG, "into"),
        ):
            if code is None:
                continue
            if code not in known:
                names = ", ".join(known) or "nothing that it was told of (--languages of the service)"
                raise ValueError(f"this model does not translate {what} {code!r:.80}; it does {what} {names}")
            token = spelled.format(code)
            if token in self.tags and token not in getattr(self.tokenizer, "prefix", []):
                found.append(token)
        if tag is not None:
            found += tags_to_add(self.tokenizer, tag)
        return " ".join(found) or None


def declared_languages(declared: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Reads the languages that somebody says a model has.

    Args:
        declared: "en:de", or "en,fr:de" for several; a side may be left out.

    Returns:
        Codes of languages to translate from, and into.

    Raises:
        ValueError: it is not of this form.
    """
    if not re.fullmatch(r"(?:[\w-]+(?:,[\w-]+)*)?:(?:[\w-]+(?:,[\w-]+)*)?", declared):
        raise ValueError(f"languages={declared!r} is not of the form SOURCE:TARGET, such as en:de or en,fr:de")
    sources, targets = (tuple(filter(None, side.split(","))) for side in declared.split(":"))
    return sources, targets


__all__ = ["Languages", "declared_languages"]
