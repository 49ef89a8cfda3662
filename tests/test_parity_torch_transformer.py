"""Our encoder and decoder against torch.nn.Transformer with the same weights: hidden states and gradients."""

import math

import pytest
import torch
from parity import assert_near, copy_weights, paired_gradients, randomise
from torch import nn

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerModel
from hf_vanilla_transformer.interop.torch_transformer import TORCH_NAMES
from hf_vanilla_transformer.positions import sinusoids

# As the reference below calls its two parts.
NAMES = {r"^encoder\.embed_tokens\.weight": "embedding", **TORCH_NAMES, r"^(encoder|decoder)\.": r"transformer.\1."}

B, S, T = 3, 9, 7

# In float64 only rounding is left: a wrong formula cannot hide below 1e-12. Float32 is what users run.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}


class TorchReference(nn.Module):
    """torch.nn.Transformer on embedded tokens; the padding masks are turned around, as torch wants them."""

    def __init__(self, config: VanillaTransformerConfig, dtype: torch.dtype) -> None:
        super().__init__()
        shape = {
            "d_model": config.d_model,
            "nhead": config.num_heads,
            "dim_feedforward": config.d_ff,
            "dropout": 0.0,
            "activation": config.activation_function,
            "layer_norm_eps": config.layer_norm_eps,
            "batch_first": True,
            "norm_first": config.norm_position == "pre",
            "dtype": dtype,
        }

        def stack_norm() -> nn.Module | None:
            # nn.Transformer always ends its stacks with a norm; after post-norm layers the paper has none.
            if config.norm_position == "post":
                return None
            return nn.LayerNorm(config.d_model, eps=config.layer_norm_eps, dtype=dtype)

        self.transformer = nn.Transformer(
            custom_encoder=nn.TransformerEncoder(
                nn.TransformerEncoderLayer(**shape),
                config.num_encoder_layers,
                norm=stack_norm(),
                enable_nested_tensor=False,
            ),
            custom_decoder=nn.TransformerDecoder(
                nn.TransformerDecoderLayer(**shape), config.num_decoder_layers, norm=stack_norm()
            ),
            **shape,
        )
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.d_model, dtype=dtype))

    def forward(
        self,
        source: torch.Tensor,
        source_mask: torch.Tensor,
        source_positions: torch.Tensor,
        target: torch.Tensor,
        target_mask: torch.Tensor,
        target_positions: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        outputs: dict[str, torch.Tensor] = {}
        parts = {"encoder": self.transformer.encoder, "decoder": self.transformer.decoder}
        for side in ("encoder", "decoder"):
            parts.update({f"{side} layer {index}": layer for index, layer in enumerate(parts[side].layers)})
        hooks = [
            part.register_forward_hook(lambda _module, _args, output, name=name: outputs.update({name: output}))
            for name, part in parts.items()
        ]
        scale = math.sqrt(self.embedding.shape[1])
        self.transformer(
            self.embedding[source] * scale + source_positions,
            self.embedding[target] * scale + target_positions,
            tgt_mask=torch.ones(target.shape[1], target.shape[1], dtype=torch.bool).triu(1),
            src_key_padding_mask=~source_mask,
            tgt_key_padding_mask=~target_mask,
            memory_key_padding_mask=~source_mask,
        )
        for hook in hooks:
            hook.remove()
        return outputs


def random_batch(vocab_size: int, padded: bool, seed: int) -> dict[str, torch.Tensor]:
    """Padding anywhere, but for the first target token: torch gives NaN to a position that sees nothing."""
    generator = torch.Generator().manual_seed(seed)
    share_of_tokens = 0.6 if padded else 1.0
    source_mask = torch.rand(B, S, generator=generator) < share_of_tokens
    source_mask[torch.arange(B), torch.randint(S, (B,), generator=generator)] = True
    target_mask = torch.rand(B, T, generator=generator) < share_of_tokens
    target_mask[:, 0] = True
    return {
        "source": torch.randint(vocab_size, (B, S), generator=generator),
        "source_mask": source_mask,
        "target": torch.randint(vocab_size, (B, T), generator=generator),
        "target_mask": target_mask,
    }


def positions_by_counting(mask: torch.Tensor) -> torch.Tensor:
    """(B, L): the number of the token that stands there, or of the last one before it."""
    return torch.tensor(
        [[max(sum(row[: index + 1]) - 1, 0) for index in range(len(row))] for row in mask.tolist()], dtype=torch.long
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("padded", "seed"), [(True, 0), (True, 1), (False, 2)])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("norm_position", "attention_bias", "activation"),
    [("post", False, "relu"), ("post", True, "gelu"), ("pre", False, "gelu"), ("pre", True, "relu")],
)
def test_hidden_states_and_gradients_equal_torch_nn_transformer(
    norm_position, attention_bias, activation, attention, padded, seed, dtype
):
    config = VanillaTransformerConfig(
        vocab_size=23,
        pad_token_id=None,  # here masks alone say what is padding
        d_model=16,
        num_heads=4,
        d_ff=24,
        num_encoder_layers=2,
        num_decoder_layers=3,
        dropout=0.0,
        norm_position=norm_position,
        attention_bias=attention_bias,
        activation_function=activation,
    )
    config._attn_implementation = attention
    ours = VanillaTransformerModel(config)
    randomise(ours, seed)
    ours.to(dtype).train()
    # Training mode keeps torch off its inference fast path, which has another arithmetic.
    theirs = TorchReference(config, dtype).train()
    no_bias = r"in_proj_bias$|out_proj\.bias$" if not attention_bias else r"(?!)"
    copy_weights(ours, theirs, NAMES, absent_in_ours=no_bias)

    batch = random_batch(config.vocab_size, padded, seed)
    source_mask, target_mask = batch["source_mask"], batch["target_mask"]
    # Without padding no mask at all is passed, and attention takes its other path.
    actual = ours(
        input_ids=batch["source"],
        attention_mask=source_mask if padded else None,
        decoder_input_ids=batch["target"],
        decoder_attention_mask=target_mask if padded else None,
        output_hidden_states=True,
    )
    # Both get the same sinusoids; that these are the paper's is proved against the formula, elsewhere.
    expected = theirs(
        **batch,
        source_positions=sinusoids(positions_by_counting(source_mask), config.d_model).to(dtype),
        target_positions=sinusoids(positions_by_counting(target_mask), config.d_model).to(dtype),
    )

    tolerance = TOLERANCES[dtype]
    assert_near(actual.encoder_last_hidden_state, expected["encoder"], tolerance, "encoder output")
    assert_near(actual.last_hidden_state, expected["decoder"], tolerance, "decoder output")
    # The last recorded state of a stack is not that of its last layer but the output, which was just compared.
    for index in range(config.num_encoder_layers - 1):
        assert_near(
            actual.encoder_hidden_states[index + 1], expected[f"encoder layer {index}"], tolerance, "encoder layer"
        )
    for index in range(config.num_decoder_layers - 1):
        assert_near(
            actual.decoder_hidden_states[index + 1], expected[f"decoder layer {index}"], tolerance, "decoder layer"
        )

    # A random weighting, so that no part of a gradient cancels out (a plain sum over a layer norm's output would).
    generator = torch.Generator().manual_seed(100 + seed)
    weighting = torch.randn(B, T, config.d_model, generator=generator).to(dtype)
    (actual.last_hidden_state * weighting).sum().backward()
    (expected["decoder"] * weighting).sum().backward()
    for name, our_gradient, their_gradient in paired_gradients(ours, theirs, NAMES):
        assert_near(our_gradient, their_gradient, tolerance, f"gradient of {name}")
