"""Our model against transformers' MarianMTModel with the same weights: the same formula, written by others."""

import pytest
import torch
from parity import assert_near, copy_weights, paired_gradients, random_lengths, randomise
from torch import nn
from transformers import GenerationConfig, MarianConfig, MarianMTModel

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.interop.marian import MARIAN_NAMES

SEEDS = range(3)
V = 24
EOS, PAD = 0, V - 1  # Marian's habits; the decoder starts with <pad>
B, S, T = 4, 11, 9


def model_pair(
    seed: int,
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
    label_smoothing: float = 0.0,
) -> tuple[VanillaTransformerForConditionalGeneration, MarianMTModel]:
    """Two models of equal shape and weights, with norms, biases and embeddings that are all random."""
    config = VanillaTransformerConfig(
        vocab_size=V,
        d_model=16,
        num_heads=4,
        d_ff=24,
        dropout=0.0,
        num_encoder_layers=2,
        num_decoder_layers=3,
        label_smoothing=label_smoothing,
        sinusoid_layout="concatenated",
        attention_bias=True,
        layer_norm_eps=1e-5,
        bos_token_id=None,
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=PAD,
    )
    marian_config = MarianConfig(
        vocab_size=V,
        max_position_embeddings=64,
        d_model=16,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        encoder_layers=2,
        decoder_layers=3,
        dropout=0.0,
        activation_function="relu",
        scale_embedding=True,
        pad_token_id=PAD,
        eos_token_id=EOS,
        forced_eos_token_id=None,  # ours ends where it wants to
        decoder_start_token_id=PAD,
    )
    config._attn_implementation = attention
    marian_config._attn_implementation = attention
    ours, theirs = VanillaTransformerForConditionalGeneration(config), MarianMTModel(marian_config)
    ours.generation_config = GenerationConfig.from_model_config(config)  # transformers' defaults, as theirs
    randomise(ours, seed)
    copy_weights(ours, theirs, MARIAN_NAMES)
    for module in theirs.modules():
        if isinstance(module, nn.Embedding):
            # Marian never trains the embedding of <pad>, although its decoder starts with it; ours is trained.
            module.padding_idx = None
    return ours.to(dtype).eval(), theirs.to(dtype).eval()


