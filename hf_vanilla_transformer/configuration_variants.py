"""Fields that only some variants of §3 have: what None means there, and what is refused."""

import math
from typing import Any

# For each choice, by the field and value that make it, the fields that it has besides, and what None means for them;
# None again where a value is required.
OWN_FIELDS: dict[tuple[str, str], dict[str, Any]] = {
    ("position_encoding", "rotary"): {"rotary_base": 10000},
    ("position_encoding", "t5_relative"): {"max_relative_distance": 128, "num_relative_buckets": 32},
    ("position_encoding", "shaw_relative"): {"max_relative_distance": 16},
    ("attention_pattern", "local"): {"attention_window": None},
    ("attention_pattern", "strided"): {"attention_window": None, "attention_stride": None},
    ("attention_pattern", "local_global"): {"attention_window": None, "attention_stride": None},
    ("attention", "linear"): {"feature_map": "elu"},
    ("cross_attention", "linear"): {"feature_map": "elu"},
    ("feature_map", "random"): {"num_random_features": 128, "feature_seed": 0},
    ("feature_map", "cosine_sine"): {"num_random_features": 128, "feature_seed": 0},
    ("attention_pattern", "random"): {"attention_window": None, "num_random_keys": 3, "attention_seed": 0},
    ("source_kind", "frames"): {"source_width": None, "source_stride": 1},
    ("source_kind", "patches"): {"source_width": None, "source_stride": None},
}

# The least value of each, and in words.
_LEAST: dict[str, tuple[float, str]] = {
    "rotary_base": (1 + 1e-9, "a finite number above 1"),
    "max_relative_distance": (1, "an integer of at least 1"),
    "num_relative_buckets": (4, "a multiple of 4, such as 32"),
    "attention_window": (0, "an integer of at least 0"),
    "attention_stride": (1, "an integer of at least 1"),
    "num_random_keys": (1, "an integer of at least 1"),
    "attention_seed": (0, "an integer of at least 0"),
    "num_random_features": (1, "an integer of at least 1"),
    "feature_seed": (0, "an integer of at least 0"),
    "source_width": (1, "an integer of at least 1, features of a frame or channels of an image"),
    "source_stride": (1, "an integer of at least 1, frames of a position or the side of a patch"),
}


def fill_in(config: Any) -> None:
    """Gives the fields of the chosen variants their values where they are None.

    Args:
        config: a `VanillaTransformerConfig`, changed.
    """
    for (choice, value), own in OWN_FIELDS.items():
        if getattr(config, choice) == value:
            for field, default in own.items():
                if getattr(config, field) is None and default is not None:
                    setattr(config, field, default)


def check_variants(config: Any) -> None:
    """Refuses fields of variants that were not chosen, and values that a variant cannot have.

    Args:
        config: a `VanillaTransformerConfig`.

    Raises:
        ValueError: a value is refused; the message names the field, the value and what is allowed.
    """
    chosen = {field for (choice, value), own in OWN_FIELDS.items() if getattr(config, choice) == value for field in own}
    for field, (least, allowed) in _LEAST.items():
        given = getattr(config, field)
        places = {choice for choice, own in OWN_FIELDS.items() if field in own}
        choice = next(name for name, _ in places)
        if field not in chosen and given is not None:
            fits = " or ".join(repr(value) for (_, value) in OWN_FIELDS if (choice, value) in places)
            raise ValueError(
                f"`{field}`={given} changes nothing with `{choice}`={getattr(config, choice)!r}; allowed: None, or "
                f"`{choice}`={fits}"
            )
        if field in chosen and (given is None or not least <= given < math.inf):
            raise ValueError(
                f"`{field}`={given} is not allowed with `{choice}`={getattr(config, choice)!r}; allowed: {allowed}"
            )
    if config.sinusoid_layout != "interleaved" and config.position_encoding not in ("sinusoidal", "rotary"):
        raise ValueError(
            f"`sinusoid_layout`={config.sinusoid_layout!r} orders nothing with `position_encoding`="
            f"{config.position_encoding!r}; allowed: 'interleaved', or `position_encoding`='sinusoidal' or 'rotary'"
        )
    if config.source_kind != "tokens" and config.source_vocab_size is not None:
        raise ValueError(
            f"`source_vocab_size`={config.source_vocab_size} counts nothing with `source_kind`={config.source_kind!r}, "
            "which has no tokens; allowed: None, or `source_kind`='tokens'"
        )
    linear = [field for field in ("attention", "cross_attention") if getattr(config, field) == "linear"]
    if linear and config.attention_dropout:
        _refuse_scores(config, "attention_dropout", linear[0], allowed=0)
    if config.attention == "linear":
        _check_linear(config)
    if not linear and config.feature_map is not None:
        raise ValueError(
            f"`feature_map`={config.feature_map!r} changes nothing with `attention`={config.attention!r} and "
            f"`cross_attention`={config.cross_attention!r}; allowed: None, or `attention`='linear' or "
            "`cross_attention`='linear'"
        )
    if config.position_encoding == "rotary":
        _check_rotary(config)
    if config.position_encoding == "t5_relative":
        _check_buckets(config)


