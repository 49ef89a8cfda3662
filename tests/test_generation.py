"""`generate()` in every mode: against forced decoding, the plain loop, and the modes against one another."""

import copy

import checkpointing
import pytest
import torch
from test_decoding import in_the_loop_of_transformers, row_of
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MarianConfig,
    MarianMTModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.modeling_compatibility import CACHE

PAD, EOS, VOCAB = 1, 2, 50


def build(seed=3, **fields):
    torch.manual_seed(seed)
    shape = {"vocab_size": VOCAB, "d_model": 16, "num_heads": 2, "d_ff": 32, "num_encoder_layers": 1}
    config = VanillaTransformerConfig(**{**shape, "num_decoder_layers": 2, **fields})
    model = VanillaTransformerForConditionalGeneration(config).eval()
    # transformers' own defaults; those of the paper are tested in test_decoding.py.
    model.generation_config = GenerationConfig.from_model_config(config)
    with torch.no_grad():
        # Random weights prefer one token by far; this makes outputs varied, and some of them end.
        model.get_input_embeddings().weight.mul_(2.5)
    return model


@pytest.fixture(scope="module", params=["post", "pre"])
def model(request):
    return build(norm_position=request.param, d_k=5, d_v=7)


@pytest.fixture(scope="module")
def inputs():
    source = torch.randint(4, VOCAB, (4, 7), generator=torch.Generator().manual_seed(1))
    source[1, 5:] = PAD
    source[3, 2:] = PAD
    return {"input_ids": source, "attention_mask": source.ne(PAD).long()}


def greedy_by_hand(model, inputs, steps):
    """No cache, no generate: the whole prefix again for every token."""
    ids = torch.zeros(len(inputs["input_ids"]), 1, dtype=torch.long)
    done = torch.zeros(len(ids), dtype=torch.bool)
    for _ in range(steps):
        following = model(**inputs, decoder_input_ids=ids, use_cache=False).logits[:, -1].argmax(-1)
        following[done] = PAD
        ids = torch.cat([ids, following[:, None]], dim=1)
        done |= following.eq(EOS)
        if done.all():
            break
    return ids


def test_greedy_is_the_argmax_of_a_full_forward_at_each_step(model, inputs):
    expected = greedy_by_hand(model, inputs, 12)
    assert torch.equal(model.generate(**inputs, max_new_tokens=12), expected)
    assert len({tuple(row) for row in expected.tolist()}) > 1


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}])
@pytest.mark.parametrize(
    "cache", [{"use_cache": False}, {"cache_implementation": "static"}, {"cache_implementation": "dynamic"}]
)
def test_every_cache_gives_the_same_ids(model, inputs, options, cache):
    expected = model.generate(**inputs, max_new_tokens=9, **options)
    assert torch.equal(model.generate(**inputs, max_new_tokens=9, **options, **cache), expected)


def forced_log_probs(model, source, mask, ids):
    """Log-probability of each token of `ids` after the start token, by one forward pass."""
    logits = model(input_ids=source, attention_mask=mask, decoder_input_ids=ids[:, :-1]).logits
    return logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0])