def random_batch(seed: int) -> dict[str, torch.Tensor]:
    """Sources and labels of different lengths, padded on the right: Marian counts padding on the left as positions."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(1, PAD, (B, S), generator=generator)
    labels = torch.randint(1, PAD, (B, T), generator=generator)
    for row, (source_length, target_length) in enumerate(
        zip(random_lengths(B, S, generator), random_lengths(B, T, generator)[::-1], strict=True)
    ):
        source[row, source_length - 1] = labels[row, target_length - 1] = EOS
        source[row, source_length:] = PAD
        labels[row, target_length:] = -100
    labels[0, T // 2] = -100  # in the midst of a target, where later positions read the <pad> that replaces it
    return {"input_ids": source, "attention_mask": source.ne(PAD).long(), "labels": labels}


def decoding_inputs(seed: int) -> dict[str, torch.Tensor]:
    batch = random_batch(seed)
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


# Marian's sinusoids stay float32 numbers in a float64 model, as ours do, and they are the same numbers to the last bit.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("seed", SEEDS)
def test_states_logits_loss_and_gradients_equal_marian(seed, attention, dtype, tolerance):
    ours, theirs = model_pair(seed, dtype, attention)
    batch = random_batch(seed)
    actual, expected = (
        model(**batch, output_hidden_states=True, output_attentions=attention == "eager") for model in (ours, theirs)
    )
    # A masked position has another number in our counting than in theirs, and nobody attends to it.
    is_token = batch["attention_mask"].bool()
    for index, (our_state, their_state) in enumerate(
        zip(actual.encoder_hidden_states, expected.encoder_hidden_states, strict=True)
    ):
        assert_near(our_state[is_token], their_state[is_token], tolerance, f"encoder state {index}")
    for index, (our_state, their_state) in enumerate(
        zip(actual.decoder_hidden_states, expected.decoder_hidden_states, strict=True)
    ):
        assert_near(our_state, their_state, tolerance, f"decoder state {index}")
    if attention == "eager":
        for kind in ("decoder_attentions", "cross_attentions"):
            for our_weights, their_weights in zip(actual[kind], expected[kind], strict=True):
                assert_near(our_weights, their_weights, tolerance, kind)
    assert_near(actual.logits, expected.logits, tolerance, "logits")
    assert_near(actual.loss, expected.loss, tolerance, "loss")

    # While training, ours never makes the logits; the loss and its gradients have to be the same all the same.
    trained = ours.train()(**batch)
    assert trained.logits is None
    assert_near(trained.loss, expected.loss, tolerance, "loss in training")
    trained.loss.backward()
    expected.loss.backward()
    for name, our_gradient, their_gradient in paired_gradients(ours, theirs, MARIAN_NAMES):
        assert_near(our_gradient, their_gradient, tolerance, f"gradient of {name}")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("seed", SEEDS)
def test_smoothed_loss_and_gradients_equal_cross_entropy_on_marian_logits(seed, dtype, tolerance):
    ours, theirs = model_pair(seed, dtype, label_smoothing=0.1)
    batch = random_batch(seed)
    actual, expected = ours.train()(**batch), theirs(**batch)
    smoothed = nn.functional.cross_entropy(
        expected.logits.flatten(0, 1), batch["labels"].flatten(), label_smoothing=0.1
    )
    assert_near(actual.loss, smoothed, tolerance, "smoothed loss")
    assert_near(actual.nll_loss, expected.loss, tolerance, "unsmoothed loss")
    actual.loss.backward()
    smoothed.backward()
    for name, our_gradient, their_gradient in paired_gradients(ours, theirs, MARIAN_NAMES):
        assert_near(our_gradient, their_gradient, tolerance, f"gradient of {name}")


@pytest.mark.parametrize("tokens_at_a_time", [1, 2])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("seed", SEEDS)
@torch.no_grad()
def test_cached_steps_equal_marians_steps_and_the_full_forward(seed, attention, tokens_at_a_time):
    ours, theirs = model_pair(seed, attention=attention)
    inputs = decoding_inputs(seed)
    target = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))
    full = ours(**inputs, decoder_input_ids=target).logits
    encoded = {model: model.get_encoder()(**inputs) for model in (ours, theirs)}
    caches = dict.fromkeys((ours, theirs))
    for start in range(0, T, tokens_at_a_time):
        step = slice(start, start + tokens_at_a_time)
        logits = {}
        for model in (ours, theirs):
            outputs = model(
                encoder_outputs=encoded[model],
                attention_mask=inputs["attention_mask"],
                decoder_input_ids=target[:, step],
                past_key_values=caches[model],
                use_cache=True,
            )
            caches[model], logits[model] = outputs.past_key_values, outputs.logits
            assert caches[model].get_seq_length() == min(start + tokens_at_a_time, T)
        assert_near(logits[ours], logits[theirs], 1e-5, f"logits from {start}, against Marian")
        assert_near(logits[ours], full[:, step], 1e-5, f"logits from {start}, against the full forward")


# An untrained model repeats itself for ever. Forbidden to use a token twice, it wanders, and ends at some point.
WANDERING = {"no_repeat_ngram_size": 1, "suppress_tokens": [PAD], "max_new_tokens": V}


@pytest.mark.parametrize("options", [WANDERING, {"max_new_tokens": 8}], ids=["wandering", "plain"])
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_greedy_ids_equal_marian(seed, use_cache, options):
    ours, theirs = model_pair(seed)
    inputs = decoding_inputs(seed)
    actual, expected = (model.generate(**inputs, use_cache=use_cache, **options) for model in (ours, theirs))
    assert torch.equal(actual, expected)
    assert options is not WANDERING or has_several_lengths(actual)


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_beam_search_ids_and_scores_equal_marian(seed, early_stopping, length_penalty):
    ours, theirs = model_pair(seed)
    inputs = decoding_inputs(seed)
    actual, expected = (
        model.generate(
            **inputs,
            **WANDERING,
            num_beams=4,
            num_return_sequences=4,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            return_dict_in_generate=True,
            output_scores=True,
        )
        for model in (ours, theirs)
    )
    assert torch.equal(actual.sequences, expected.sequences)
    assert has_several_lengths(actual.sequences) or length_penalty > 1  # which makes all as long as can be
    assert_near(actual.sequences_scores, expected.sequences_scores, 1e-5, "scores of the hypotheses")


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_sampled_ids_equal_marian_with_the_same_random_numbers(seed, num_beams):
    ours, theirs = model_pair(seed)
    inputs = decoding_inputs(seed)
    sequences = []
    for model in (ours, theirs):
        torch.manual_seed(seed)
        sequences.append(
            model.generate(**inputs, **WANDERING, do_sample=True, top_k=0, temperature=2.0, num_beams=num_beams)
        )
    assert torch.equal(*sequences)
    assert has_several_lengths(sequences[0])


def has_several_lengths(sequences: torch.Tensor) -> bool:
    """Whether hypotheses end at different places; otherwise equal ids would say little about how a search ends."""
    ends = sequences.eq(EOS).int().argmax(dim=-1)
    return ends.unique().numel() > 1
