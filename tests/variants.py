"""Every variant of the model as the fields that make it, for tests that hold for all of them."""

VARIANTS = {
    "rms_norm": {"norm": "rms_norm"},
    "scale_norm": {"norm": "scale_norm", "norm_position": "pre"},
    "swiglu": {"feed_forward": "gated", "activation_function": "silu"},
    "grouped_keys": {"num_key_value_heads": 2},
    "multi_query": {"num_key_value_heads": 1, "d_k": 6, "d_v": 10},
    "rotary": {"position_encoding": "rotary"},
    "rotary_halves": {"position_encoding": "rotary", "sinusoid_layout": "concatenated", "rotary_base": 100},
    "alibi": {"position_encoding": "alibi"},
    "t5_relative": {"position_encoding": "t5_relative", "num_relative_buckets": 8, "max_relative_distance": 12},
    "shaw_relative": {"position_encoding": "shaw_relative", "max_relative_distance": 3},
    "many": {
        "position_encoding": "shaw_relative",
        "num_key_value_heads": 2,
        "norm": "rms_norm",
        "norm_position": "pre",
        "feed_forward": "gated",
        "activation_function": "gelu",
    },
    "t5_grouped": {"position_encoding": "t5_relative", "num_key_value_heads": 1, "norm": "rms_norm"},
}