def test_n_best_scores_are_those_of_forced_decoding(model, inputs, length_penalty):
    output = model.generate(
        **inputs, max_new_tokens=8, num_beams=4, num_return_sequences=3, length_penalty=length_penalty,
        output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    source, mask = (inputs[name].repeat_interleave(3, dim=0) for name in ("input_ids", "attention_mask"))
    log_probs = forced_log_probs(model, source, mask, output.sequences)
    tokens = output.sequences[:, 1:]
    counted = tokens.ne(PAD)
    scores = (log_probs * counted).sum(1) / counted.sum(1) ** length_penalty
    torch.testing.assert_close(output.sequences_scores, scores, rtol=1e-5, atol=1e-5)
    by_sentence = output.sequences_scores.view(4, 3)
    assert torch.equal(by_sentence, by_sentence.sort(dim=1, descending=True).values)


def test_beam_search_finds_nothing_worse_than_greedy(model, inputs):
    greedy = model.generate(**inputs, max_new_tokens=8)
    beams = model.generate(**inputs, max_new_tokens=8, num_beams=16, length_penalty=0.0)
    totals = [
        (forced_log_probs(model, source=inputs["input_ids"], mask=inputs["attention_mask"], ids=ids)
         * ids[:, 1:].ne(PAD)).sum(1) for ids in (greedy, beams)
    ]  # fmt: skip
    assert (totals[1] >= totals[0] - 1e-5).all()


def test_finished_rows_are_filled_with_pad_in_every_mode(inputs):
    model = build(seed=0)
    stop_early = StopTokenAfter(row=0, step=2)
    for options in ({}, {"num_beams": 3}, {"do_sample": True}):
        torch.manual_seed(0)
        processors = LogitsProcessorList([stop_early])
        ids = model.generate(**inputs, max_new_tokens=8, logits_processor=processors, **options)
        ended = [row.tolist().index(EOS) for row in ids if EOS in row.tolist()]
        assert ended, options
        for row in ids.tolist():
            if EOS in row:
                assert set(row[row.index(EOS) + 1 :]) <= {PAD}, options


class StopTokenAfter(LogitsProcessor):
    """Makes a sentence end after some tokens."""

    def __init__(self, row, step):
        self.row, self.step = row, step

    def __call__(self, input_ids, scores):
        if input_ids.shape[1] > self.step:
            beams = scores.shape[0] // 4
            rows = slice(self.row * beams, (self.row + 1) * beams)
            scores = scores.clone()
            scores[rows] = -1e9
            scores[rows, EOS] = 0
        return scores


def test_sampling_follows_the_seed_and_the_distribution(model, inputs):
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(model.generate(**inputs, max_new_tokens=6, do_sample=True, temperature=2.0))
    assert torch.equal(draws[0], draws[1])
    assert draws[0].shape != draws[2].shape or not torch.equal(draws[0], draws[2])
    # One step, many times: frequencies near the probabilities.
    one = {name: tensor[:1] for name, tensor in inputs.items()}
    probabilities = model(**one, decoder_input_ids=torch.zeros(1, 1, dtype=torch.long)).logits[0, 0].softmax(-1)
    ids = model.generate(**one, max_new_tokens=1, do_sample=True, top_k=0, num_return_sequences=4000)
    frequencies = torch.bincount(ids[:, 1], minlength=VOCAB) / 4000
    assert (frequencies - probabilities).abs().max() < 5 * (0.25 / 4000) ** 0.5  # five standard deviations


@pytest.mark.parametrize("helper", ["assistant", "lookup"])
def test_assisted_and_prompt_lookup_decoding_equal_greedy(model, inputs, helper):
    assistant = build(seed=9, num_decoder_layers=1, norm_position=model.config.norm_position)
    options = {"assistant_model": assistant} if helper == "assistant" else {"prompt_lookup_num_tokens": 2}
    for row in range(4):
        one = {name: tensor[row : row + 1] for name, tensor in inputs.items()}
        expected = model.generate(**one, max_new_tokens=10)
        assert torch.equal(model.generate(**one, max_new_tokens=10, **options), expected)


def test_a_copy_of_the_model_assists_itself(model, inputs):
    one = {name: tensor[:1] for name, tensor in inputs.items()}
    expected = model.generate(**one, max_new_tokens=10)
    assert torch.equal(model.generate(**one, max_new_tokens=10, assistant_model=copy.deepcopy(model)), expected)


def test_from_encoder_outputs_and_from_embeddings(model, inputs):
    expected = model.generate(**inputs, max_new_tokens=8)
    encoded = model.get_encoder()(**inputs)
    mask = inputs["attention_mask"]
    assert torch.equal(model.generate(encoder_outputs=encoded, attention_mask=mask, max_new_tokens=8), expected)
    embedded = model.get_input_embeddings()(inputs["input_ids"])
    assert torch.equal(model.generate(inputs_embeds=embedded, attention_mask=mask, max_new_tokens=8), expected)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}])
def test_a_forced_prefix_is_kept_and_continued(model, inputs, options):
    prefix = torch.tensor([[0, 20, 21]] * 4)
    ids = model.generate(**inputs, decoder_input_ids=prefix, max_new_tokens=6, **options)
    assert torch.equal(ids[:, :3], prefix)
    if not options:
        following = model(**inputs, decoder_input_ids=prefix).logits[:, -1].argmax(-1)
        assert torch.equal(ids[:, 3], following)


