"""Table 3: its rows, each by what differs from the base model (§3); a model for little text; and gated networks."""

from typing import Any

_BIG = {"d_model": 1024, "d_ff": 4096, "num_heads": 16, "dropout": 0.3}
_TINY = {
    "d_model": 128,
    "d_ff": 256,
    "num_heads": 4,
    "num_encoder_layers": 4,
    "num_decoder_layers": 4,
    "dropout": 0.3,
}
_SWIGLU = {"feed_forward": "gated", "activation_function": "silu"}

PRESETS: dict[str, dict[str, Any]] = {
    # The changes of each preset to the defaults, which are the base model of Table 3. Keys are fields of the config.
    "base": {},
    "big": _BIG,
    "tiny": _TINY,  # not in the paper: the smallest model that learns a small corpus on a laptop
    # Shazeer, 2020: three matrices for two and their biases, so that two thirds of d_ff give as many parameters.
    "base_swiglu": {**_SWIGLU, "d_ff": 1367},
    "big_swiglu": {**_BIG, **_SWIGLU, "d_ff": 2732},
    "tiny_swiglu": {**_TINY, **_SWIGLU, "d_ff": 172},
    "table3_A_h1": {"num_heads": 1, "d_k": 512, "d_v": 512},
    "table3_A_h4": {"num_heads": 4, "d_k": 128, "d_v": 128},
    "table3_A_h16": {"num_heads": 16, "d_k": 32, "d_v": 32},
    "table3_A_h32": {"num_heads": 32, "d_k": 16, "d_v": 16},
    "table3_B_dk16": {"d_k": 16},
    "table3_B_dk32": {"d_k": 32},
    "table3_C_N2": {"num_encoder_layers": 2, "num_decoder_layers": 2},
    "table3_C_N4": {"num_encoder_layers": 4, "num_decoder_layers": 4},
    "table3_C_N8": {"num_encoder_layers": 8, "num_decoder_layers": 8},
    "table3_C_dmodel256": {"d_model": 256, "d_k": 32, "d_v": 32},
    "table3_C_dmodel1024": {"d_model": 1024, "d_k": 128, "d_v": 128},
    "table3_C_dff1024": {"d_ff": 1024},
    "table3_C_dff4096": {"d_ff": 4096},
    "table3_D_dropout0.0": {"dropout": 0.0},
    "table3_D_dropout0.2": {"dropout": 0.2},
    "table3_D_smoothing0.0": {"label_smoothing": 0.0},
    "table3_D_smoothing0.2": {"label_smoothing": 0.2},
    "table3_E_learned": {"position_encoding": "learned", "num_learned_positions": 1024},
}

__all__ = ["PRESETS"]
