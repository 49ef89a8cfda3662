"""Figure 1 and transformers: supported versions, the two names of the cache, and strict arguments.

Up to transformers 5.23 the key/value cache is called `past_key_values`, from 5.24 on `cache`. This package uses only
`cache` internally; callers may use either name.
"""

import copy
import difflib
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import torch
import transformers
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.utils import logging
from transformers.utils.output_capturing import OutputRecorder

logger = logging.get_logger(__name__)


def parsed_version(version: str) -> tuple[int, int]:
    """The major and minor number of a version such as "5.24.0" or "5.25.0.dev0"."""
    major, minor = re.findall(r"\d+", version)[:2]
    return int(major), int(minor)


# (major, minor): the tests have passed on these two and on some versions in between.
OLDEST_TRANSFORMERS = (5, 18)
NEWEST_TESTED_TRANSFORMERS = (5, 24)

CACHE_NAMES = ("cache", "past_key_values")
# The name that the installed transformers uses in its outputs and in the keyword arguments of generation.
CACHE = "cache" if any(field.name == "cache" for field in fields(Seq2SeqLMOutput)) else "past_key_values"

# Since 5.24, beam search sorts its sampled candidates before it takes the first of them.
SORTS_SAMPLED_CANDIDATES = parsed_version(transformers.__version__) >= (5, 24)

# Arguments that every public `forward` takes besides its named ones, for recorded outputs and flex attention.
PASSED_ON = ("output_attentions", "output_hidden_states", "return_dict", "kernel_options")


def refuse_old_transformers(version: str) -> None:
    """Refuses a version of transformers that is too old for this code.

    Args:
        version: that of transformers.

    Raises:
        ImportError: it is older than `OLDEST_TRANSFORMERS`.
    """
    if parsed_version(version) < OLDEST_TRANSFORMERS:
        oldest = ".".join(map(str, OLDEST_TRANSFORMERS))
        raise ImportError(
            f"this model needs transformers {oldest} or newer, and {version} is installed; on older ones it was not "
            f"tested, and Trainers up to 5.14 report wrong losses for it; pip install 'transformers>={oldest}'"
        )


refuse_old_transformers(transformers.__version__)


def recorder(module_class: type, index: int, layers: str | None = None, name: str | None = None) -> OutputRecorder:
    """Describes the outputs that transformers records as a stack's hidden states or attentions.

    Args:
        module_class: the class whose outputs are recorded.
        index: which of its outputs.
        layers: the config field with the number of layers, for indices from the end. transformers before 5.23 has no
            such indices.
        name: the sub-module of that class, if there are several.

    Returns:
        An entry of `_can_record_outputs`.
    """
    options: dict[str, Any] = {"index": index, "layer_name": name}
    if layers is not None and any(field.name == "num_hidden_layers_key" for field in fields(OutputRecorder)):
        options["num_hidden_layers_key"] = layers
    return OutputRecorder(module_class, **options)