def test_what_generate_can_return_has_its_shapes(inputs):
    model = build()
    model.set_attn_implementation("eager")
    output = model.generate(
        **inputs, max_new_tokens=3, min_new_tokens=3, output_scores=True, output_logits=True, output_attentions=True,
        output_hidden_states=True, return_dict_in_generate=True,
    )  # fmt: skip
    assert [len(part) for part in (output.scores, output.logits, output.decoder_attentions)] == [3, 3, 3]
    assert output.scores[0].shape == (4, VOCAB)
    assert (len(output.encoder_attentions), len(output.encoder_hidden_states)) == (1, 2)
    assert output.encoder_hidden_states[0].shape == (4, 7, 16)
    for step in range(3):
        assert (len(output.decoder_attentions[step]), len(output.cross_attentions[step])) == (2, 2)
        assert output.decoder_attentions[step][0].shape == (4, 2, 1, step + 1)
        assert output.cross_attentions[step][0].shape == (4, 2, 1, 7)
        assert len(output.decoder_hidden_states[step]) == 3


def test_processors_criteria_and_streamers_are_used(model, inputs):
    banned = model.generate(**inputs, max_new_tokens=1)[0, 1].item()
    assert banned not in model.generate(**inputs, max_new_tokens=6, bad_words_ids=[[banned]])[:, 1:]
    assert not model.generate(**inputs, max_new_tokens=6, min_new_tokens=6).eq(EOS).any()
    assert model.generate(**inputs, max_new_tokens=6, min_new_tokens=6, forced_eos_token_id=EOS)[:, -1].eq(EOS).all()

    class StopAtFour(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return torch.full((len(input_ids),), input_ids.shape[1] >= 4)

    stopped = model.generate(
        **inputs, max_new_tokens=9, min_new_tokens=9, stopping_criteria=StoppingCriteriaList([StopAtFour()])
    )
    assert stopped.shape[1] == 4

    class Streamer:
        def __init__(self):
            self.tokens = []

        def put(self, value):
            self.tokens += value.flatten().tolist()

        def end(self):
            self.tokens.append("end")

    streamer, one = Streamer(), {name: tensor[:1] for name, tensor in inputs.items()}
    ids = model.generate(**one, max_new_tokens=5, streamer=streamer)
    assert streamer.tokens == [*ids[0].tolist(), "end"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_generates_and_mostly_agrees(model, inputs, dtype):
    half = copy.deepcopy(model).to(dtype)
    logits = half(**inputs, decoder_input_ids=torch.zeros(4, 1, dtype=torch.long)).logits
    assert logits.isfinite().all()
    expected = model.generate(**inputs, max_new_tokens=1, min_new_tokens=1)
    assert (half.generate(**inputs, max_new_tokens=1, min_new_tokens=1) == expected).float().mean() > 0.7
    assert half.generate(**inputs, max_new_tokens=6, num_beams=2).shape[0] == 4


def test_a_cache_can_be_handed_on(model, inputs):
    """Two tokens, then four more from the cache of the first two, equal six at once."""
    whole = model.generate(**inputs, max_new_tokens=6, min_new_tokens=6)
    first = model.generate(**inputs, max_new_tokens=2, min_new_tokens=2, return_dict_in_generate=True)
    second = model.generate(
        **inputs,
        decoder_input_ids=first.sequences,
        decoder_attention_mask=torch.ones_like(first.sequences),  # says that the ids are all, and not only the new
        **{CACHE: first[CACHE]},
        max_new_tokens=4,
        min_new_tokens=4,
    )
    assert torch.equal(second, whole)


def test_a_cached_step_compiles_to_one_graph_and_to_the_same_ids(inputs):
    model = build()
    expected = model.generate(**inputs, max_new_tokens=4, cache_implementation="static")
    model.forward = torch.compile(model.forward, backend="eager", fullgraph=True)
    assert torch.equal(model.generate(**inputs, max_new_tokens=4, cache_implementation="static"), expected)


# Every mode of search against plain loops over full passes: no cache, no `generate()`, one sentence at a time. This is
# what has to hold on every version of transformers.


def next_log_probs(model, one, ids):
    """(V,) after the tokens `ids` of one sentence."""
    return model(**one, decoder_input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].log_softmax(-1)


def beams_by_hand(model, one, num_beams, limit, penalty):
    """Hypotheses (score, tokens), the best first: the first K of 2K candidates may end, the first K others go on."""
    open_beams, finished = [(0.0, [0])], []
    for length in range(1, limit + 1):
        candidates = []
        for total, ids in open_beams:
            log_probs = next_log_probs(model, one, ids)
            candidates += [(total + log_probs[token].item(), [*ids, token]) for token in range(VOCAB)]
        candidates = sorted(candidates, key=lambda candidate: -candidate[0])[: 2 * num_beams]
        ends = [ids[-1] == EOS or length == limit for _, ids in candidates]
        ended = [each for each, end in list(zip(candidates, ends))[:num_beams] if end]
        finished += [(total / penalty(length), ids) for total, ids in ended]
        finished = sorted(finished, key=lambda hypothesis: -hypothesis[0])[:num_beams]
        open_beams = [each for each, end in zip(candidates, ends) if not end][:num_beams]
        if not open_beams:
            break
    return finished


HOW = {
    "usual": {},
    "static": {"cache_implementation": "static"},
    "dynamic": {"cache_implementation": "dynamic"},
    "without cache": {"use_cache": False},
    "through forward()": {"output_hidden_states": True},
}


@pytest.mark.parametrize("how", HOW)
def test_beams_equal_a_loop_over_full_passes(model, inputs, how):
    output = model.generate(
        **inputs, **HOW[how], num_beams=3, num_return_sequences=3, gnmt_length_penalty=0.6, max_new_tokens=6,
        return_dict_in_generate=True,
    )  # fmt: skip
    for row in range(4):
        expected = beams_by_hand(model, row_of(inputs, row), 3, 6, lambda length: ((5 + length) / 6) ** 0.6)
        for rank, (score, ids) in enumerate(expected):
            found = output.sequences[3 * row + rank].tolist()
            assert found[: len(ids)] == ids
            assert set(found[len(ids) :]) <= {PAD}
            assert output.sequences_scores[3 * row + rank].item() == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("how", HOW)
def test_greedy_and_sampling_equal_loops_over_full_passes(model, inputs, how):
    options = {**inputs, **HOW[how], "max_new_tokens": 7, "return_dict_in_generate": True, "output_scores": True}
    output = model.generate(**options)
    assert torch.equal(output.sequences, greedy_by_hand(model, inputs, 7))
    for step, scores in enumerate(output.scores):
        ids = output.sequences[:, : step + 1]
        expected = model(**inputs, decoder_input_ids=ids, use_cache=False).logits[:, -1]
        is_open = ids.ne(EOS).all(1)
        torch.testing.assert_close(scores[is_open], expected[is_open], rtol=0, atol=1e-5)
    torch.manual_seed(4)
    drawn = model.generate(**options, do_sample=True, top_k=0).sequences
    torch.manual_seed(4)
    ids, done = torch.zeros(4, 1, dtype=torch.long), torch.zeros(4, dtype=torch.bool)
    while ids.shape[1] < 8 and not done.all():
        probabilities = model(**inputs, decoder_input_ids=ids, use_cache=False).logits[:, -1].softmax(-1)
        following = torch.multinomial(probabilities, 1).squeeze(1).masked_fill(done, PAD)
        ids, done = torch.cat([ids, following[:, None]], dim=1), done | following.eq(EOS)
    assert torch.equal(drawn, ids)


@pytest.mark.parametrize("how", ["usual", "without cache"])
def test_beams_of_samples_follow_the_draws_of_transformers(model, inputs, how):
    """The same numbers are drawn in the same order as by the loop of the installed version, over full passes."""
    other = in_the_loop_of_transformers(model)
    options = {
        **inputs, "do_sample": True, "num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 6,
        "length_penalty": 1.0, "return_dict_in_generate": True, "output_scores": True,
    }  # fmt: skip
    for seed in range(6):
        torch.manual_seed(seed)
        expected = other.generate(**options, use_cache=False)
        torch.manual_seed(seed)
        found = model.generate(**options, **HOW[how])
        assert torch.equal(found.sequences, expected.sequences)
        torch.testing.assert_close(found.sequences_scores, expected.sequences_scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("with_checkpoints", [False, True])
@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "gnmt_length_penalty": 0.6}])
def test_a_model_in_train_mode_generates_what_it_says(with_checkpoints, options):
    """Without dropout train mode changes nothing; gradient checkpointing changes nothing either."""
    model = build(dropout=0.0)
    source = torch.tensor([[5, 6, 7, EOS], [8, 9, EOS, PAD]])
    inputs = {"input_ids": source, "attention_mask": source.ne(PAD).long()}
    expected = model.generate(**inputs, max_new_tokens=8, **options)
    if with_checkpoints:
        checkpointing.enable(model)
    model.train()
    assert torch.equal(model.generate(**inputs, max_new_tokens=8, **options), expected)


