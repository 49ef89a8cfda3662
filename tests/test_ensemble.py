"""Several models decode together: against the average of their probabilities, made by hand."""

import pytest
import torch
from test_decoding import EOS, PAD, build, row_of, sources, without_padding

from hf_vanilla_transformer.inference import EnsembleForConditionalGeneration
from hf_vanilla_transformer.inference.ensemble import average_probabilities


def members(vocab_size):
    """Different in weights, width, depth and attention."""
    return [
        build(vocab_size, seed=5, sharpness=1.5),
        build(vocab_size, seed=25, sharpness=1.5, d_model=24, norm_position="pre"),
        build(vocab_size, seed=45, sharpness=1.5, num_decoder_layers=1, attention="linear"),
    ]


@torch.no_grad()
def averaged(models, inputs, prefix):
    """(B, V) mean of the probabilities for what follows."""
    logits = [model(**inputs, decoder_input_ids=prefix, use_cache=False).logits[:, -1] for model in models]
    return torch.stack([each.softmax(-1) for each in logits]).mean(0)


def test_the_average_is_that_of_probabilities():
    logits = [torch.randn(2, 5) for _ in range(3)]
    expected = sum(each.softmax(-1) for each in logits) / 3
    torch.testing.assert_close(average_probabilities(logits).exp(), expected)


def test_greedy_takes_the_argmax_of_the_average():
    models = members(40)
    ensemble = EnsembleForConditionalGeneration(models).eval()
    inputs = sources(models[0], [5, 2, 7])
    ids = torch.zeros(3, 1, dtype=torch.long)
    done = torch.zeros(3, dtype=torch.bool)
    for _ in range(8):
        following = averaged(models, inputs, ids).argmax(-1).masked_fill(done, PAD)
        ids = torch.cat([ids, following[:, None]], dim=1)
        done |= following.eq(EOS)
    for options in ({}, {"use_cache": False}):
        actual = ensemble.generate(**inputs, num_beams=1, max_new_tokens=8, **options)
        assert torch.equal(actual, ids[:, : actual.shape[1]])
    alone = [model.generate(**inputs, num_beams=1, max_new_tokens=8) for model in models]
    assert not any(torch.equal(ids, each) for each in alone)


def test_a_beam_wide_enough_finds_the_best_sequence_of_the_average():
    models = members(5)
    ensemble = EnsembleForConditionalGeneration(models).eval()
    inputs = sources(models[0], [2, 1])
    output = ensemble.generate(**inputs, num_beams=100, max_extra_tokens=2, return_dict_in_generate=True)
    for row, limit in enumerate((4, 3)):
        one, open_ends, finished = row_of(inputs, row), [([], 0.0)], []
        for length in range(1, limit + 1):
            continued = []
            for tokens, total in open_ends:
                log_probs = averaged(models, one, torch.tensor([[0, *tokens]]))[0].double().log()
                for token in range(5):
                    ends = token == EOS or length == limit
                    (finished if ends else continued).append(([*tokens, token], total + log_probs[token].item()))
            open_ends = continued
        tokens, total = max(finished, key=lambda each: each[1] / ((5 + len(each[0])) / 6) ** 0.6)
        assert without_padding(output.sequences[row])[: len(tokens)] == tokens
        expected = total / ((5 + len(tokens)) / 6) ** 0.6
        assert output.sequences_scores[row].item() == pytest.approx(expected, abs=1e-5)


def test_an_ensemble_of_one_or_of_equals_is_the_model():
    model = build(40, seed=4, sharpness=2.5)
    inputs = sources(model, [5, 2, 7])
    for count in (1, 3):
        ensemble = EnsembleForConditionalGeneration([model] * count).eval()
        assert torch.equal(ensemble.generate(**inputs), model.generate(**inputs))


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValueError, match="model 1 has `vocab_size`=41, but model 0 has 40"):
        EnsembleForConditionalGeneration([build(40), build(41)])
    with pytest.raises(ValueError, match="give at least one"):
        EnsembleForConditionalGeneration([])
    ensemble = EnsembleForConditionalGeneration([build(40)]).eval()
    with pytest.raises(NotImplementedError, match="assistant"):
        ensemble.generate(**sources(build(40), [3]), num_beams=1, assistant_model=build(40))


@pytest.mark.parametrize("num_beams", [1, 3])
def test_the_fewest_learned_positions_limit_an_ensemble_wherever_they_stand(num_beams):
    learned = build(40, seed=3, position_encoding="learned", max_position_embeddings=12)
    models = [build(40, seed=5), learned, build(40, seed=6, position_encoding="learned", max_position_embeddings=20)]
    inputs = sources(models[0], [5, 9])
    for order in (models, models[::-1]):
        ensemble = EnsembleForConditionalGeneration(order).eval()
        ids = ensemble.generate(**inputs, num_beams=num_beams, eos_token_id=None)
        assert ids.shape[1] == 12


def test_what_an_ensemble_does_not_know_or_cannot_do_is_refused():
    ensemble = EnsembleForConditionalGeneration(members(20)).eval()
    inputs = {**sources(ensemble, [4]), "decoder_input_ids": torch.zeros(1, 1, dtype=torch.long)}
    with pytest.raises(TypeError, match=r"EnsembleForConditionalGeneration.forward\(\) does not know `past_keys`"):
        ensemble(**inputs, past_keys=1)
    refused = (
        {"use_cache": True},
        {"output_hidden_states": True},
        {"return_dict": False},
        {"kernel_options": {"a": 1}},
    )
    with pytest.raises(ValueError, match="an ensemble does not support output_hidden_states"):
        ensemble.generate(inputs["input_ids"], output_hidden_states=True, max_new_tokens=2)
    for options in refused:
        with pytest.raises(ValueError, match=f"an ensemble does not support {next(iter(options))}"):
            ensemble(**inputs, **options)


def test_attention_is_averaged_whatever_the_implementation():
    """Each member writes its attention out for this call; nobody's implementation is changed."""
    models = members(20)
    ensemble = EnsembleForConditionalGeneration(models).eval()
    inputs = {**sources(ensemble, [4, 3]), "decoder_input_ids": torch.tensor([[0, 7], [0, 8]])}
    (attention,) = ensemble(**inputs, output_attentions=True).cross_attentions
    assert attention.shape == (2, 1, 2, 4)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 1, 2))
    assert {model.config._attn_implementation for model in models} == {"sdpa"}
