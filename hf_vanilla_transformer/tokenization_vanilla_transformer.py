"""§5.1, text as tokens if source and target are split differently, or a tag precedes every source."""

import json
import unicodedata
from typing import Any, Literal

from transformers import PreTrainedTokenizerFast

from .tokenization_tags import known_tag_tokens

# Prefix in the vocabulary of units that are given whole, such as phones; it keeps them apart from letters.
UNIT_MARK = "▁"

_TAGS = ("src_lang", "tgt_lang", "tag")


def _tag_property(name: str, description: str) -> Any:
    return property(lambda self: self._tags[name], lambda self, value: self._set_tag(name, value), doc=description)


class VanillaTransformerTokenizer(PreTrainedTokenizerFast):
    """A fast tokenizer with two sides: sources are read as `tokenizer.json` says, targets as `target_side` says.

    `tokenizer(text)` reads sources, and `tokenizer(text_target=text)` targets. It puts the tags of `src_lang`,
    `tgt_lang` and `tag` before each source, in this order. They can be set at any time and are saved; setting a tag
    that the tokenizer does not have raises. A source may also contain its own tag: `<2de> A dog runs.`

    Args:
        *args: as for any fast tokenizer.
        target_side: `normalizer` and `pre_tokenizer` of targets, as in `tokenizer.json`; None for those of sources.
        decoded_form: the Unicode normal form of decoded text, such as "NFC" if sources are read in NFD; None changes
            nothing. Text with units that were given whole, such as phones, is never changed.
        src_lang: the language of sources, if the model is told: "en" puts `<en>` in front.
        tgt_lang: the language to translate into: "de" puts `<2de>` in front.
        tag: any other tag or tags: "bt" puts `<bt>` in front.
        **kwargs: as for any fast tokenizer.

    Raises:
        ValueError: a tag is not in the vocabulary; the message names those that are.

    Example:
        >>> tokenizer.tgt_lang = "de"
        >>> tokenizer.tokenize("a dog", add_special_tokens=True)
        ['<2de>', 'a', 'Ġdog', '</s>']
    """

    def __init__(
        self,
        *args: Any,
        target_side: dict[str, Any] | None = None,
        decoded_form: Literal["NFC", "NFD", "NFKC", "NFKD"] | None = None,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        tag: str | None = None,
        **kwargs: Any,
    ) -> None:
        tags = dict(zip(_TAGS, (src_lang, tgt_lang, tag), strict=True))
        super().__init__(*args, target_side=target_side, decoded_form=decoded_form, **tags, **kwargs)
        self.target_side, self.decoded_form = target_side, decoded_form
        self._tags: dict[str, str | None] = dict.fromkeys(_TAGS)
        self._cut = self._cuts_of_sides()
        for name, value in tags.items():
            self._set_tag(name, value)
        self._read_as("source")

    # The whole backend can be pickled, but not every part by itself.
    def __getstate__(self) -> dict[str, Any]:
        self._switch_to_input_mode()
        return {name: value for name, value in self.__dict__.items() if name != "_cut"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cut = self._cuts_of_sides()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Reads sources and targets like any fast tokenizer; then returns to sources, even after an error."""
        try:
            return super().__call__(*args, **kwargs)
        except BaseException:
            self._switch_to_input_mode()
            raise

    @classmethod
    def convert_to_native_format(cls, trust_remote_code: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Makes `from_pretrained` read all of `tokenizer.json`, and not only the vocabulary."""
        return super().convert_to_native_format(trust_remote_code=True, **kwargs)

    src_lang = _tag_property("src_lang", "The language of sources; None where the model is not told.")
    tgt_lang = _tag_property(
        "tgt_lang", "The language to translate into; None where sources say it, or it is the only."
    )
    tag = _tag_property("tag", "Any other tag in front of sources, or several; None for none.")

    @property
    def prefix(self) -> list[str]:
        """The tags before every source."""
        spelled = {"src_lang": "<{}>", "tgt_lang": "<2{}>", "tag": "{}"}
        given = [spelled[name].format(value) for name, value in self._tags.items() if value is not None]
        return known_tag_tokens(self, " ".join(given)) if given else []

    def _set_tag(self, name: str, value: str | None) -> None:
        before = self._tags[name]
        self._tags[name] = value
        try:
            source, target = self._template(self.prefix), self._template([])
        except ValueError:
            self._tags[name] = before
            raise
        self._around = {"source": source, "target": target}
        self._read_as("source")

    def _template(self, tags: list[str]) -> Any:
        """The post-processor that puts tags before a text and `</s>` after it."""

        def part(token: str, type_id: int = 0) -> dict[str, Any]:
            return {"SpecialToken": {"id": token, "type_id": type_id}}

        single = [*map(part, tags), {"Sequence": {"id": "A", "type_id": 0}}, part(self.eos_token)]
        pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}, part(self.eos_token, 1)]
        tokens = {
            token: {"id": token, "ids": [self.convert_tokens_to_ids(token)], "tokens": [token]}
            for token in (*tags, self.eos_token)
        }
        template = {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}
        return self._parts(post_processor=template).post_processor

    def _cuts_of_sides(self) -> dict[str, tuple[Any, Any]]:
        """Normalizer and pre-tokenizer of each side; the backend must hold those of sources."""
        source = target = (self._tokenizer.normalizer, self._tokenizer.pre_tokenizer)
        if self.target_side is not None:
            parts = self._parts(**{name: self.target_side[name] for name in ("normalizer", "pre_tokenizer")})
            target = (parts.normalizer, parts.pre_tokenizer)
        return {"source": source, "target": target}

    def _parts(self, **parts: Any) -> Any:
        """Builds parts of a backend, described as in `tokenizer.json`."""
        names = ("normalizer", "pre_tokenizer", "post_processor", "decoder", "truncation", "padding")
        model = {"type": "BPE", "vocab": {}, "merges": []}
        state = {"version": "1.0", "added_tokens": [], "model": model, **dict.fromkeys(names), **parts}
        return type(self._tokenizer).from_str(json.dumps(state))

    # `__call__` uses these to read `text` and `text_target`.
    def _switch_to_input_mode(self) -> None:
        if self._side != "source":
            self._read_as("source")

    def _switch_to_target_mode(self) -> None:
        if self._side != "target":
            self._read_as("target")

    def _read_as(self, side: str) -> None:
        backend = self._tokenizer
        backend.normalizer, backend.pre_tokenizer = self._cut[side]
        backend.post_processor = self._around[side]
        self._side = side

    def _decode(self, token_ids: Any, *args: Any, **kwargs: Any) -> str:
        text = super()._decode(token_ids, *args, **kwargs)
        if self.decoded_form is None:
            return text
        tokens = self.convert_ids_to_tokens([token_ids] if isinstance(token_ids, int) else list(token_ids))
        has_units = any(token is not None and token.startswith(UNIT_MARK) for token in tokens)
        return text if has_units else unicodedata.normalize(self.decoded_form, text)