def test_training_with_checkpoints_and_a_cache_is_refused():
    model = build(dropout=0.0)
    source, start = torch.tensor([[5, 6, EOS]]), torch.zeros(1, 1, dtype=torch.long)
    cache = model(input_ids=source, decoder_input_ids=start)[CACHE]
    checkpointing.enable(model)
    model.train()
    with pytest.raises(ValueError, match="gradient checkpointing cannot train with a cache"):
        model(input_ids=source, decoder_input_ids=start, cache=cache)


def calls_of_the_target(model, inputs, steps):
    calls = []
    handle = model.register_forward_hook(lambda *args: calls.append(1))
    assistant = copy.deepcopy(model)
    assistant._forward_hooks.clear()
    assistant.generation_config.num_assistant_tokens = 5
    assistant.generation_config.num_assistant_tokens_schedule = "constant"
    assistant.generation_config.assistant_confidence_threshold = 0.0
    ids = model.generate(**inputs, assistant_model=assistant, max_new_tokens=steps, min_new_tokens=steps, num_beams=1)
    handle.remove()
    return ids, len(calls)


def test_an_assistant_sees_the_source_so_that_its_drafts_are_taken():
    """With itself as an assistant a model needs as few calls as MarianMT does, not one a token."""
    model = build(vocab_size=VOCAB)
    config = MarianConfig(
        vocab_size=VOCAB, d_model=16, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, pad_token_id=PAD, eos_token_id=EOS,
        decoder_start_token_id=0, forced_eos_token_id=None,
    )  # fmt: skip
    marian = MarianMTModel(config).eval()
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8, 9, EOS]]), "attention_mask": torch.ones(1, 6, dtype=torch.long)}
    ids, calls = calls_of_the_target(model, inputs, 20)
    assert torch.equal(ids, model.generate(**inputs, max_new_tokens=20, min_new_tokens=20, num_beams=1))
    _, calls_of_marian = calls_of_the_target(marian, inputs, 20)
    assert calls <= calls_of_marian < 20