def _refuse_scores(config: Any, field: str, linear: str, allowed: Any) -> None:
    raise ValueError(
        f"`{field}`={getattr(config, field)!r} acts on single scores, which `{linear}`='linear' does not compute; "
        f"allowed: {allowed!r}, or `{linear}`='softmax'"
    )


def _check_linear(config: Any) -> None:
    """Refuses what acts on single scores of self-attention, of which the linear one has none."""
    if config.attention_pattern != "full":
        _refuse_scores(config, "attention_pattern", "attention", allowed="full")
    if config.position_encoding in ("alibi", "t5_relative", "shaw_relative"):
        raise ValueError(
            f"`position_encoding`={config.position_encoding!r} acts on single scores, which `attention`='linear' does "
            "not compute; allowed: positions that are added to embeddings, 'none', or 'rotary' with some feature maps"
        )
    if config.position_encoding == "rotary" and config.feature_map not in ("random", "cosine_sine"):
        raise ValueError(
            f"`position_encoding`='rotary' turns queries and keys so that their products depend on distances, and "
            f"`feature_map`={config.feature_map!r} of `attention`='linear' does not estimate products; allowed: "
            "`feature_map`='random' or 'cosine_sine'"
        )


def require_tokens(config: Any, what: str) -> None:
    """Refuses a model whose source is not text.

    Args:
        config: of any model.
        what: that which needs text, for the message.

    Raises:
        ValueError: the model reads frames or patches.
    """
    kind = getattr(config, "source_kind", "tokens")
    if kind != "tokens":
        raise ValueError(
            f"{what} needs a model that reads text, and this one has `source_kind`={kind!r}; allowed: 'tokens'"
        )


def _check_rotary(config: Any) -> None:
    if (config.d_k or 0) % 2:
        raise ValueError(
            f"`d_k`={config.d_k} is odd, but `position_encoding`='rotary' turns pairs of dimensions; allowed: an even "
            "`d_k`"
        )
    if config.sinusoid_layout == "concatenated_tensor2tensor":
        raise ValueError(
            "`sinusoid_layout`='concatenated_tensor2tensor' does not say how `position_encoding`='rotary' pairs "
            "dimensions; allowed: 'interleaved' or 'concatenated'"
        )


def _check_buckets(config: Any) -> None:
    buckets, distance = config.num_relative_buckets, config.max_relative_distance
    if buckets % 4:
        raise ValueError(
            f"`num_relative_buckets`={buckets} is not allowed; allowed: {_LEAST['num_relative_buckets'][1]}"
        )
    if distance <= buckets // 2:
        raise ValueError(
            f"`max_relative_distance`={distance} is not allowed; allowed: more than {buckets // 2}, half the buckets"
        )