def with_cache_named(name: str, arguments: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Renames the cache in keyword arguments, whichever name the caller used.

    Args:
        name: its new name; without a cache, neither name remains.
        arguments: keyword arguments.
        where: the callee, for the error message.

    Returns:
        All arguments, with the cache renamed.

    Raises:
        TypeError: different caches were given under the two names. An empty one does not count.
    """
    given = [each for each in CACHE_NAMES if arguments.get(each) is not None]
    if len(given) > 1:  # peft's prefix tuning passes its prefix beside the empty cache of generation
        given = [each for each in given if arguments[each].get_seq_length() > 0] or [name]
    if len({id(arguments[each]) for each in given}) > 1:
        raise TypeError(
            f"{where} was given `cache` and `past_key_values`, two names of one thing; give one of them. peft up to "
            "0.21 does so in generate() with prefix tuning, for it does not know the new name: use a newer peft, or "
            "transformers up to 5.23"
        )
    renamed = {key: value for key, value in arguments.items() if key not in CACHE_NAMES}
    return {**renamed, name: arguments[given[0]]} if given else renamed


def cache_of_generation(model_kwargs: Mapping[str, Any]) -> Cache | None:
    """Finds the cache that a decoding loop of `generate()` passes to the model.

    Args:
        model_kwargs: the arguments that the loop passes.

    Returns:
        The cache, or None.

    Raises:
        RuntimeError: a cache has an unexpected name. Without it, decoding would silently go wrong.
    """
    for name, value in model_kwargs.items():
        if isinstance(value, Cache) and name != CACHE:
            raise RuntimeError(
                f"transformers {transformers.__version__} hands the cache over as `{name}`, but `{CACHE}` is expected; "
                f"use a transformers up to {'.'.join(map(str, NEWEST_TESTED_TRANSFORMERS))}, or a newer version of "
                "this code"
            )
    return model_kwargs.get(CACHE)


def cache_for_masks(cache: Cache | None, implementation: str | None) -> Cache | None:
    """The cache by which transformers makes a mask: one whose length stays what it is.

    Its masks for flex attention hold the very tensor that counts the positions of a static cache, and are read when
    attention has already added to it: queries then see later keys.

    Args:
        cache: that of the decoder, or of its self-attentions.
        implementation: the attention implementation.

    Returns:
        `cache`; with flex attention and a static cache a copy with the same keys and a count of its own.
    """
    if implementation != "flex_attention" or cache is None:
        return cache
    fixed = copy.copy(cache)
    if isinstance(fixed, EncoderDecoderCache):
        fixed.self_attention_cache = cache_for_masks(fixed.self_attention_cache, implementation)
        return fixed
    fixed.layers = [copy.copy(layer) for layer in fixed.layers]
    for layer in fixed.layers:
        if isinstance(getattr(layer, "cumulative_length", None), torch.Tensor):
            layer.cumulative_length = layer.cumulative_length.clone()
    return fixed


def strict_forward(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a public `forward` refuse unknown arguments and accept the cache under both names.

    An argument that was renamed, misspelt or meant for another model raises an error instead of silently doing nothing.
    This must be the outermost decorator. Its signature is exact, because transformers, peft and exporters read it.

    Args:
        forward: names each argument that it uses; its `**kwargs` get only those of `PASSED_ON`.

    Returns:
        A function that takes the same, the `PASSED_ON`, and `token_type_ids`, which it ignores with one warning unless
        `forward` names them.
    """
    named = [each for each in inspect.signature(forward).parameters.values() if each.kind is not each.VAR_KEYWORD]
    has_cache = any(each.name == "cache" for each in named)
    known = {each.name for each in named}
    has_types = "token_type_ids" in known
    others = [*PASSED_ON, "token_type_ids", *(["past_key_values"] if has_cache else [])]
    others = [name for name in others if name not in known]
    known.update(others)
    keyword_only = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in others]

    @functools.wraps(forward)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        if has_cache and "past_key_values" in kwargs:
            kwargs = with_cache_named("cache", kwargs, f"{type(self).__name__}.forward()")
        if not known.issuperset(kwargs):
            kwargs = _without_empty(kwargs, known, type(self).__name__)
        if not has_types and "token_type_ids" in kwargs:
            kwargs = {name: value for name, value in kwargs.items() if name != "token_type_ids"}
            warn_about_token_types()
        return forward(self, *args, **kwargs)

    checked.__signature__ = inspect.Signature([*named, *keyword_only])  # type: ignore[attr-defined]
    return checked


def warn_about_token_types() -> None:
    """Warns once that `token_type_ids` are ignored; tokenizers made for BERT add them by default."""
    logger.warning_once(
        "`token_type_ids` were given and are left out, for this model has no token types; make the tokenizer with "
        'model_input_names=["input_ids", "attention_mask"] to be rid of them'
    )


def _without_empty(arguments: dict[str, Any], known: set[str], model: str) -> dict[str, Any]:
    unknown = [name for name, value in arguments.items() if name not in known and value is not None]
    if unknown:
        likely = [(name, difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.7)) for name in unknown]
        hints = "".join(f" Did you mean `{matches[0]}` by `{name}`?" for name, matches in likely if matches)
        raise TypeError(f"{model}.forward() does not know {', '.join(f'`{name}`' for name in unknown)}.{hints}")
    return {name: value for name, value in arguments.items() if name in known}


class AnswersToBothCacheNames:
    """An output whose cache can be read both as `cache` and as `past_key_values`, whichever is its field."""

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(_field(key))  # type: ignore[misc]

    def __contains__(self, key: Any) -> bool:
        return super().__contains__(_field(key))  # type: ignore[misc]

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of `key`, or `default`."""
        return super().get(_field(key), default)  # type: ignore[misc]


def _field(key: Any) -> Any:
    return CACHE if isinstance(key, str) and key in CACHE_NAMES else key


for _name in CACHE_NAMES:
    if _name != CACHE:
        setattr(AnswersToBothCacheNames, _name, property(lambda self: getattr(self, CACHE)))