@pytest.mark.parametrize("seed", range(4))
def test_a_cache_is_handed_on_with_the_whole_prefix_and_no_mask(inputs, seed):
    """The part of the prefix that is in the cache is not read again."""
    model = build(seed, tie_word_embeddings=False)
    options = {**inputs, "eos_token_id": None, "return_dict_in_generate": True}
    whole = model.generate(**options, max_new_tokens=8).sequences
    first = model.generate(**options, max_new_tokens=4)
    handed_on = {"decoder_input_ids": first.sequences, CACHE: first[CACHE]}
    second = model.generate(**options, **handed_on, max_new_tokens=4)
    assert torch.equal(second.sequences, whole)
    assert second[CACHE].get_seq_length() == 8
    with pytest.raises(ValueError, match="the cache has 8 positions, but `decoder_input_ids` only 2 with the start"):
        model.generate(**inputs, decoder_input_ids=whole[:, -1:], **{CACHE: second[CACHE]}, max_new_tokens=1)


def test_asking_for_attention_once_leaves_decoding_as_fast_as_it_was(inputs):
    model = build()
    model(**inputs, decoder_input_ids=torch.zeros(4, 1, dtype=torch.long), output_attentions=True)
    assert model._can_share_rows()
    model.model.decoder.layers[0].register_forward_hook(lambda *args: None)
    assert not model._can_share_rows()


def test_attention_with_a_mask_of_another_kind_is_refused_by_name(inputs):
    model = build()
    states = model.get_encoder()(**inputs).last_hidden_state
    with pytest.raises(
        ValueError, match="`output_attentions` cannot be had with a str, which generation with a static"
    ):
        model.get_decoder()(
            input_ids=torch.zeros(4, 1, dtype=torch.long), encoder_hidden_states=states, attention_mask="blocks",
            output_attentions=True,
        )  # fmt: skip
