"""§6.1 through `generate()`: against every sequence there is, forced decoding, and transformers' own search."""

import copy
import inspect
import itertools

import child_processes
import pytest
import torch
import torch.distributed as dist
from torch import nn
from transformers import (
    GenerationConfig,
    GenerationMixin,
    LogitsProcessor,
    LogitsProcessorList,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from variants import VARIANTS

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.attention import MultiHeadAttention, scaled_dot_product_attention
from hf_vanilla_transformer.decoder import Decoder, DecoderLayer
from hf_vanilla_transformer.decoding_beam_search import Ranking, gnmt_length_penalty
from hf_vanilla_transformer.decoding_config import LengthLimits, chosen_values
from hf_vanilla_transformer.decoding_incremental import IncrementalDecoder, can_share_rows
from hf_vanilla_transformer.dropout import Dropout
from hf_vanilla_transformer.feed_forward import FeedForward
from hf_vanilla_transformer.positions import SinusoidalPositions
from hf_vanilla_transformer.translation_batches import length_limit

PAD, EOS = 1, 2


def build(vocab_size=5, seed=0, sharpness=2.0, **fields):
    torch.manual_seed(seed)
    shape = {"d_model": 16, "num_heads": 2, "d_ff": 32, "num_encoder_layers": 1, "num_decoder_layers": 2}
    config = VanillaTransformerConfig(vocab_size=vocab_size, **{**shape, **fields})
    model = VanillaTransformerForConditionalGeneration(config).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(sharpness)
    return model


def sources(model, lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, model.config.vocab_size, (len(lengths), max(lengths)), generator=generator)
    for row, length in enumerate(lengths):
        ids[row, length:] = PAD
    return {"input_ids": ids, "attention_mask": ids.ne(PAD).long()}


def row_of(inputs, row):
    """One sentence without its padding."""
    length = int(inputs["attention_mask"][row].sum())
    return {name: tensor[row : row + 1, :length] for name, tensor in inputs.items()}


@torch.no_grad()
def forced_log_probs(model, inputs, targets):
    """(N, T) log-probabilities of targets (N, T), by one pass over whole prefixes."""
    start = torch.full_like(targets[:, :1], model.config.decoder_start_token_id)
    repeated = {name: tensor.expand(len(targets), -1) for name, tensor in inputs.items()}
    logits = model(**repeated, decoder_input_ids=torch.cat([start, targets[:, :-1]], 1), use_cache=False).logits
    return logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def every_hypothesis(model, inputs, limit, penalty):
    """Every sequence that ends with </s>, or at the limit, with its score by the formula; the best first."""
    others = [token for token in range(model.config.vocab_size) if token != EOS]
    hypotheses = []
    for length in range(1, limit + 1):
        last = range(model.config.vocab_size) if length == limit else [EOS]
        targets = torch.tensor([[*body, end] for body in itertools.product(others, repeat=length - 1) for end in last])
        scores = forced_log_probs(model, inputs, targets).double().sum(1) / penalty(length)
        hypotheses += list(zip(scores.tolist(), targets.tolist(), strict=True))
    return sorted(hypotheses, key=lambda hypothesis: -hypothesis[0])


def without_padding(ids):
    ids = ids.tolist()[1:]
    return ids[: ids.index(EOS) + 1] if EOS in ids else ids


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, -0.5])
@pytest.mark.parametrize("seed", range(5))
def test_a_beam_wide_enough_finds_the_best_of_all_sequences(seed, alpha):
    model = build(seed=seed, norm_position=["post", "pre"][seed % 2], d_k=5, d_v=7)
    inputs = sources(model, [2, 1, 2], seed)
    output = model.generate(
        **inputs, num_beams=200, num_return_sequences=5, gnmt_length_penalty=alpha, max_extra_tokens=2,
        return_dict_in_generate=True,
    )  # fmt: skip
    for row, length in enumerate([2, 1, 2]):
        expected = every_hypothesis(model, row_of(inputs, row), length + 2, lambda n: ((5 + n) / 6) ** alpha)[:5]
        for rank, (score, tokens) in enumerate(expected):
            assert output.sequences_scores[5 * row + rank].item() == pytest.approx(score, abs=1e-5)
            assert without_padding(output.sequences[5 * row + rank])[: len(tokens)] == tokens


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_a_beam_wide_enough_finds_the_best_with_every_variant(fields, tmp_path):
    """Also after saving and loading, by the fast way to decode, and without a cache."""
    model = build(num_heads=4, **fields)
    model.save_pretrained(tmp_path)
    inputs = sources(model, [2, 1], 0)
    ones = (row_of(inputs, row) for row in range(2))
    best = [every_hypothesis(model, one, one["input_ids"].shape[1] + 2, lambda n: 1.0)[0] for one in ones]
    loaded = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path)
    assert can_share_rows(loaded.get_decoder())
    for options in ({}, {"use_cache": False}, {"cache_implementation": "static"}):
        if "attention" in fields and "cache_implementation" in options:
            continue  # sums have a constant size by themselves
        output = loaded.generate(
            **inputs, **options, num_beams=50, gnmt_length_penalty=0.0, max_extra_tokens=2, return_dict_in_generate=True
        )
        for row, (score, tokens) in enumerate(best):
            assert output.sequences_scores[row].item() == pytest.approx(score, abs=1e-5)
            assert without_padding(output.sequences[row])[: len(tokens)] == tokens


