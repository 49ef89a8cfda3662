"""Systems to evaluate: translations of test sets, by a model, by several together, or from files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..inference import Translator
from ..inference.engine_ctranslate2 import CTranslate2Engine
from ..tokenization_tags import known_tag_tokens, tags_to_add
from .pair_scores import ScoreTotals, score_pairs
from .test_sets import EvaluationSet

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class System:
    """The translations of test sets by one system.

    Args:
        name: of the system.
        translations: of each test set: detokenised, one for each sentence.
        likelihoods: of each test set: how probable the system finds all references, or None; empty if it is no model.
        engine: what translated, such as "torch" or "ctranslate2 (int8)"; None if it is no model.
    """

    name: str
    translations: list[list[str]]
    likelihoods: list[ScoreTotals | None] = field(default_factory=list)
    engine: str | None = None


def system_of_model(
    folders: Sequence[str],
    test_sets: Sequence[EvaluationSet],
    device: str = "auto",
    dtype: str = "auto",
    batch_tokens: int = 4096,
    tag: str | None = None,
    engine: str = "torch",
    quantization: str = "float32",
    **translation_options: Any,
) -> System:
    """Translates test sets with a model, and scores their references by it.

    Args:
        folders: folder (or Hub name) of the model and its tokenizer; of several, which then decode together as an
            ensemble.
        test_sets: what to translate.
        device: where to compute; "auto" for the best device there is.
        dtype: of the weights; "auto" for the one in which they are saved.
        batch_tokens: tokens of a side that are translated or scored at a time, padding included.
        tag: what to put in front of each source, such as "2de" for the token `<2de>`; a set may also have its own.
        engine: what translates, as `Translator` takes it. Likelihoods are always torch's.
        quantization: of CTranslate2.
        **translation_options: for `translate()` and so for `generate()`, such as `num_beams`.

    Returns:
        Translations, each without line breaks, and likelihoods. If a reference cannot be scored, a warning says why,
        and the likelihood of its test set is None.

    Raises:
        OSError: there is no such model.
        ValueError: an option is out of its range, or as in `check_translatable`.
    """
    translator = Translator(folders, engine, device, dtype, quantization, translation_options)
    tokenizer = translator.tokenizer
    name, translations = " + ".join(folders), []
    likelihoods: list[ScoreTotals | None] = []
    for data in test_sets:  # before the first is translated
        check_translatable(tokenizer, data, tag)
    options = {"batch_tokens": batch_tokens, "tag": tag, **translation_options}
    chosen = translator.engine_for(options)
    for data in test_sets:
        translations.append(list(translator.translate(data.sources, **options)))
        totals = ScoreTotals()
        try:
            for text in data.references:
                pairs = zip(data.sources, text, strict=True)
                for score in score_pairs(translator.model, tokenizer, pairs, batch_tokens, tag=tag):
                    totals.add(score)
        except ValueError as error:  # the translations are still of use
            logger.warning(f"no perplexity of {name}: {error}")
            likelihoods.append(None)
        else:
            likelihoods.append(totals)
    quantized = f" ({chosen.quantization})" if isinstance(chosen, CTranslate2Engine) else ""
    return System(name, translations, likelihoods, f"{chosen.name}{quantized}")


def check_translatable(tokenizer: PreTrainedTokenizerBase, data: EvaluationSet, tag: str | None = None) -> None:
    """Refuses a test set that a tokenizer cannot read.

    Args:
        tokenizer: of a model.
        data: what to translate.
        tag: what is put in front of each source, besides the tag of the set.

    Raises:
        ValueError: the tokenizer does not know a tag; one would stand before each source twice; or the set is reversed,
            and the tokenizer cuts source and target differently.
    """
    own = tags_to_add(tokenizer, data.tag)
    if twice := [token for token in known_tag_tokens(tokenizer, tag) if token in own]:
        raise ValueError(
            f"tag={tag} would put {' '.join(twice)} before sources of {data.name}, where its tag={data.tag} has put it "
            "already; leave one of them out"
        )
    if data.reversed and getattr(tokenizer, "target_side", None) is not None:
        raise ValueError(f"{data.name}: reversed text cannot be translated where the tokenizer cuts sides differently")
