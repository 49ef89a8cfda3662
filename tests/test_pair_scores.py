"""Forced scoring of text: against one prefix at a time in double precision, the loss, and generate()."""

import copy
import json
import math

import pytest
import torch

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.evaluation import PairScore, ScoreTotals, label_likelihood, score_pairs
from hf_vanilla_transformer.inference import EnsembleForConditionalGeneration

PAIRS = [
    ("a b c", "A B C"),
    ("", ""),
    ("a", ""),
    ("", "A"),
    (" \t", "B B B B B B B B B"),
    ("c b a a b c a b c", "C B"),
    ("b", "a \u2028 \U0001f600"),
    ("a b c", "</s> <pad>"),
    ("a b c", "A B C"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=["a b c", "A B C"], vocab_size=262)


def build(tokenizer, seed=1, **fields):
    torch.manual_seed(seed)
    shape = {"d_model": 16, "num_heads": 2, "d_ff": 32, "num_encoder_layers": 1, "num_decoder_layers": 1}
    config = VanillaTransformerConfig(vocab_size=len(tokenizer), **{**shape, **fields})
    model = VanillaTransformerForConditionalGeneration(config).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(2)
    return model


@pytest.fixture(scope="module")
def model(tokenizer):
    return build(tokenizer)


@torch.no_grad()
def one_prefix_at_a_time(models, tokenizer, source, target):
    """Log-probability of each token: the mean of the models' probabilities after each prefix, in float64."""
    models = [copy.deepcopy(model).double().eval() for model in models]
    ids = torch.tensor([tokenizer(source, split_special_tokens=True)["input_ids"]])
    prefix, log_probs = [models[0].config.decoder_start_token_id], []
    for token in tokenizer(text_target=target, split_special_tokens=True)["input_ids"]:
        logits = [model(input_ids=ids, decoder_input_ids=torch.tensor([prefix])).logits[0, -1] for model in models]
        log_probs.append(sum(each.softmax(-1)[token] for each in logits).div(len(models)).log().item())
        prefix.append(token)
    return log_probs


@pytest.mark.parametrize("batch_tokens", [1, 7, 30, 4096])
def test_each_token_has_the_log_probability_of_its_prefix_whatever_the_batches(model, tokenizer, batch_tokens):
    scores = list(score_pairs(model, tokenizer, PAIRS, batch_tokens))
    assert len(scores) == len(PAIRS)
    for score, (source, target) in zip(scores, PAIRS):
        expected = one_prefix_at_a_time([model], tokenizer, source, target)
        assert score.token_log_probs == pytest.approx(expected, abs=1e-5)
        ids = tokenizer(text_target=target, split_special_tokens=True)["input_ids"]
        assert list(score.tokens) == tokenizer.convert_ids_to_tokens(ids)
        assert score.log_prob == pytest.approx(math.fsum(expected), abs=1e-5)
        assert score.perplexity == pytest.approx(math.exp(-math.fsum(expected) / len(expected)), rel=1e-5)
        assert score.nats_per_character == pytest.approx(-math.fsum(expected) / (len(target) + 1), rel=1e-5)
        assert score.has_empty_side == (not source.strip() or not target.strip())
    assert len({score.log_prob for score in scores}) == len(PAIRS) - 1  # one pair is there twice


def test_an_ensemble_averages_probabilities(model, tokenizer):
    other = build(tokenizer, seed=2, d_model=24, norm_position="pre")
    scores = score_pairs(EnsembleForConditionalGeneration([model, other]).eval(), tokenizer, PAIRS)
    for score, (source, target) in zip(scores, PAIRS):
        expected = one_prefix_at_a_time([model, other], tokenizer, source, target)
        assert score.token_log_probs == pytest.approx(expected, abs=1e-5)


def test_totals_are_those_of_the_loss(model, tokenizer):
    totals = ScoreTotals()
    for score in score_pairs(model, tokenizer, PAIRS):
        totals.add(score)
    examples = [dict(tokenizer(source, text_target=target, split_special_tokens=True)) for source, target in PAIRS]
    likelihood = label_likelihood(model, examples)
    assert (totals.num_pairs, totals.num_tokens) == (len(PAIRS), likelihood.num_tokens)
    assert totals.nll == pytest.approx(likelihood.nll, rel=1e-6)
    assert totals.perplexity == pytest.approx(likelihood.perplexity, rel=1e-6)
    assert totals.num_characters == sum(len(target) + 1 for _, target in PAIRS)
    assert totals.num_empty == 4
    assert "9 pairs (4 with an empty side)" in totals.describe()
    assert f"perplexity {likelihood.perplexity:.3f}" in totals.describe()
    assert totals.as_dict()["nats_per_token"] == pytest.approx(likelihood.nll_per_token, rel=1e-6)


def test_a_translation_has_the_score_that_the_search_gave_it(model, tokenizer):
    model.eval()
    inputs = tokenizer("a b c", return_tensors="pt")
    # Tokens of plain letters only: other bytes in a row need not be a text.
    letters = {tokenizer.eos_token_id, *tokenizer("A B C")["input_ids"]}
    others = [[token] for token in range(len(tokenizer)) if token not in letters]
    output = model.generate(
        **inputs, num_beams=4, num_return_sequences=4, max_new_tokens=5, bad_words_ids=others,
        return_dict_in_generate=True,
    )  # fmt: skip
    for ids, score in zip(output.sequences.tolist(), output.sequences_scores.tolist()):
        ids = ids[1 : ids.index(tokenizer.eos_token_id) + 1] if tokenizer.eos_token_id in ids else ids[1:]
        (scored,) = score_pairs(model, tokenizer, [("a b c", tokenizer.decode(ids, skip_special_tokens=True))])
        assert list(scored.tokens[: len(ids)]) == tokenizer.convert_ids_to_tokens(ids)
        expected = score * ((5 + len(ids)) / 6) ** model.generation_config.gnmt_length_penalty
        assert math.fsum(scored.token_log_probs[: len(ids)]) == pytest.approx(expected, abs=1e-5)


def test_a_stream_is_read_one_window_ahead_and_windows_change_nothing(model, tokenizer):
    expected = list(score_pairs(model, tokenizer, PAIRS))
    read = []
    stream = score_pairs(model, tokenizer, (read.append(pair) or pair for pair in PAIRS), read_ahead=2)
    first = next(stream)
    assert len(read) == 2
    for score, other in zip([first, *stream], expected, strict=True):
        assert score.token_log_probs == pytest.approx(other.token_log_probs, abs=1e-5)
        assert score.tokens == other.tokens
    assert list(score_pairs(model, tokenizer, [])) == []


class WithoutEnd:
    """A tokenizer that ends no text."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.convert_ids_to_tokens = tokenizer.convert_ids_to_tokens

    def __call__(self, *texts, **named):
        return {"input_ids": [ids[:-1] for ids in self.tokenizer(*texts, **named)["input_ids"]]}


def test_what_has_no_token_is_certain_as_a_translation_and_refused_as_a_source(model, tokenizer):
    plain = WithoutEnd(tokenizer)
    first, empty = score_pairs(model, plain, [("a", "A B"), ("a", "")])
    assert first.num_tokens == 3  # a space is one
    assert (empty.log_prob, empty.num_tokens, empty.tokens, empty.nats_per_token) == (0.0, 0, (), 0.0)
    with pytest.raises(ValueError, match="pair 2 .* no token of the source"):
        list(score_pairs(model, plain, [("a", "A"), ("b", "B"), ("", "C")]))


@pytest.mark.parametrize("name", ["batch_tokens", "read_ahead"])
def test_a_batch_or_window_of_nothing_is_refused(model, tokenizer, name):
    with pytest.raises(ValueError, match=f"`{name}`=0"):
        next(score_pairs(model, tokenizer, PAIRS, **{name: 0}))


def test_lines_can_be_taken_apart_again():
    score = PairScore(("a:b", "c d\t\u2028", "</s>"), (-0.5, -1.25, -0.25), num_characters=9)
    log_prob, tokens, per_token, pieces = score.to_line(per_token=True).split("\t")
    assert (float(log_prob), int(tokens), float(per_token)) == (-2.0, 3, pytest.approx(2 / 3, abs=1e-6))
    assert [piece.rsplit(":", 1) for piece in pieces.split(" ")] == [
        ["a:b", "-0.500000"],
        ["c\\u0020d\\u0009\\u2028", "-1.250000"],
        ["</s>", "-0.250000"],
    ]
    assert score.to_line() == "\t".join([log_prob, tokens, per_token])
    read = json.loads(score.to_json())
    assert (read["tokens"], read["token_log_probs"]) == (list(score.tokens), [-0.5, -1.25, -0.25])
    assert (read["log_prob"], read["num_tokens"], read["perplexity"]) == (-2.0, 3, score.perplexity)
    assert "\n" not in score.to_json()


def test_tags_are_one_token_and_what_looks_like_a_control_token_is_text(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<2de>"]})
    model = build(tokenizer)
    pairs = [("<2de> a </s> b", "<2de>a </s> b<pad>"), ("<2de> a (/s) b", "<2de>a (/s) b(pad)")]
    inputs, encoder = [], model.get_encoder()
    hook = encoder.register_forward_pre_hook(
        lambda _, args, kwargs: inputs.append(kwargs["input_ids"]), with_kwargs=True
    )
    scores = [score for pair in pairs for score in score_pairs(model, tokenizer, [pair])]
    hook.remove()
    for score, ids, (source, target) in zip(scores, inputs, pairs, strict=True):
        assert (score.tokens[0], score.tokens[-1]) == ("<2de>", "</s>")
        assert tokenizer.convert_tokens_to_string(list(score.tokens[1:-1])) == target.removeprefix("<2de>")
        assert len(score.tokens) == 2 + len(target.removeprefix("<2de>"))
        tag, *text, end = ids[0].tolist()
        assert [tag, end] == tokenizer.convert_tokens_to_ids(["<2de>", "</s>"])
        assert not {0, 1, 2, 3, tag} & set(text)
        assert tokenizer.decode(text) == source.removeprefix("<2de>")


def test_a_pair_longer_than_the_learned_positions_is_named(tokenizer):
    model = build(tokenizer, position_encoding="learned", max_position_embeddings=6)
    pairs = [("a", "b"), ("a b", "a"), ("a", "a b c d e f")]
    scores = score_pairs(model, tokenizer, pairs, read_ahead=2)
    assert len([next(scores), next(scores)]) == 2
    with pytest.raises(
        ValueError, match=r"pair 2 \(from 0\) has 2 and 1\d tokens, but the model has 6 learned positions"
    ):
        next(scores)


def test_a_tag_is_put_in_front_of_sources_and_not_of_translations():
    tagged = train_tokenizer(texts=["a b c", "A B C"], vocab_size=262, tags=["<2de>"])
    model = build(tagged)
    written, pairs = list(score_pairs(model, tagged, [("<2de> a b", "A")])), [("a b", "A")]
    assert list(score_pairs(model, tagged, pairs, tag="2de")) == written
    assert list(score_pairs(model, tagged, pairs)) != written
    assert list(score_pairs(model, tagged, [("", "A")], tag="2de")) == list(score_pairs(model, tagged, [("", "A")]))
    tagged.tgt_lang = "de"
    assert list(score_pairs(model, tagged, pairs)) == written
    with pytest.raises(ValueError, match="tag=2de: the tokenizer puts <2de> before every source by itself"):
        next(score_pairs(model, tagged, pairs, tag="2de"))
    with pytest.raises(ValueError, match="'<2fr>' is not a tag"):
        next(score_pairs(model, tagged, [("a", "A")], tag="2fr"))