def test_plain_generate_on_a_saved_model_is_the_papers_search(tmp_path):
    """Fields survive saving; 30 random models, each against all sequences: how often does a beam of 4 find the best?"""
    agreements = 0
    for seed in range(30):
        model = build(seed=seed, sharpness=3.0)
        assert model.generation_config.num_beams == 4
        assert (model.generation_config.gnmt_length_penalty, model.generation_config.max_extra_tokens) == (0.6, 50)
        model.generation_config.max_extra_tokens = 3  # 50 more would be too many to try
        if seed == 0:
            model.save_pretrained(tmp_path)
            model = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path)
            loaded = GenerationConfig.from_pretrained(tmp_path)
            assert (loaded.num_beams, loaded.gnmt_length_penalty, loaded.max_extra_tokens) == (4, 0.6, 3)
        inputs = sources(model, [2], seed)
        best = every_hypothesis(model, inputs, 5, lambda n: ((5 + n) / 6) ** 0.6)[0][1]
        agreements += without_padding(model.generate(**inputs)[0]) == best
    assert agreements >= 29  # a beam of 4 may lose the best sequence on the way


@pytest.mark.parametrize("seed", range(6))
def test_stopping_early_changes_nothing(seed, monkeypatch):
    model = build(vocab_size=20, seed=seed, sharpness=3.0)
    inputs = sources(model, [4, 7, 2, 5], seed)
    options = {"num_beams": 4, "num_return_sequences": 3, "max_extra_tokens": 12, "return_dict_in_generate": True}
    steps, advance = [], IncrementalDecoder.advance
    monkeypatch.setattr(IncrementalDecoder, "advance", lambda *args: steps.append(1) or advance(*args))
    stopped = model.generate(**inputs, **options)
    taken = len(steps)
    monkeypatch.setattr(Ranking, "is_decided", lambda *args: False)
    exhausted = model.generate(**inputs, **options)
    assert torch.equal(stopped.sequences, exhausted.sequences)
    torch.testing.assert_close(stopped.sequences_scores, exhausted.sequences_scores, rtol=0, atol=1e-5)
    assert taken <= len(steps) - taken


def test_a_sentence_is_decided_no_step_too_early_and_no_step_too_late():
    ranking = Ranking(num_beams=2, num_wanted=1, alpha=0.6, power=1.0, early_stopping=False)

    class Finished:
        score = -1.0

    can_still_win = -1.0 * gnmt_length_penalty(20, 0.6)  # an open beam that loses nothing until the limit
    assert ranking.is_decided([Finished], can_still_win - 1e-9, 3, 20)
    assert not ranking.is_decided([Finished], can_still_win + 1e-9, 3, 20)
    assert not ranking.is_decided([], -100.0, 3, 20)
    shorter_is_better = Ranking(num_beams=2, num_wanted=1, alpha=-1.0, power=1.0, early_stopping=False)
    assert shorter_is_better.is_decided([Finished], -1.0 * (9 / 6) ** -1 - 1e-9, 3, 20)
    assert not shorter_is_better.is_decided([Finished], -1.0 * (9 / 6) ** -1 + 1e-9, 3, 20)


def test_gnmt_length_penalty_is_the_formula():
    assert gnmt_length_penalty(1, 0.6) == 1.0
    assert gnmt_length_penalty(13, 0.6) == pytest.approx(3**0.6)
    assert gnmt_length_penalty(7, 0.0) == 1.0


@pytest.mark.parametrize("options", [{"num_beams": 1}, {"num_beams": 4}, {"num_beams": 4, "use_cache": False}])
def test_each_sentence_has_the_limit_of_its_own_source(options):
    model = build(vocab_size=30, seed=1)
    lengths = [9, 3, 6, 1]
    ids = model.generate(**sources(model, lengths), **options, max_extra_tokens=4, eos_token_id=None)
    assert ids.shape == (4, 1 + 9 + 4)
    for row, length in zip(ids, lengths):
        assert row[1 + length + 4 :].eq(PAD).all()
        assert row[length + 4].ne(PAD)


def test_the_default_limit_of_20_tokens_does_not_cut_and_explicit_limits_do():
    model = build(vocab_size=30)
    inputs = sources(model, [5, 3])
    never_ends = {"eos_token_id": None, "num_beams": 1}
    assert model.generate(**inputs, **never_ends).shape[1] == 1 + 5 + 50
    assert model.generate(**inputs, **never_ends, max_new_tokens=7).shape[1] == 1 + 7
    assert model.generate(**inputs, **never_ends, max_length=9).shape[1] == 9
    assert model.generate(**inputs, **never_ends, max_new_tokens=200).shape[1] == 1 + 200
    assert model.generate(**inputs, **never_ends, max_new_tokens=200, max_extra_tokens=50).shape[1] == 1 + 5 + 50
    assert model.generate(**inputs, **never_ends, max_new_tokens=70, max_extra_tokens=None).shape[1] == 1 + 70
    prefix = torch.tensor([[0, 7, 8]] * 2)
    assert model.generate(**inputs, **never_ends, decoder_input_ids=prefix).shape[1] == 3 + 5 + 50
    learned = build(vocab_size=30, position_encoding="learned", max_position_embeddings=12)
    assert learned.generate(**inputs, **never_ends).shape[1] == 12


