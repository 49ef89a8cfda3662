"""What requests and answers have in them. FastAPI checks requests by these, and describes them by these."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

# Control characters but tab, line feed and carriage return; and halves of surrogate pairs.
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_JSON_NAMES = {int: "a number", float: "a number", bool: "true or false", dict: "an object", type(None): "null"}


def _checked(text: Any) -> Any:
    if not isinstance(text, str):
        name = "a list" if isinstance(text, list) else _JSON_NAMES.get(type(text), "something else")
        raise ValueError(f"a text is a string, and this is {name}")
    if (found := _NOT_TEXT.search(text)) is not None:
        code = f"U+{ord(found[0]):04X}"
        if found[0] >= "\ud800":
            raise ValueError(f"the text has half a surrogate pair ({code}), which is no character")
        raise ValueError(f"the text has a control character ({code}); leave it out")
    return text


def _check_texts(value: Any) -> Any:
    for text in value if isinstance(value, list) else [value]:
        _checked(text)
    return value


Texts = Annotated[str | list[str], BeforeValidator(_check_texts)]
Name = Annotated[str, BeforeValidator(_checked), Field(max_length=200)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Asked(_Body):
    model: Name | None = Field(None, description="as GET /models lists it; else the first that has the languages")
    num_beams: int | None = Field(
        None, ge=1, description="beams of the search; 1 is greedy. The model's own if left out"
    )


class _Tagged(_Body):
    tag: Name | None = Field(None, description="what to put before each text, such as `2de` for the token <2de>")
    source_lang: Name | None = Field(None, description="language of the texts; GET /languages lists them")
    target_lang: Name | None = Field(None, description="language to translate into")


class TranslateRequest(_Asked, _Tagged):
    """Texts to translate."""

    text: Texts = Field(description="one text, or a list of them", examples=["A dog runs."])
    nbest: int = Field(1, ge=1, description="translations of each text")
    scores: bool = Field(False, description="whether translations come with score and log_prob")
    alignments: bool = Field(False, description="whether they come with tokens and their alignment")


class LibreTranslateRequest(_Asked):
    """The same in the fields of LibreTranslate, in JSON or as a form."""

    q: Texts = Field(description="one text, or a list of them", examples=["A dog runs."])
    source: Name = Field("auto", description="language of the texts; `auto` if the model needs not be told")
    target: Name | None = Field(None, description="language to translate into")
    alternatives: int = Field(0, ge=0, description="translations of each text besides the best")
    format: Literal["text"] = Field("text", description="only plain text is translated")
    api_key: Name | None = Field(None, description="the token of the service, if it has one and none is in the header")

    def as_ours(self) -> TranslateRequest:
        """The same request in our fields."""
        return TranslateRequest.model_construct(
            model=self.model,
            num_beams=self.num_beams,
            text=self.q,
            nbest=1 + self.alternatives,
            source_lang=None if self.source == "auto" else self.source,
            target_lang=self.target,
        )


def _kind(body: Any) -> str:
    return "libretranslate" if isinstance(body, dict) and "q" in body else "ours"


AnyTranslateRequest = Annotated[
    Annotated[TranslateRequest, Tag("ours")] | Annotated[LibreTranslateRequest, Tag("libretranslate")],
    Discriminator(_kind),
]


class StreamRequest(_Tagged):
    """One text whose translation is wanted token by token, by greedy search."""

    text: Annotated[str, BeforeValidator(_checked)] = Field(description="one text", examples=["A dog runs."])
    model: Name | None = Field(None, description="name of a model")


class ScoreRequest(_Tagged):
    """Translations to score: each of `target` is one of the text at its place in `source`."""

    source: Texts = Field(description="one text, or a list of them", examples=["A dog runs."])
    target: Texts = Field(description="as many translations", examples=["Ein Hund rennt."])
    model: Name | None = Field(None, description="name of a model")
    per_token: bool = Field(False, description="whether each token comes with its log-probability")


class Candidate(BaseModel):
    """One translation of a text. Fields that were not asked for are left out."""

    text: str
    score: float | None = Field(None, description="what the search ranks by; null if it found fewer translations")
    log_prob: float | None = Field(None, description="log-probability in nats, by the model alone")
    source_tokens: list[str] | None = None
    tokens: list[str] | None = None
    alignment: list[tuple[int, int]] | None = Field(None, description="pairs of source token and token, from 0")


class TranslateResponse(BaseModel):
    """For each text its translations, the best first; sampled without beams, in the order drawn."""

    model: str
    translations: list[list[Candidate]]


class LibreTranslateResponse(BaseModel):
    """The same in the fields of LibreTranslate: lists if `q` was a list."""

    translatedText: str | list[str]
    alternatives: list[str] | list[list[str]] | None = None


class PairScore(BaseModel):
    """How probable the model finds one translation."""

    log_prob: float = Field(description="log-probability of all tokens, its end included, in nats")
    num_tokens: int
    nats_per_token: float
    tokens: list[str] | None = None
    token_log_probs: list[float] | None = None


class ScoreResponse(BaseModel):
    """A score for each pair."""

    model: str
    scores: list[PairScore]


class ModelDescription(BaseModel):
    """One model of the service."""

    name: str
    engine: str
    is_default: bool
    tags: list[str]
    source_languages: list[str]
    target_languages: list[str]


class Language(BaseModel):
    """One language that can be translated from, as LibreTranslate describes it."""

    code: str
    name: str
    targets: list[str]


class ErrorResponse(BaseModel):
    """Why a request was refused."""

    error: str = Field(description="a sentence")
    code: str = Field(description="the same for programs")
    retry_after: int | None = Field(None, description="seconds after which to try again")
