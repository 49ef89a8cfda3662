"""The recorded search: against `generate()`, double precision without a cache, and all continuations there are."""

import copy
import itertools
import json
import math

import pytest
import torch
from test_pair_scores import build

from hf_vanilla_transformer import VanillaTransformerDecoderConfig, VanillaTransformerForCausalLM
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.demo import record_search
from hf_vanilla_transformer.inference import EnsembleForConditionalGeneration

TEXT, LIMIT = "a b b c", 5
START, EOS = 0, 2
FIELDS = {"post": {}, "pre": {"norm_position": "pre", "position_encoding": "learned", "num_learned_positions": 70}}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=["a b c"], model="wordpiece", vocab_size=10, min_frequency=1)


@pytest.fixture(scope="module", params=FIELDS)
def model(tokenizer, request):
    model = build(tokenizer, seed=4, **FIELDS[request.param])
    with torch.no_grad():
        model.get_input_embeddings().weight[EOS] *= 3 if request.param == "pre" else 2  # so that lengths differ
    return model


def generated(model, tokenizer, prefix=(), **options):
    """The best translation and its score by `generate()` without an observer."""
    inputs = tokenizer(TEXT, return_tensors="pt")
    if prefix:
        options["decoder_input_ids"] = torch.tensor([[START, *prefix]])
    found = model.generate(**inputs, **options, return_dict_in_generate=True)
    ids = found.sequences[0, 1:].tolist()
    return tuple(ids), getattr(found, "sequences_scores", [None])[0]


class InDouble:
    """Log-probabilities after whole prefixes, one at a time, without a cache, in double precision."""

    def __init__(self, model, tokenizer):
        self.model, self.source = copy.deepcopy(model).double().eval(), torch.tensor([tokenizer(TEXT)["input_ids"]])
        self.known = {}

    @torch.no_grad()
    def __call__(self, prefix):
        if prefix not in self.known:
            read = torch.tensor([[START, *prefix]])
            logits = self.model(self.source, decoder_input_ids=read, use_cache=False).logits[0, -1]
            self.known[prefix] = logits.log_softmax(-1)
        return self.known[prefix]

    def total(self, tokens, first=0):
        """Of tokens from the place `first` on."""
        return sum(float(self(tokens[:place])[tokens[place]]) for place in range(first, len(tokens)))


def by_step(record):
    """The nodes that the search considered, step by step."""
    considered = [node for node in record.nodes if node.state != "forced"]
    return [list(group) for _, group in itertools.groupby(considered, key=lambda node: node.step)]


@pytest.mark.parametrize("num_beams", [1, 3, 4])
def test_the_best_hypothesis_is_what_generate_returns(model, tokenizer, num_beams):
    for alpha in (0.0, 0.6, 1.5):
        record = record_search(model, tokenizer, TEXT, num_beams=num_beams, length_penalty=alpha, max_new_tokens=LIMIT)
        options = {"num_beams": num_beams, "gnmt_length_penalty": alpha, "max_new_tokens": LIMIT}
        ids, score = generated(model, tokenizer, **options)
        best = record.hypotheses[0]
        assert best.token_ids == ids[: best.length]
        assert set(ids[best.length :]) <= {tokenizer.pad_token_id}
        if num_beams > 1:
            assert best.score == pytest.approx(float(score), abs=1e-6)
        assert best.text == tokenizer.decode(ids, skip_special_tokens=True)
        expected = {"num_beams": num_beams, "penalty": "gnmt", "length_penalty": alpha, "max_new_tokens": LIMIT}
        assert record.settings == expected