@pytest.mark.parametrize("field", ["gnmt_length_penalty", "max_extra_tokens"])
def test_a_value_that_makes_no_sense_is_refused(field):
    model = build()
    with pytest.raises(ValueError, match=f"`{field}`='many' is not allowed; allowed: "):
        model.generate(**sources(model, [2]), **{field: "many"})


def in_the_loop_of_transformers(model):
    """The same model with transformers' own beam search and defaults."""
    plain = type("Plain", (VanillaTransformerForConditionalGeneration,), {})
    plain._beam_search = GenerationMixin._beam_search
    plain._prepare_cache_for_generation = GenerationMixin._prepare_cache_for_generation
    other = plain(model.config).eval()
    other.load_state_dict(model.state_dict())
    other.generation_config = GenerationConfig.from_model_config(model.config)
    return other


def transformers_beam_search(model, inputs, **options):
    other = in_the_loop_of_transformers(model)
    return other.generate(**inputs, **options, return_dict_in_generate=True, output_scores=True)


@pytest.mark.parametrize("length_penalty", [0.6, -1.0])
@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("vocab_size", [20, 700])
def test_a_given_length_penalty_is_transformers_search(length_penalty, early_stopping, vocab_size):
    model = build(vocab_size=vocab_size, seed=5, sharpness=3.0)
    inputs = sources(model, [4, 7, 2, 5], seed=3)
    options = {
        "num_beams": 4, "num_return_sequences": 4, "length_penalty": length_penalty, "early_stopping": early_stopping,
        "max_new_tokens": 15,
    }  # fmt: skip
    expected = transformers_beam_search(model, inputs, **options)
    for given in (options, {"generation_config": GenerationConfig(**options)}):
        actual = model.generate(**inputs, **given, return_dict_in_generate=True)
        assert torch.equal(actual.sequences, expected.sequences)
        torch.testing.assert_close(actual.sequences_scores, expected.sequences_scores, rtol=1e-5, atol=1e-5)
        assert torch.equal(actual.beam_indices, expected.beam_indices.long())


def test_without_a_penalty_gnmt_and_transformers_powers_are_the_same_search():
    model = build(vocab_size=20, seed=5, sharpness=3.0)
    inputs = sources(model, [4, 7, 2, 5], seed=3)
    ours = model.generate(**inputs, gnmt_length_penalty=0, max_new_tokens=15)
    theirs = transformers_beam_search(
        model, inputs, num_beams=4, length_penalty=0.0, early_stopping="never", max_new_tokens=15
    )
    assert torch.equal(ours, theirs.sequences)


