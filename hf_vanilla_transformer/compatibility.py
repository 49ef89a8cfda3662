"""Figure 1 and transformers: the versions this code works with, their two names of the cache, and strict arguments.

Up to transformers 5.23 the cache of keys and values is called `past_key_values`, from 5.24 on `cache`. In here it is
always `cache`; what callers from outside use is their choice.
"""

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import transformers
from transformers.cache_utils import Cache
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.utils import logging
from transformers.utils.output_capturing import OutputRecorder

logger = logging.get_logger(__name__)


def parsed_version(version: str) -> tuple[int, int]:
    """The major and minor number of a version such as "5.24.0" or "5.25.0.dev0"."""
    major, minor = re.findall(r"\d+", version)[:2]
    return int(major), int(minor)


# (major, minor): the tests have passed on the first, on the last, and on some between.
OLDEST_TRANSFORMERS = (5, 18)
NEWEST_TESTED_TRANSFORMERS = (5, 24)

CACHE_NAMES = ("cache", "past_key_values")
# The name that the installed transformers uses in its outputs and in the keyword arguments of generation.
CACHE = "cache" if any(field.name == "cache" for field in fields(Seq2SeqLMOutput)) else "past_key_values"

# Since 5.24 beam search puts the candidates that it drew in order before it takes the first of them.
SORTS_SAMPLED_CANDIDATES = parsed_version(transformers.__version__) >= (5, 24)

# What every public `forward` takes besides the arguments that it names: for recorded outputs, and for flex attention.
PASSED_ON = ("output_attentions", "output_hidden_states", "return_dict", "kernel_options")


def refuse_old_transformers(version: str) -> None:
    """Refuses a transformers on which this code would be wrong.

    Args:
        version: of transformers.

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
    """What transformers is to record as hidden states or attentions of a stack.

    Args:
        module_class: whose outputs.
        index: which of them.
        layers: the field of the config that says how many layers there are, for indices from the end. transformers
            before 5.23 has no such indices.
        name: which sub-module of that class, where there are several.

    Returns:
        The description that `_can_record_outputs` holds.
    """
    options: dict[str, Any] = {"index": index, "layer_name": name}
    if layers is not None and any(field.name == "num_hidden_layers_key" for field in fields(OutputRecorder)):
        options["num_hidden_layers_key"] = layers
    return OutputRecorder(module_class, **options)


def with_cache_named(name: str, arguments: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Renames the cache among keyword arguments, whichever of its names the caller used.

    Args:
        name: the name it gets; where there is no cache, neither name is left.
        arguments: keyword arguments.
        where: what they are for, for the message.

    Returns:
        All arguments.

    Raises:
        TypeError: two caches were given under the two names. An empty one does not count.
    """
    given = [each for each in CACHE_NAMES if arguments.get(each) is not None]
    if len(given) > 1:  # peft's prefix tuning puts its prefix beside the empty cache that generation has made
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
    """The cache that a loop of `generate()` hands on, or None.

    Args:
        model_kwargs: what the loop passes to the model.

    Returns:
        The cache under the name that the installed transformers uses.

    Raises:
        RuntimeError: a cache came under a name that is not known here. Without it, decoding would go wrong silently.
    """
    for name, value in model_kwargs.items():
        if isinstance(value, Cache) and name != CACHE:
            raise RuntimeError(
                f"transformers {transformers.__version__} hands the cache over as `{name}`, but `{CACHE}` is expected; "
                f"use a transformers up to {'.'.join(map(str, NEWEST_TESTED_TRANSFORMERS))}, or a newer version of "
                "this code"
            )
    return model_kwargs.get(CACHE)


def strict_forward(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a public `forward` refuse arguments that it does not know, and take the cache under both names.

    An argument that was renamed, misspelt or meant for another model ends in an error and not in other numbers. This
    must be the outermost decorator. The signature says exactly what is taken: transformers, peft and exporters read it.

    Args:
        forward: names each argument that it uses; its `**kwargs` get those of `PASSED_ON` only.

    Returns:
        A function that takes the same, the `PASSED_ON`, and `token_type_ids`, which it leaves out with one warning.
    """
    named = [each for each in inspect.signature(forward).parameters.values() if each.kind is not each.VAR_KEYWORD]
    has_cache = any(each.name == "cache" for each in named)
    known = {each.name for each in named}
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
        if "token_type_ids" in kwargs:
            kwargs = {name: value for name, value in kwargs.items() if name != "token_type_ids"}
            warn_about_token_types()
        return forward(self, *args, **kwargs)

    checked.__signature__ = inspect.Signature([*named, *keyword_only])  # type: ignore[attr-defined]
    return checked


def warn_about_token_types() -> None:
    """Says once that `token_type_ids` are left out: tokenizers made for BERT add them unasked."""
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
    """An output whose cache is read as `cache` and as `past_key_values` alike, whichever of the two is its field."""

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(_field(key))  # type: ignore[misc]

    def __contains__(self, key: Any) -> bool:
        return super().__contains__(_field(key))  # type: ignore[misc]

    def get(self, key: Any, default: Any = None) -> Any:
        """What stands under `key`, or `default`."""
        return super().get(_field(key), default)  # type: ignore[misc]


def _field(key: Any) -> Any:
    return CACHE if isinstance(key, str) and key in CACHE_NAMES else key


for _name in CACHE_NAMES:
    if _name != CACHE:
        setattr(AnswersToBothCacheNames, _name, property(lambda self: getattr(self, CACHE)))
