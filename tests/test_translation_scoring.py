"""Forced decoding: against the softmax of one prefix at a time, for our models, ensembles and MarianMT."""

import pytest
import torch
from test_decoding import EOS, PAD, build, sources
from transformers import MarianConfig, MarianMTModel

from hf_vanilla_transformer import translation_scoring as forced_scoring
from hf_vanilla_transformer.inference import EnsembleForConditionalGeneration
from hf_vanilla_transformer.translation_scoring import alignment_attention, forced_log_probs, forced_pass, shift_right

LABELS = torch.tensor([[7, 8, 9, EOS], [5, EOS, -100, -100], [PAD, 6, EOS, -100]])


def marian():
    config = MarianConfig(
        vocab_size=40, d_model=16, encoder_layers=2, decoder_layers=3, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, pad_token_id=PAD, eos_token_id=EOS,
        decoder_start_token_id=PAD, dropout=0.0,
    )  # fmt: skip
    config._attn_implementation = "eager"  # the only one that returns its attention
    model = MarianMTModel(config).eval()
    torch.nn.init.normal_(model.final_logits_bias)
    return model


def models():
    first, second = build(40, seed=5), build(40, seed=25, d_model=24, num_decoder_layers=1)
    return {
        "ours": first,
        "pre-norm": build(40, seed=3, norm_position="pre"),
        "one layer": second,
        "ensemble": EnsembleForConditionalGeneration([first, second]).eval(),
        "marian": marian(),
    }


NAMES = ["ours", "pre-norm", "one layer", "ensemble", "marian"]


@torch.no_grad()
def one_prefix_at_a_time(model, inputs, labels):
    """(B, T): the start token and the labels before each are given to the model as a sentence of its own."""
    expected = torch.zeros(labels.shape)
    for row, sentence in enumerate(labels.tolist()):
        tokens = [token for token in sentence if token != -100]
        length = int(inputs["attention_mask"][row].sum())
        source = inputs["input_ids"][row : row + 1, :length]
        for place, token in enumerate(tokens):
            prefix = torch.tensor([[model.config.decoder_start_token_id, *tokens[:place]]])
            logits = model(input_ids=source, decoder_input_ids=prefix, use_cache=False).logits[0, -1]
            expected[row, place] = logits.double().softmax(-1)[token].log()
    return expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", [2**26, 1])
def test_each_token_is_scored_as_after_its_prefix_alone(name, limit, monkeypatch):
    monkeypatch.setattr(forced_scoring, "_MAX_LOGITS", limit)
    model = models()[name]
    inputs = sources(build(40), [5, 2, 7])
    with torch.no_grad():
        actual = forced_log_probs(model, inputs["input_ids"], inputs["attention_mask"], LABELS)
    torch.testing.assert_close(actual, one_prefix_at_a_time(model, inputs, LABELS), atol=2e-6, rtol=1e-5)
    assert actual[LABELS == -100].eq(0).all()
    assert actual[LABELS != -100].lt(0).all()


@pytest.mark.parametrize("name", NAMES)
def test_attention_is_a_distribution_over_the_source_and_changes_no_score(name):
    model = models()[name]
    inputs = sources(build(40), [5, 2, 7])
    implementations = [part.config._attn_implementation for part in model.modules() if hasattr(part, "config")]
    arguments = (model, inputs["input_ids"], inputs["attention_mask"], shift_right(model, LABELS), LABELS)
    with torch.no_grad():
        log_probs, attention = forced_pass(*arguments, with_attention=True)
        torch.testing.assert_close(log_probs, forced_pass(*arguments)[0])
    assert attention.shape == (3, 4, 7)
    torch.testing.assert_close(attention.sum(-1), torch.ones(3, 4))
    assert attention.masked_select(inputs["attention_mask"].eq(0)[:, None].expand_as(attention)).eq(0).all()
    after = [part.config._attn_implementation for part in model.modules() if hasattr(part, "config")]
    assert after == implementations
    assert ("sdpa" in implementations) == (name != "marian")


def test_attention_of_a_model_that_returns_none_is_refused_with_what_to_do():
    model = marian()
    model.set_attn_implementation("sdpa")
    source = torch.tensor([[5, 6, EOS]])
    with pytest.raises(
        ValueError, match="a MarianMTModel with `attn_implementation`='sdpa' returns no attention; load"
    ):
        forced_pass(model, source, None, source, source, with_attention=True)


def test_alignments_come_from_the_last_layer_but_one_and_all_of_its_heads():
    layers = [torch.rand(2, 3, 4, 5) for _ in range(3)]
    torch.testing.assert_close(alignment_attention(layers), sum(layers[1].unbind(1)) / 3)
    torch.testing.assert_close(alignment_attention(layers[:1]), layers[0].mean(1))


def test_the_attention_of_an_ensemble_is_the_mean_of_its_members():
    members = [build(40, seed=5), build(40, seed=25, num_decoder_layers=1), build(40, seed=6, d_model=24)]
    inputs = sources(members[0], [5, 2, 7])

    def attention(model):
        with torch.no_grad():
            arguments = (inputs["input_ids"], inputs["attention_mask"], shift_right(model, LABELS), LABELS)
            return forced_pass(model, *arguments, with_attention=True)[1]

    expected = sum(attention(model) for model in members) / 3
    torch.testing.assert_close(attention(EnsembleForConditionalGeneration(members).eval()), expected)


def test_gradients_are_kept():
    model = build(40)
    inputs = sources(model, [5, 2, 7])
    log_probs = forced_log_probs(model, inputs["input_ids"], None, LABELS)
    expected = model(**inputs, labels=LABELS, return_logits=True).nll_loss
    torch.testing.assert_close(-log_probs.sum() / LABELS.ne(-100).sum(), expected)
    log_probs.sum().backward()
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0


def test_a_model_without_a_start_token_is_refused():
    model = build(40)
    model.config.decoder_start_token_id = None
    with pytest.raises(ValueError, match="`decoder_start_token_id`=None"):
        shift_right(model, LABELS)
