"""Every variant of the model as the fields that make it, for tests that hold for all of them."""

VARIANTS = {
    "rms_norm": {"norm": "rms_norm"},
    "scale_norm": {"norm": "scale_norm", "norm_position": "pre"},
    "sandwich": {"norm_position": "sandwich", "norm": "rms_norm"},
    "swiglu": {"feed_forward": "gated", "activation_function": "silu"},
    "grouped_keys": {"num_key_value_heads": 2},
    "multi_query": {"num_key_value_heads": 1, "d_k": 6, "d_v": 10},
    "rotary": {"position_encoding": "rotary"},
    "rotary_halves": {"position_encoding": "rotary", "sinusoid_layout": "concatenated", "rotary_base": 100},
    "alibi": {"position_encoding": "alibi"},
    "t5_relative": {"position_encoding": "t5_relative", "num_relative_buckets": 8, "max_relative_distance": 12},
    "shaw_relative": {"position_encoding": "shaw_relative", "max_relative_distance": 3},
    "embedding_norm": {"embedding_norm": True},
    "local": {"attention_pattern": "local", "attention_window": 2},
    "strided": {"attention_pattern": "strided", "attention_window": 1, "attention_stride": 3},
    "local_global": {"attention_pattern": "local_global", "attention_window": 1, "attention_stride": 4},
    "random": {"attention_pattern": "random", "attention_window": 0, "num_random_keys": 1, "attention_seed": 7},
    "linear": {"attention": "linear"},
    "linear_relu": {"attention": "linear", "feature_map": "relu"},
    "linear_random": {"attention": "linear", "feature_map": "random", "num_random_features": 9, "feature_seed": 5},
    # In more dimensions sums of waves may be small differences of large numbers, and float32 leaves few digits of them.
    "linear_waves": {"attention": "linear", "feature_map": "cosine_sine", "num_random_features": 64, "d_k": 2},
    "linear_rotary": {
        "attention": "linear",
        "feature_map": "random",
        "num_random_features": 8,
        "position_encoding": "rotary",
        "num_key_value_heads": 2,
    },
    "cross": {"cross_attention": "linear"},
    "cross_rotary": {
        "cross_attention": "linear",
        "feature_map": "random",
        "num_random_features": 9,
        "position_encoding": "rotary",
        "num_key_value_heads": 2,
    },
    "linear_cross": {"attention": "linear", "cross_attention": "linear", "feature_map": "relu", "d_k": 6, "d_v": 10},
    "many": {
        "position_encoding": "shaw_relative",
        "num_key_value_heads": 2,
        "norm": "rms_norm",
        "norm_position": "pre",
        "feed_forward": "gated",
        "activation_function": "gelu",
        "attention_pattern": "strided",
        "attention_window": 1,
        "attention_stride": 2,
    },
    "t5_grouped": {"position_encoding": "t5_relative", "num_key_value_heads": 1, "norm": "rms_norm"},
}

# Those of one stack alone, which attends over no other.
OF_ONE_STACK = {name: fields for name, fields in VARIANTS.items() if "cross_attention" not in fields}