@pytest.mark.parametrize("prefix", [(), (5, 1)])
def test_each_number_is_that_of_the_model_in_double_precision(model, tokenizer, prefix):
    record = record_search(model, tokenizer, TEXT, num_beams=3, prefix_ids=prefix, max_new_tokens=LIMIT, candidates=4)
    in_double = InDouble(model, tokenizer)
    assert (record.nodes[0].log_prob, record.nodes[0].score, record.nodes[0].token_id) == (0, 0, START)
    for node in record.nodes[1:]:
        tokens, parent = record.token_ids_of(node.id), record.nodes[node.parent]
        assert (len(tokens), tokens[-1]) == (node.step, node.token_id)
        assert node.log_prob == pytest.approx(float(in_double(tokens[:-1])[tokens[-1]]), abs=1e-5)
        assert node.score == pytest.approx(parent.score + node.log_prob, abs=1e-5)
        assert node.score == pytest.approx(in_double.total(tokens), abs=1e-4)
    for node in record.nodes:
        if node.next:
            probabilities = in_double(record.token_ids_of(node.id)).exp().sort(descending=True).values[:4]
            assert [each for *_, each in node.next] == pytest.approx(probabilities.tolist(), abs=1e-5)
            for token, label, probability in node.next:
                expected = math.exp(in_double(record.token_ids_of(node.id))[token])
                assert probability == pytest.approx(expected, abs=1e-5)
                assert label == tokenizer.convert_ids_to_tokens(token)
    # What follows was looked up for each token of the prefix, and for each beam but the last ones.
    parents = {node.parent for node in record.nodes}
    assert all(node.next for node in record.nodes if node.id in parents)
    assert record.forced_log_prob == pytest.approx(in_double.total(prefix), abs=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
@pytest.mark.parametrize("prefix", [(), (6,)])
def test_hypotheses_are_ranked_by_the_formula(model, tokenizer, alpha, prefix):
    record = record_search(
        model, tokenizer, TEXT, num_beams=4, length_penalty=alpha, prefix_ids=prefix, max_new_tokens=LIMIT
    )
    in_double = InDouble(model, tokenizer)
    for hypothesis in record.hypotheses:
        ids = hypothesis.token_ids
        assert record.token_ids_of(hypothesis.node) == ids
        assert record.nodes[hypothesis.node].score == hypothesis.log_prob
        assert hypothesis.length == len(ids) == len(hypothesis.tokens)
        assert hypothesis.log_prob == pytest.approx(in_double.total(ids), abs=1e-4)
        penalty = ((5 + len(ids) - len(prefix)) / 6) ** alpha
        assert hypothesis.score == pytest.approx(in_double.total(ids, len(prefix)) / penalty, abs=1e-4)
    assert [each.rank for each in record.hypotheses] == list(range(1, len(record.hypotheses) + 1))
    assert [each.score for each in record.hypotheses] == sorted((h.score for h in record.hypotheses), reverse=True)
    plainly = sorted(record.hypotheses, key=lambda each: -each.log_prob)
    assert [each.rank_without_penalty for each in plainly] == list(range(1, len(plainly) + 1))
    assert {each.node for each in record.hypotheses} == {n.id for n in record.nodes if n.state == "finished"}


def test_longer_hypotheses_overtake_shorter_ones_by_the_penalty(model, tokenizer):
    lengths = []
    for alpha in (0.0, 0.6, 1.5, 5.0):
        options = {"num_beams": 4, "length_penalty": alpha, "max_new_tokens": LIMIT}
        found = record_search(model, tokenizer, TEXT, **options).hypotheses
        overtaken = [(one, two) for one, two in itertools.combinations(found, 2) if one.log_prob < two.log_prob]
        assert all(one.rank_without_penalty > two.rank_without_penalty for one, two in overtaken)
        assert all(one.length > two.length for one, two in overtaken)
        assert not (alpha == 0 and overtaken)
        lengths.append(sum(each.length for each in found))
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


@pytest.mark.parametrize("prefix", [(), (4,)])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_what_is_pruned_is_worse_than_what_is_kept_among_all_continuations(model, tokenizer, num_beams, prefix):
    record = record_search(model, tokenizer, TEXT, num_beams=num_beams, prefix_ids=prefix, max_new_tokens=LIMIT)
    in_double, beams = InDouble(model, tokenizer), [prefix]
    for step, nodes in enumerate(by_step(record), start=1):
        everything = {(*beam, token) for beam in beams for token in range(model.config.vocab_size)}
        totals = {tokens: in_double.total(tokens) for tokens in everything}
        ranked = sorted(everything, key=lambda tokens: -totals[tokens])[: 2 * num_beams]
        ending = [tokens for tokens in ranked if step == LIMIT or tokens[-1] == EOS]
        beams = [tokens for tokens in ranked if tokens not in ending][:num_beams]
        states = {record.token_ids_of(node.id): node.state for node in nodes}
        assert set(states) == set(ranked)
        assert {tokens for tokens, state in states.items() if state == "open"} == set(beams)
        assert {record.token_ids_of(node.id) for node in nodes if node.ends} == set(ending)
        finished = {tokens for tokens, state in states.items() if state == "finished"}
        assert finished <= set(ranked[:num_beams]) & set(ending)
        # A hypothesis that had finished is pruned only for better ones.
        worst = min(each.score for each in record.hypotheses)
        for tokens in (set(ranked[:num_beams]) & set(ending)) - finished:
            penalty = ((5 + len(tokens) - len(prefix)) / 6) ** 0.6
            assert in_double.total(tokens, len(prefix)) / penalty <= worst + 1e-5
    assert len(by_step(record)) <= LIMIT


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
def test_one_beam_is_greedy_search_which_ends_with_its_first_hypothesis(tokenizer, early_stopping):
    model = build(tokenizer, seed=4)
    model.generation_config.early_stopping = early_stopping
    with torch.no_grad():
        model.get_input_embeddings().weight[EOS] *= 3
    record = record_search(model, tokenizer, TEXT, num_beams=1, length_penalty=5.0, max_new_tokens=LIMIT)
    (only,) = record.hypotheses
    assert only.token_ids == generated(model, tokenizer, num_beams=1, max_new_tokens=LIMIT)[0]
    assert only.length < LIMIT  # else there was nothing to end
    assert max(node.step for node in record.nodes) == only.length


def test_greedy_search_goes_on_from_any_place_of_its_result_as_before(model, tokenizer):
    whole = record_search(model, tokenizer, TEXT, num_beams=1, max_new_tokens=LIMIT).hypotheses[0].token_ids
    for cut in range(1, len(whole)):
        if EOS not in whole[:cut]:
            record = record_search(
                model, tokenizer, TEXT, num_beams=1, prefix_ids=whole[:cut], max_new_tokens=LIMIT - cut
            )
            assert record.hypotheses[0].token_ids == whole
            assert [node.state for node in record.nodes[: cut + 1]] == ["forced"] * (cut + 1)


def test_a_search_that_sees_everything_goes_on_from_its_best_result_as_before(model, tokenizer):
    options = {"num_beams": model.config.vocab_size**2, "length_penalty": 0.0}
    whole = record_search(model, tokenizer, TEXT, **options, max_new_tokens=3).hypotheses[0]
    start = [token for token in whole.token_ids[:1] if token != EOS]
    assert start  # else nothing would go on
    record = record_search(model, tokenizer, TEXT, **options, prefix_ids=start, max_new_tokens=3 - len(start))
    assert record.hypotheses[0].token_ids == whole.token_ids
    assert record.hypotheses[0].log_prob == pytest.approx(whole.log_prob, abs=1e-5)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_with_a_prefix_it_is_what_generate_returns_after_it(model, tokenizer, num_beams):
    for prefix in ([], [7], [4, 4, 3]):
        record = record_search(model, tokenizer, TEXT, num_beams=num_beams, prefix_ids=prefix, max_new_tokens=LIMIT)
        ids, _ = generated(model, tokenizer, prefix, num_beams=num_beams, max_new_tokens=LIMIT)
        best = record.hypotheses[0]
        assert best.token_ids == ids[: best.length]
        assert best.token_ids[: len(prefix)] == tuple(prefix)
        assert (record.forced, record.settings["max_new_tokens"]) == (len(prefix), LIMIT)
    nothing = record_search(model, tokenizer, TEXT, num_beams=num_beams, prefix_ids=(), max_new_tokens=LIMIT)
    assert nothing == record_search(model, tokenizer, TEXT, num_beams=num_beams, max_new_tokens=LIMIT)


def test_any_next_token_of_any_node_can_be_gone_on_from(model, tokenizer):
    record = record_search(model, tokenizer, TEXT, num_beams=2, max_new_tokens=3)
    node = next(node for node in record.nodes if node.next and node.step == 1)
    token, _, probability = next(each for each in node.next if each[0] != EOS)
    after = record_search(
        model, tokenizer, TEXT, num_beams=2, max_new_tokens=2, prefix_ids=(*record.token_ids_of(node.id), token)
    )
    assert after.nodes[1].token_id == node.token_id
    assert after.nodes[2].log_prob == pytest.approx(math.log(probability), abs=1e-5)


def test_recording_leaves_the_model_and_its_settings_alone(model, tokenizer):
    settings, before = model.generation_config.to_dict(), generated(model, tokenizer, num_beams=3)
    attributes = set(vars(model))
    record = record_search(model, tokenizer, TEXT, num_beams=2, length_penalty=1.5, prefix_ids=[4])
    assert record.settings["max_new_tokens"] == len(tokenizer(TEXT)["input_ids"]) + 50  # the model's own limit
    assert (model.generation_config.to_dict(), set(vars(model))) == (settings, attributes)
    assert generated(model, tokenizer, num_beams=3) == before


def test_the_models_own_settings_hold_unless_others_are_given(tokenizer):
    model = build(tokenizer)
    record = record_search(model, tokenizer, TEXT)
    assert (record.settings["num_beams"], record.settings["length_penalty"]) == (4, 0.6)
    model.generation_config.update(num_beams=2, length_penalty=1.0, gnmt_length_penalty=None, do_sample=True)
    model.generation_config.update(suppress_tokens=[5, 6], num_return_sequences=2, max_extra_tokens=1)
    record = record_search(model, tokenizer, TEXT)
    length = len(tokenizer(TEXT)["input_ids"]) + 1
    expected = {"num_beams": 2, "penalty": "power", "length_penalty": 1.0, "max_new_tokens": length}
    assert record.settings == expected
    seen = {token for node in record.nodes for token in (node.token_id, *(each[0] for each in node.next))}
    assert not seen & {5, 6}
    best = record.hypotheses[0]
    assert best.score == pytest.approx(best.log_prob / best.length, abs=1e-5)
    assert best.token_ids == generated(model, tokenizer, do_sample=False)[0][: best.length]


def test_an_ensemble_has_a_tree_too(tokenizer):
    ensemble = EnsembleForConditionalGeneration([build(tokenizer, seed) for seed in (1, 2)]).eval()
    record = record_search(ensemble, tokenizer, TEXT, num_beams=3, prefix_ids=[4], max_new_tokens=LIMIT)
    ids, _ = generated(ensemble, tokenizer, [4], num_beams=3, max_new_tokens=LIMIT)
    assert record.hypotheses[0].token_ids == ids[: record.hypotheses[0].length]


def test_a_record_is_json_and_a_tree(model, tokenizer):
    record = record_search(model, tokenizer, TEXT, prefix_ids=[4], max_new_tokens=LIMIT)
    written = json.loads(json.dumps(record.as_dict(), allow_nan=False))
    assert [node["id"] for node in written["nodes"]] == list(range(len(record.nodes)))
    assert [node["parent"] is None for node in written["nodes"]] == [True] + [False] * (len(record.nodes) - 1)
    assert all(node["parent"] < node["id"] for node in written["nodes"][1:])
    ending = {node["parent"] for node in written["nodes"]} & {n["id"] for n in written["nodes"] if n["ends"]}
    assert not ending  # nothing follows an end
    assert written["source_tokens"] == ["a", "b", "b", "c", "</s>"]


def test_what_cannot_be_searched_is_refused(model, tokenizer):
    def refused(message, text=TEXT, searched=model, error=ValueError, **options):
        with pytest.raises(error, match=message):
            record_search(searched, tokenizer, text, **options)

    count = model.config.vocab_size
    refused(rf"`prefix_ids` has {count} at 1, .* allowed: 0 to {count - 1}", prefix_ids=[4, count])
    refused("`prefix_ids` has -1 at 0", prefix_ids=[-1])
    refused("`prefix_ids` has 'a' at 0", prefix_ids="a")
    refused("`prefix_ids` has the end token 2 at 1", prefix_ids=[4, EOS, 4])
    for name in ("num_beams", "max_new_tokens", "candidates"):
        refused(f"`{name}`=0 is not allowed", **{name: 0})
        refused(f"`{name}`=1.5 is not allowed", **{name: 1.5})
    refused("gnmt_length_penalty", length_penalty=math.inf)
    refused("has no visible character", text=" \n")
    refused("a sentence to translate is a str", text=None, error=TypeError)
    refused("training mode", searched=build(tokenizer).train())
    short = build(tokenizer, position_encoding="learned", num_learned_positions=4)
    refused("is longer than the model has positions", searched=short)
    config = VanillaTransformerDecoderConfig(vocab_size=count, d_model=4, num_heads=1, d_ff=4)
    refused("has no search to record", searched=VanillaTransformerForCausalLM(config).eval())