@pytest.mark.parametrize("prefix", [None, [[0, 6, 7, 8]] * 4])
@pytest.mark.parametrize("how", [{}, {"use_cache": False}, {"cache_implementation": "static"}, {"output_scores": True}])
def test_n_best_scores_are_those_of_forced_decoding(prefix, how):
    model = build(vocab_size=200, seed=3, sharpness=2.5)
    inputs = sources(model, [4, 7, 2, 5])
    start = {} if prefix is None else {"decoder_input_ids": torch.tensor(prefix)}
    output = model.generate(
        **inputs, **start, **how, num_return_sequences=4, max_extra_tokens=5, return_dict_in_generate=True
    )
    forced = 0 if prefix is None else len(prefix[0]) - 1
    for index, (ids, score) in enumerate(zip(output.sequences, output.sequences_scores)):
        tokens = without_padding(ids)
        limit = forced + int(inputs["attention_mask"][index // 4].sum()) + 5
        tokens = torch.tensor([tokens[:limit]])
        log_probs = forced_log_probs(model, row_of(inputs, index // 4), tokens)[0, forced:]
        expected = log_probs.sum() / gnmt_length_penalty(len(log_probs), 0.6)
        assert score.item() == pytest.approx(expected.item(), abs=1e-5)
        if prefix is not None:
            assert ids[:4].tolist() == prefix[0]
    by_sentence = output.sequences_scores.view(4, 4)
    assert torch.equal(by_sentence, by_sentence.sort(dim=1, descending=True).values)


def test_scores_of_each_step_add_up_to_those_of_the_sequences():
    model = build(vocab_size=100, seed=3, sharpness=2.5)
    output = model.generate(
        **sources(model, [4, 7]), num_return_sequences=2, max_extra_tokens=5, return_dict_in_generate=True,
        output_scores=True, output_logits=True,
    )  # fmt: skip
    steps = model.compute_transition_scores(output.sequences, output.scores, output.beam_indices)
    lengths = output.beam_indices.ge(0).sum(1)
    expected = steps.sum(1) / torch.tensor([gnmt_length_penalty(int(length), 0.6) for length in lengths])
    torch.testing.assert_close(output.sequences_scores, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.logits[0].log_softmax(-1), output.scores[0])


def test_padding_and_company_change_nothing():
    model = build(vocab_size=300, seed=4, sharpness=2.5)
    inputs = sources(model, [4, 9, 2, 5, 7, 1])
    together = model.generate(**inputs, max_extra_tokens=8)
    for row in range(6):
        alone = without_padding(model.generate(**row_of(inputs, row), max_extra_tokens=8)[0])
        assert without_padding(together[row])[: len(alone)] == alone


class Forbid(LogitsProcessor):
    """Keeps the second sentence, and it alone, from using a token."""

    def __init__(self, token, num_beams):
        self.token, self.rows = token, slice(num_beams, 2 * num_beams)

    def __call__(self, input_ids, scores):
        assert len(scores) == 4 * (self.rows.stop - self.rows.start)
        scores[self.rows, self.token] = -torch.inf
        return scores


@pytest.mark.parametrize("num_beams", [1, 4])
def test_processors_see_every_row_at_every_step(num_beams):
    model = build(vocab_size=40, seed=7, sharpness=2.5)
    inputs = sources(model, [4, 7, 2, 5])
    free = model.generate(**inputs, num_beams=num_beams, max_extra_tokens=6)
    banned = int(free[1, 1])
    forbidding = LogitsProcessorList([Forbid(banned, num_beams)])
    ids = model.generate(**inputs, num_beams=num_beams, max_extra_tokens=6, logits_processor=forbidding)
    assert banned not in ids[1, 1:]
    assert torch.equal(ids[0], free[0][: ids.shape[1]])


def test_other_ways_to_decode_still_work():
    model, smaller = build(vocab_size=40, seed=7), build(vocab_size=40, seed=8, num_decoder_layers=1)
    inputs = sources(model, [6])
    greedy = model.generate(**inputs, num_beams=1)
    for helper in ({"assistant_model": smaller}, {"prompt_lookup_num_tokens": 2}):
        assert torch.equal(model.generate(**inputs, num_beams=1, **helper), greedy)

    class Streamer(list):
        def put(self, value):
            self.extend(value.flatten().tolist())

        def end(self):
            self.append("end")

    streamer = Streamer()
    model.generate(**inputs, num_beams=1, streamer=streamer)
    assert streamer == [*greedy[0].tolist(), "end"]
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(model.generate(**inputs, num_beams=1, do_sample=True, max_new_tokens=20, min_new_tokens=20))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    torch.manual_seed(0)
    assert model.generate(**inputs, do_sample=True, max_new_tokens=4).shape[0] == 1  # beams of samples
    model.set_attn_implementation("eager")
    output = model.generate(**inputs, output_attentions=True, output_hidden_states=True, return_dict_in_generate=True)
    model.set_attn_implementation("sdpa")
    assert torch.equal(output.sequences, model.generate(**inputs))
    assert output.cross_attentions[0][0].shape[:2] == (4, 2)


def test_beams_share_keys_and_values_and_no_row_is_ever_copied(monkeypatch):
    model = build(vocab_size=40, seed=7)
    seen = []
    advance = IncrementalDecoder.advance

    def watched(self, tokens, parents=None):
        logits = advance(self, tokens, parents)
        seen.append([(layer.keys.shape, layer.keys.data_ptr()) for layer in self.cache.self_attention_cache.layers])
        assert {layer.keys.shape[0] for layer in self.cache.cross_attention_cache.layers} == {2}
        return logits

    monkeypatch.setattr(IncrementalDecoder, "advance", watched)
    model.generate(**sources(model, [6, 6]), num_beams=3, max_new_tokens=10, eos_token_id=None)
    assert [step[0][0] for step in seen] == [(2, 2, 1 + 3 * (count + 1), 8) for count in range(9)]
    assert len({step[0][1] for step in seen}) == 1  # one buffer all along


def test_forward_that_is_replaced_or_hooked_is_used():
    model = build(vocab_size=40)
    inputs = sources(model, [3])
    expected = model.generate(**inputs)
    calls = []
    handle = model.register_forward_hook(lambda *args: calls.append(1))
    assert torch.equal(model.generate(**inputs), expected)
    assert calls
    handle.remove()
    calls.clear()
    forward = model.forward
    model.forward = lambda *args, **kwargs: calls.append(1) or forward(*args, **kwargs)
    assert torch.equal(model.generate(**inputs), expected)
    assert calls


PARTS = ["layers.1", "layers.0.self_attention", "layers.0.cross_attention.q_proj", "layers.0.self_attention.out_proj"]
PARTS += ["layers.1.self_attention_norm", "layers.0.feed_forward", "layers.0.feed_forward.activation", "embed_tokens"]


@pytest.mark.parametrize("name", [*PARTS, "lm_head"])
def test_parts_that_are_replaced_or_hooked_are_called(name):
    model = build(vocab_size=40)
    inputs = sources(model, [3, 5])
    part = model.lm_head if name == "lm_head" else model.get_decoder().get_submodule(name)
    expected, calls = model.generate(**inputs, max_new_tokens=4, eos_token_id=None), []
    for register in (part.register_forward_hook, part.register_forward_pre_hook):
        handle = register(lambda *args: calls.append(1))
        assert torch.equal(model.generate(**inputs, max_new_tokens=4, eos_token_id=None), expected)
        assert len(calls) == 4
        handle.remove()
        calls.clear()
    forward = part.forward
    part.forward = lambda *args, **kwargs: calls.append(1) or forward(*args, **kwargs)
    assert torch.equal(model.generate(**inputs, max_new_tokens=4, eos_token_id=None), expected)
    assert len(calls) == 4


def test_parts_of_another_class_are_called():
    class Silent(MultiHeadAttention):
        def forward(self, hidden_states, *args, **kwargs):
            return torch.zeros_like(hidden_states), None

    model = build(vocab_size=40, seed=2)
    inputs = sources(model, [5])
    before = model.generate(**inputs, output_logits=True, return_dict_in_generate=True).logits[0]
    model.get_decoder().layers[0].cross_attention.__class__ = Silent
    after = model.generate(**inputs, output_logits=True, return_dict_in_generate=True).logits[0]
    start = torch.zeros(1, 1, dtype=torch.long)
    expected = model(**inputs, decoder_input_ids=start).logits[:, -1]
    torch.testing.assert_close(after[:1], expected, rtol=0, atol=1e-5)
    assert not torch.allclose(before, after, atol=1e-3)


def assert_cached_is_uncached(model, inputs, **options):
    """The ids of both, which are the same with one beam and with several."""
    found = []
    for num_beams in (1, 3):
        call = {**inputs, "num_beams": num_beams, "max_new_tokens": 7, "eos_token_id": None, **options}
        cached, uncached = (model.generate(**call, use_cache=use_cache) for use_cache in (True, False))
        assert torch.equal(cached, uncached)
        found.append(cached)
    return found


CLASSES = [
    MultiHeadAttention,
    DecoderLayer,
    FeedForward,
    SinusoidalPositions,
    Decoder,
    Dropout,
    nn.Linear,
    nn.LayerNorm,
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_forward_that_is_replaced_in_its_class_is_used(kind, monkeypatch):
    model = build(vocab_size=40, seed=2)
    inputs = sources(model, [5, 3])
    before, forward, calls = assert_cached_is_uncached(model, inputs), kind.forward, []

    def replaced(self, *args, **kwargs):
        calls.append(1)
        output = forward(self, *args, **kwargs)
        states = output.last_hidden_state if kind is Decoder else output[0] if isinstance(output, tuple) else output
        states.mul_(1 - 2 * torch.arange(states.shape[-1]).remainder(2))
        return output

    monkeypatch.setattr(kind, "forward", replaced)
    after = assert_cached_is_uncached(model, inputs)
    assert calls
    assert any(not torch.equal(old, new) for old, new in zip(before, after))


@pytest.mark.parametrize("name", ["", "model", "model.decoder", "model.decoder.layers.1"])
def test_a_subclass_with_a_forward_of_its_own_is_used(name):
    model = build(vocab_size=40, seed=2)
    inputs = sources(model, [5, 3])
    before = assert_cached_is_uncached(model, inputs)
    part = model.get_submodule(name)

    class Own(type(part)):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            states = output if isinstance(output, torch.Tensor) else output[0]
            states.mul_(1 - 2 * torch.arange(states.shape[-1]).remainder(2))
            return output

    part.__class__ = Own
    after = assert_cached_is_uncached(model, inputs)
    assert any(not torch.equal(old, new) for old, new in zip(before, after))


def test_an_attention_that_goes_by_the_places_of_keys_gets_a_row_for_each_beam():
    class Near(MultiHeadAttention):
        """Attends most to what stands near, as ALiBi does (Press et al., 2022)."""

        def forward(self, hidden_states, attention_mask=None, key_value_states=None, cache=None, **kwargs):
            end = hidden_states.shape[1]
            if cache is not None:
                end += cache.self_attention_cache.get_seq_length(self.layer_idx)
            queries, keys = torch.arange(end)[-hidden_states.shape[1] :, None], torch.arange(end)
            bias = torch.where(keys > queries, torch.finfo(torch.float32).min, -2.0 * (queries - keys).abs())
            return super().forward(hidden_states, bias[None, None], key_value_states, cache, **kwargs)

    model = build(vocab_size=40, seed=2)
    inputs = sources(model, [5, 3])
    before = assert_cached_is_uncached(model, inputs)
    for layer in model.get_decoder().layers:
        layer.self_attention.__class__ = Near
    after = assert_cached_is_uncached(model, inputs)
    assert any(not torch.equal(old, new) for old, new in zip(before, after))


def test_positions_that_depend_on_the_embedding_are_used():
    class Scaled(nn.Module):
        def forward(self, embeddings, position_ids):
            return embeddings * (1 + position_ids.unsqueeze(-1)).sqrt()

    model = build(vocab_size=40, seed=2)
    inputs = sources(model, [5, 3])
    before = assert_cached_is_uncached(model, inputs)
    model.get_decoder().embed_positions = Scaled()
    after = assert_cached_is_uncached(model, inputs)
    assert any(not torch.equal(old, new) for old, new in zip(before, after))


def test_a_hook_on_all_modules_is_called():
    model = build(vocab_size=40, seed=2)
    inputs, calls = sources(model, [5, 3]), []
    before = assert_cached_is_uncached(model, inputs)

    def turn(module, args, output):
        calls.append(type(module))
        if type(module) is Decoder:
            states = output.last_hidden_state
            states.mul_(1 - 2 * torch.arange(states.shape[-1]).remainder(2))

    handle = torch.nn.modules.module.register_module_forward_hook(turn)
    try:
        after = assert_cached_is_uncached(model, inputs)
    finally:
        handle.remove()
    assert {type(model), Decoder, MultiHeadAttention, DecoderLayer, nn.Linear, nn.LayerNorm} <= set(calls)
    assert any(not torch.equal(old, new) for old, new in zip(before, after))


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("use_cache", [True, False])
def test_dropout_that_is_kept_on_makes_each_output_another(num_beams, use_cache):
    model = build(vocab_size=40, seed=2, dropout=0.3)
    model.get_decoder().train()
    inputs = sources(model, [5, 3])
    found = set()
    for seed in range(6):
        torch.manual_seed(seed)
        ids = model.generate(**inputs, num_beams=num_beams, max_new_tokens=9, eos_token_id=None, use_cache=use_cache)
        found.add(tuple(ids.flatten().tolist()))
    assert len(found) == 6


@pytest.mark.parametrize(("num_beams", "sharpness"), [(3, 2.0), (5, 4.0)])
def test_keys_that_no_beam_descends_from_are_forgotten_and_nothing_else(num_beams, sharpness, monkeypatch):
    model = build(vocab_size=40, seed=7, sharpness=sharpness)
    inputs = sources(model, [6, 4, 5])
    counts, advance = [], IncrementalDecoder.advance

    def watched(self, tokens, parents=None):
        logits = advance(self, tokens, parents)
        counts.append(self.cache.self_attention_cache.layers[0].keys.shape[2])
        return logits

    monkeypatch.setattr(IncrementalDecoder, "advance", watched)
    options = {"num_beams": num_beams, "max_new_tokens": 120, "eos_token_id": None}
    cached = model.generate(**inputs, **options)
    assert max(counts) < 0.7 * 120 * num_beams
    assert torch.equal(cached, model.generate(**inputs, **options, use_cache=False))


@pytest.mark.parametrize("return_dict", [True, False])
def test_no_sentence_leaves_the_batch_where_code_of_others_may_count_on_it(return_dict):
    model = build(vocab_size=40, seed=3)
    inputs = sources(model, [9, 1, 1, 2])
    options = {"num_beams": 3, "max_extra_tokens": 2, "return_dict_in_generate": return_dict}
    expected, rows = model.generate(**inputs, **options, use_cache=False), []
    model.get_decoder().final_norm.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    found = model.generate(**inputs, **options)
    assert torch.equal(*(each.sequences if return_dict else each for each in (found, expected)))
    assert set(rows) == {12}


def test_an_attention_that_is_registered_in_the_place_of_another_is_used(monkeypatch):
    def near(module, query, key, value, attention_mask, scaling, **kwargs):
        """Prefers what stands near, by the places of keys, and leaves the attention over the source as it is."""
        if not module.is_causal:
            return scaled_dot_product_attention(module, query, key, value, attention_mask, scaling, **kwargs)
        queries, keys = torch.arange(key.shape[2])[-query.shape[2] :, None], torch.arange(key.shape[2])
        bias = torch.where(keys > queries, torch.finfo(torch.float32).min, -2.0 * (queries - keys).abs())
        return scaled_dot_product_attention(module, query, key, value, bias, scaling)

    model = build(vocab_size=40, seed=2)
    inputs = sources(model, [5, 3])
    for name in ("sdpa", "eager"):
        model.set_attn_implementation(name)
        before = assert_cached_is_uncached(model, inputs)
        with monkeypatch.context() as patch:
            patch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, name, near)
            after = assert_cached_is_uncached(model, inputs)
        assert any(not torch.equal(old, new) for old, new in zip(before, after))


def test_a_layer_that_is_used_twice_decodes_without_a_cache_and_not_wrongly_with_one():
    model = build(vocab_size=40, seed=2)
    inputs = sources(model, [5, 3])
    layers = model.get_decoder().layers
    layers[1] = layers[0]
    assert model.generate(**inputs, use_cache=False).shape[0] == 2
    with pytest.raises(ValueError, match="places 0, 0 in the cache, of which one is there twice; .* use_cache=False"):
        model.generate(**inputs)


def test_under_autocast_the_projection_is_cast_too():
    model = build(vocab_size=40, seed=2)
    options = {**sources(model, [5, 3]), "max_new_tokens": 4, "return_dict_in_generate": True, "output_logits": True}
    with torch.autocast("cpu", torch.bfloat16):
        for use_cache in (True, False):
            for logits in model.generate(**options, num_beams=2, use_cache=use_cache).logits:
                assert torch.equal(logits, logits.bfloat16().float())


def test_a_decoder_that_has_lost_a_layer_decodes_long_texts():
    model = build(vocab_size=40, seed=7)
    model.get_decoder().layers = nn.ModuleList([model.get_decoder().layers[0]])
    options = {"num_beams": 3, "max_new_tokens": 70, "eos_token_id": None}
    inputs = sources(model, [6, 4])
    assert torch.equal(model.generate(**inputs, **options), model.generate(**inputs, **options, use_cache=False))


def test_a_bias_that_raises_log_probabilities_does_not_end_the_search_early():
    """A token that pays only after a long detour: no beam may be given up before."""
    model = build(vocab_size=40, seed=2)
    model.generation_config.gnmt_length_penalty = 0.6
    inputs = sources(model, [5])
    bias = {(7,): 3.0, (model.config.eos_token_id,): 4.0}
    options = {**inputs, "num_beams": 3, "max_new_tokens": 12, "return_dict_in_generate": True, "output_scores": True}
    found = model.generate(**options, sequence_bias=bias)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_vanilla_transformer.decoding_beam_search.Ranking.is_decided", lambda *_: False)
        longest = model.generate(**options, sequence_bias=bias)
    assert torch.equal(found.sequences, longest.sequences)
    assert len(found.scores) == len(longest.scores) == 12
    assert len(model.generate(**options, sequence_bias={(7,): -3.0}).scores) <= 12


@pytest.mark.parametrize("num_beams", [1, 3])
def test_gradients_can_be_had_of_scores(num_beams):
    model = build(vocab_size=40, seed=3)
    inputs = sources(model, [4, 6])
    generate = inspect.unwrap(type(model).generate)  # without torch.no_grad
    output = generate(
        model, **inputs, num_beams=num_beams, max_new_tokens=5, output_logits=True, return_dict_in_generate=True
    )
    assert torch.equal(output.sequences, model.generate(**inputs, num_beams=num_beams, max_new_tokens=5))
    sum(each.log_softmax(-1).max(-1).values.sum() for each in output.logits).backward()
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0
    model.zero_grad()
    generate(model, **inputs, num_beams=num_beams, max_new_tokens=5)


# What a caller says, wherever he says it


@pytest.mark.parametrize("value", [0.0, 1.0, -0.5])
def test_a_length_penalty_holds_wherever_it_is_said(value):
    model = build(vocab_size=20, seed=5, sharpness=3.0)
    inputs = sources(model, [4, 7, 2, 5], seed=3)
    options = {**inputs, "max_new_tokens": 9, "num_return_sequences": 2, "return_dict_in_generate": True}
    expected = model.generate(**options, length_penalty=value)
    assert not torch.equal(expected.sequences_scores, model.generate(**options).sequences_scores)
    given = copy.deepcopy(model.generation_config)
    given.length_penalty = value
    for output in (
        model.generate(**options, generation_config=GenerationConfig(num_beams=4, length_penalty=value)),
        model.generate(**options, generation_config=given),
    ):
        assert torch.equal(output.sequences_scores, expected.sequences_scores)
    model.generation_config.length_penalty = value
    assert torch.equal(model.generate(**options).sequences_scores, expected.sequences_scores)
    # What a call says counts more than what the model says.
    by_call = model.generate(**options, gnmt_length_penalty=0.6)
    assert not torch.equal(by_call.sequences_scores, expected.sequences_scores)
    with pytest.raises(ValueError, match=r"`gnmt_length_penalty`=0.6 and `length_penalty`=.* are two penalties"):
        model.generate(**options, gnmt_length_penalty=0.6, length_penalty=value)


def test_a_length_penalty_that_was_saved_is_loaded(tmp_path):
    model = build(vocab_size=20, seed=5, sharpness=3.0)
    model.generation_config.length_penalty = 0.0
    model.save_pretrained(tmp_path)
    loaded = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path).eval()
    options = {**sources(model, [4, 7]), "max_new_tokens": 9, "return_dict_in_generate": True}
    expected = model.generate(**options, length_penalty=0.0).sequences_scores
    assert torch.equal(loaded.generate(**options).sequences_scores, expected)


@pytest.mark.parametrize("own", [{}, {"max_new_tokens": 3}, {"max_length": 5}, {"max_extra_tokens": None}])
@pytest.mark.parametrize("call", [{}, {"max_extra_tokens": 2}, {"max_new_tokens": 2, "max_extra_tokens": 1}])
@pytest.mark.parametrize("positions", [None, 9])
def test_length_limits_are_those_of_generate(own, call, positions):
    fields = {"position_encoding": "learned", "num_learned_positions": positions} if positions else {}
    model = build(**fields)
    model.generation_config.update(max_extra_tokens=4, num_beams=1, eos_token_id=None)  # nothing ends it but the limit
    model.generation_config.update(**own)
    inputs = sources(model, [6])
    limits = LengthLimits.of([call, chosen_values(model.generation_config)])
    if limits == LengthLimits(None, None):  # then callers give this one, and transformers would stop at 20
        call = length_limit(model, 6, call)
    (limit,) = limits.of_sources([6], positions)
    assert model.generate(**inputs, **call).shape[1] - 1 == limit


def test_a_limit_that_is_named_outranks_the_papers():
    model = build(vocab_size=30)
    inputs = sources(model, [6])
    never_ends = {**inputs, "eos_token_id": None, "num_beams": 1}
    assert model.generate(**never_ends, max_new_tokens=100).shape[1] == 1 + 100
    assert model.generate(**never_ends, max_length=90).shape[1] == 90
    assert model.generate(**never_ends, generation_config=GenerationConfig(max_new_tokens=80)).shape[1] == 1 + 80
    assert model.generate(**never_ends, max_new_tokens=100, max_extra_tokens=3).shape[1] == 1 + 6 + 3
    model.generation_config.max_new_tokens = 7
    assert model.generate(**never_ends).shape[1] == 1 + 7
    # A call counts more than the model: what it says of one limit, and that it takes the other back.
    assert model.generate(**never_ends, max_extra_tokens=30).shape[1] == 1 + 6 + 30
    assert model.generate(**never_ends, generation_config=GenerationConfig(max_extra_tokens=30)).shape[1] == 1 + 6 + 30
    assert model.generate(**never_ends, max_new_tokens=75).shape[1] == 1 + 75
    assert model.generate(**never_ends, max_new_tokens=None).shape[1] == 1 + 6 + 50
    with pytest.raises(ValueError, match="`max_extra_tokens`=True is not allowed"):
        model.generate(**never_ends, max_extra_tokens=True)


class Pairs(torch.utils.data.Dataset):
    def __init__(self, model):
        self.rows = [row_of(sources(model, [5, 3]), row) for row in (0, 1)] * 2

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = {name: tensor[0] for name, tensor in self.rows[index].items()}
        return {**row, "labels": row["input_ids"]}


def test_evaluation_by_transformers_trainer_shortens_no_later_translation(tmp_path):
    """It fills in defaults, 20 tokens and a length penalty of 1 among them. These are no choice, and are not saved."""
    model = build(vocab_size=30)
    inputs = sources(model, [5, 3])
    model.generation_config.eos_token_id = None
    options = {**inputs, "num_beams": 3, "return_dict_in_generate": True}
    before = model.generate(**options)
    assert before.sequences.shape[1] == 1 + 5 + 50
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(tmp_path / "run"), predict_with_generate=True, use_cpu=True, per_device_eval_batch_size=2
    )

    def padded(rows):
        return {
            name: torch.nn.utils.rnn.pad_sequence([row[name] for row in rows], True, {"labels": -100}.get(name, 0))
            for name in rows[0]
        }

    trainer = Seq2SeqTrainer(model=model, args=arguments, data_collator=padded)
    predicted = trainer.predict(Pairs(model)).predictions
    assert predicted.shape[1] == 1 + 5 + 50
    assert model.generation_config.max_length == 20  # filled in
    model.eval()
    after = model.generate(**options)
    assert torch.equal(after.sequences, before.sequences)
    assert torch.equal(after.sequences_scores, before.sequences_scores)
    trainer.save_model(str(tmp_path / "saved"))
    saved = GenerationConfig.from_pretrained(tmp_path / "saved")
    assert (saved.max_length, saved.length_penalty, saved.gnmt_length_penalty) == (None, None, 0.6)
    loaded = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path / "saved").eval()
    assert torch.equal(loaded.generate(**options).sequences, before.sequences)
    # What somebody then chooses himself is a choice, whatever its value.
    model.generation_config.max_length = 20
    assert model.generate(**options).sequences.shape[1] == 20


# What cannot be is no hypothesis


def test_beams_of_samples_go_on_when_some_sentences_have_reached_their_limit():
    model = build(vocab_size=30, seed=1)
    ids = model.generate(**sources(model, [9, 1]), num_beams=2, do_sample=True, max_extra_tokens=2, eos_token_id=None)
    assert ids.shape == (2, 1 + 9 + 2)
    assert ids[1, 1 + 1 + 2 :].eq(PAD).all()


def test_impossible_continuations_are_never_hypotheses():
    model = build(vocab_size=20, seed=1)
    inputs = sources(model, [3, 2])
    options = {
        **inputs,
        "num_beams": 4,
        "num_return_sequences": 4,
        "max_new_tokens": 3,
        "return_dict_in_generate": True,
    }
    only_two = model.generate(**options, prefix_allowed_tokens_fn=lambda row, ids: [7, EOS] if len(ids) == 1 else [EOS])
    for row in range(2):
        found = [without_padding(ids) for ids in only_two.sequences[4 * row : 4 * row + 4]]
        scores = only_two.sequences_scores[4 * row : 4 * row + 4]
        assert sorted(found[:2]) == [[EOS], [7, EOS]]
        assert scores[:2].isfinite().all()
        assert scores[2:].eq(-torch.inf).all()
        assert all(set(ids) <= {PAD} for ids in found[2:])
    forced = model.generate(**options, forced_bos_token_id=9)
    assert forced.sequences_scores.isfinite().all()
    assert forced.sequences[:, 1].eq(9).all()


# Several processes that have to run the model together


def stay_in_step(rank, folder):
    """What each of two processes does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = build(vocab_size=30, seed=1)
    inputs = sources(model, [[9, 4], [1, 2]][rank])
    expected = {}
    ways = {
        "beams": {"num_beams": 3, "num_return_sequences": 2, "max_extra_tokens": 2},
        "ended by criteria": {"num_beams": 2, "max_new_tokens": [3, 11][rank], "eos_token_id": None},
        "greedy": {"num_beams": 1, "max_extra_tokens": 3},
        "samples": {"num_beams": 2, "do_sample": True, "max_extra_tokens": 4},
    }
    for name, options in ways.items():
        torch.manual_seed(rank)
        expected[name] = model.generate(**inputs, **options, output_hidden_states=True)  # by forward(), as below
    calls = []

    def meet(*args):
        # What a divided model does before it computes: gathers the weights of all.
        calls.append(1)
        dist.all_reduce(torch.ones(1))

    model.register_forward_pre_hook(meet)
    for part in model.get_decoder().modules():
        if isinstance(part, nn.Linear):  # each alone, as ZeRO-3 gathers weights
            part.register_forward_pre_hook(meet)
    for name, options in ways.items():
        torch.manual_seed(rank)
        found = model.generate(**inputs, **options, synced_gpus=True)
        assert torch.equal(found, expected[name]), name
    count = torch.tensor([len(calls)])
    counts = [torch.zeros_like(count) for _ in range(2)]
    dist.all_gather(counts, count)
    assert counts[0] == counts[1] > 0, counts
    dist.destroy_process_group()


def test_processes_of_unequal_work_stay_in_step(tmp_path):
    """As under FSDP and ZeRO-3: no process can run the model unless all do, and each finds what it finds alone."""
    context = child_processes.prepared()
    ranks = [context.Process(target=stay_in_step, args=(rank, tmp_path)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    assert [child_processes.exit_code(rank, 180) for rank in ranks] == [0, 0]
