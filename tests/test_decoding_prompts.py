"""`generate()` without an encoder: against every continuation there is, full passes, and transformers' own loop."""

import itertools

import pytest
import torch
from transformers import DynamicCache, GenerationConfig, GenerationMixin
from variants import OF_ONE_STACK

from hf_vanilla_transformer import VanillaTransformerDecoderConfig, VanillaTransformerForCausalLM
from hf_vanilla_transformer import decoding_self_check as self_check
from hf_vanilla_transformer.decoding_beam_search import gnmt_length_penalty
from hf_vanilla_transformer.decoding_cache import DECODING_STATES, GrowingLayer
from hf_vanilla_transformer.decoding_incremental import can_share_rows
from hf_vanilla_transformer.decoding_prompts import PromptDecoder

PAD, EOS = 1, 2
PREFIX = {"prefix_visibility": "bidirectional"}
KINDS = {
    "plain": {},
    "pre": {"norm_position": "pre", "d_k": 6, "d_v": 10},
    "learned": {"position_encoding": "learned", "num_learned_positions": 30},
    "prefix": PREFIX,
    **OF_ONE_STACK,
    **{f"prefix_{name}": {**OF_ONE_STACK[name], **PREFIX} for name in ("rotary", "t5_relative", "strided", "many")},
}


def build(vocab_size=5, seed=0, sharpness=2.0, **fields):
    torch.manual_seed(seed)
    shape = {"d_model": 16, "num_heads": 4, "d_ff": 32, "num_decoder_layers": 2}
    config = VanillaTransformerDecoderConfig(vocab_size=vocab_size, **{**shape, **fields})
    model = VanillaTransformerForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases, and biases of distances, are zero at first
            parameter.add_(torch.randn_like(parameter) * 0.05)
        model.get_input_embeddings().weight.mul_(sharpness)
    return model


def prompts(model, lengths, side="left", seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in enumerate(lengths):
        places = slice(0, length) if side == "right" else slice(max(lengths) - length, None)
        ids[row, places] = torch.randint(3, model.config.vocab_size, (length,), generator=generator)
    return {"input_ids": ids, "attention_mask": ids.ne(PAD).long()}


def alone(inputs, row):
    return inputs["input_ids"][row : row + 1, inputs["attention_mask"][row].bool()]


@torch.no_grad()
def forced_log_probs(model, prompt, targets):
    """(N, T) log-probabilities of continuations (N, T) of a prompt (1, P), by one pass without padding or cache."""
    ids = torch.cat([prompt.expand(len(targets), -1), targets], dim=1)
    is_prefix = model.config.prefix_visibility == "bidirectional"
    length = {"prefix_length": torch.full((len(ids),), prompt.shape[1])} if is_prefix else {}
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **length).logits
    following = logits[:, prompt.shape[1] - 1 : -1]
    return following.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def every_continuation(model, prompt, limit, penalty=lambda n: 1.0):
    """Every continuation that ends with </s>, or at the limit, with its score by the formula; the best first."""
    others = [token for token in range(model.config.vocab_size) if token != EOS]
    found = []
    for length in range(1, limit + 1):
        last = range(model.config.vocab_size) if length == limit else [EOS]
        targets = torch.tensor([[*body, end] for body in itertools.product(others, repeat=length - 1) for end in last])
        scores = forced_log_probs(model, prompt, targets).double().sum(1) / penalty(length)
        found += list(zip(scores.tolist(), targets.tolist(), strict=True))
    return sorted(found, key=lambda each: -each[0])


@pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS)
def test_a_beam_wide_enough_finds_the_best_of_all_continuations(fields, tmp_path):
    """Also after saving and loading, padded on either side, by the fast way to decode and without a cache."""
    model = build(**fields)
    model.save_pretrained(tmp_path)
    loaded = VanillaTransformerForCausalLM.from_pretrained(tmp_path)
    assert can_share_rows(loaded.get_decoder())
    inputs = prompts(model, [3, 6])
    best = [every_continuation(model, alone(inputs, row), 3)[0] for row in range(2)]
    right = prompts(model, [3, 6], side="right")
    static = {"cache_implementation": "static"} if model.config.attention == "softmax" else {}
    for given, options in ((inputs, {}), (right, {}), (inputs, {"use_cache": False}), (right, static)):
        output = loaded.generate(
            **given, **options, num_beams=50, length_penalty=0.0, max_new_tokens=3, return_dict_in_generate=True
        )
        for row, (score, tokens) in enumerate(best):
            assert output.sequences_scores[row].item() == pytest.approx(score, abs=1e-5)
            assert output.sequences[row, 6 : 6 + len(tokens)].tolist() == tokens
        assert torch.equal(output.sequences[:, :6], inputs["input_ids"])


@pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS)
def test_step_by_step_logits_of_beams_are_those_of_the_whole_text(fields):
    model = build(vocab_size=40, **fields)
    inputs = prompts(model, [2, 5])
    tolerance = 1e-4 if model.config.feature_map == "cosine_sine" else 1e-5  # its sums are small differences
    is_prefix = model.config.prefix_visibility == "bidirectional"
    length = inputs["attention_mask"].sum(1) if is_prefix else None
    cache = DynamicCache()
    cache.layers = [DECODING_STATES[model.config.attention]() for _ in model.model.layers]
    with torch.no_grad():
        steps = PromptDecoder(model.model, model.lm_head, inputs["attention_mask"], length, cache)
        logits = steps.start(inputs["input_ids"]).expand(-1, 3, -1)
        beams = [[[] for _ in range(3)] for _ in range(2)]
        for step in range(4):
            for row in range(2):
                for beam in range(3):
                    text = torch.cat([alone(inputs, row), torch.tensor([beams[row][beam]], dtype=torch.long)], dim=1)
                    prefix = {"prefix_length": length[row : row + 1]} if is_prefix else {}
                    whole = model(text, torch.ones_like(text), use_cache=False, **prefix).logits[0, -1]
                    torch.testing.assert_close(logits[row, beam], whole, rtol=0, atol=tolerance)
            tokens, parents = torch.randint(3, 40, (2, 3)), torch.randint(0, 3 if step else 1, (2, 3))
            beams = [
                [[*beams[row][parents[row, beam]], int(tokens[row, beam])] for beam in range(3)] for row in range(2)
            ]
            logits = steps.advance(tokens, parents)
    assert cache.layers[0].keys.shape[0] == 2  # a row for each prompt, not for each beam


@pytest.mark.parametrize("fields", [{}, {"position_encoding": "alibi"}, PREFIX])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"output_attentions": True, "output_hidden_states": True},
        {"prompt_lookup_num_tokens": 2},
    ],
)
def test_greedy_is_the_argmax_of_a_full_pass_at_each_step(fields, how):
    model = build(vocab_size=40, seed=3, **fields)
    lengths = [5] if "prompt_lookup_num_tokens" in how else [5, 2, 7]
    inputs = prompts(model, lengths, side="right")
    output = model.generate(**inputs, **how, max_new_tokens=6, return_dict_in_generate=True)
    for row in range(len(lengths)):
        prompt, expected = alone(inputs, row), []
        for _ in range(6):
            candidates = torch.tensor([[*expected, token] for token in range(40)])
            expected.append(int(forced_log_probs(model, prompt, candidates)[:, -1].argmax()))
            if expected[-1] == EOS:
                break
        assert output.sequences[row, max(lengths) :].tolist()[: len(expected)] == expected
    if "output_attentions" in how:
        assert len(output.attentions) == len(output.hidden_states) >= 1
        assert len(output.attentions[0]) == 2
        assert len(output.hidden_states[0]) == 3


def in_the_loop_of_transformers(model):
    """The same model with transformers' own searches and cache."""
    plain = type("Plain", (VanillaTransformerForCausalLM,), {})
    for name in ("_beam_search", "_sample", "_prepare_cache_for_generation"):
        setattr(plain, name, getattr(GenerationMixin, name))
    other = plain(model.config).eval()
    other.load_state_dict(model.state_dict())
    return other


@pytest.mark.parametrize("fields", [{}, PREFIX])
@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 0.7},
        {"num_beams": 4, "early_stopping": True},
        {"num_beams": 3, "do_sample": True},
        {"do_sample": True, "top_k": 9, "temperature": 1.3, "num_return_sequences": 2},
        {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "min_new_tokens": 3},
    ],
)
def test_every_search_is_that_of_transformers(fields, options):
    model = build(vocab_size=60, seed=5, sharpness=3.0, **fields)
    inputs, drawn = prompts(model, [4, 7, 2]), []
    for each in (model, in_the_loop_of_transformers(model)):
        torch.manual_seed(0)
        options = {**options, "max_new_tokens": 8, "return_dict_in_generate": True, "output_scores": True}
        drawn.append(each.generate(**inputs, **options))
    ours, theirs = drawn
    assert torch.equal(ours.sequences, theirs.sequences)
    torch.testing.assert_close(ours.scores[-1], theirs.scores[-1], rtol=1e-4, atol=1e-4)
    if "num_beams" in options:
        torch.testing.assert_close(ours.sequences_scores, theirs.sequences_scores, rtol=1e-5, atol=1e-5)
        assert torch.equal(ours.beam_indices, theirs.beam_indices.long())


def test_the_penalty_and_the_limit_of_the_paper_count_from_the_end_of_each_prompt():
    model = build(seed=1)
    inputs = prompts(model, [2, 1])
    options = {"gnmt_length_penalty": 0.6, "max_extra_tokens": 1, "num_beams": 60, "return_dict_in_generate": True}
    output = model.generate(**inputs, **options)
    for row, length in enumerate([2, 1]):
        penalty = lambda n: gnmt_length_penalty(n, 0.6)  # noqa: E731
        score, tokens = every_continuation(model, alone(inputs, row), length + 1, penalty)[0]
        assert output.sequences_scores[row].item() == pytest.approx(score, abs=1e-5)
        assert output.sequences[row, 2 : 2 + len(tokens)].tolist() == tokens
    never = model.generate(**inputs, max_extra_tokens=3, eos_token_id=None)
    assert never.shape == (2, 2 + 2 + 3)
    assert never[1, -1].item() == PAD


def test_a_new_model_decodes_as_transformers_defaults_say():
    config = build().generation_config
    assert config.num_beams in (None, 1)
    assert getattr(config, "gnmt_length_penalty", None) is getattr(config, "max_extra_tokens", None) is None


def test_finished_prompts_leave_the_batch_and_nothing_changes():
    model = build(vocab_size=30, seed=2, sharpness=3.0)
    inputs = prompts(model, [4, 9, 2, 5, 7, 1])
    for options in ({}, {"num_beams": 3}):
        together = model.generate(**inputs, max_extra_tokens=6, **options)
        for row in range(6):
            one = model.generate(alone(inputs, row), max_extra_tokens=6, **options)[0]
            new = one[int(inputs["attention_mask"][row].sum()) :]
            assert together[row, 9 : 9 + len(new)].tolist() == new.tolist()


def test_a_cache_and_embeddings_can_be_continued():
    model = build(vocab_size=40, seed=3)
    inputs = prompts(model, [6, 4])
    first = model.generate(**inputs, max_new_tokens=3, eos_token_id=None, return_dict_in_generate=True)
    mask = torch.cat([inputs["attention_mask"], torch.ones(2, 3, dtype=torch.long)], dim=1)
    rest = {"attention_mask": mask, "max_new_tokens": 4, "eos_token_id": None}
    expected = model.generate(first.sequences, **rest)
    assert torch.equal(model.generate(first.sequences, cache=first.cache, **rest), expected)
    with pytest.raises(ValueError, match="the cache has 12 positions, the prompt 9 tokens"):
        model.generate(first.sequences, cache=first.cache, **rest)
    embeddings = model.get_input_embeddings()(inputs["input_ids"])
    from_embeddings = model.generate(
        inputs_embeds=embeddings, attention_mask=inputs["attention_mask"], max_new_tokens=3, eos_token_id=None
    )
    assert torch.equal(from_embeddings, first.sequences[:, 6:])


def test_prompts_without_a_mask_are_read_as_with_one():
    model = build(vocab_size=40, seed=3)
    inputs = prompts(model, [6, 4], side="right")
    expected = model.generate(**inputs, max_new_tokens=4)
    assert torch.equal(model.generate(inputs["input_ids"], max_new_tokens=4), expected)


def test_positions_of_a_caller_are_honoured():
    model = build(vocab_size=40, seed=3)
    ids = prompts(model, [6])["input_ids"]
    shifted = model.generate(ids, position_ids=torch.arange(6)[None] + 20, max_new_tokens=1, output_logits=True,
                             return_dict_in_generate=True)  # fmt: skip
    expected = model(ids, position_ids=torch.arange(6)[None] + 20).logits[:, -1]
    torch.testing.assert_close(shifted.logits[0], expected, rtol=0, atol=1e-5)


def test_a_cache_does_not_say_how_long_its_prefix_is():
    model = build(vocab_size=40, **PREFIX)
    ids = prompts(model, [6])["input_ids"]
    first = model.generate(ids, max_new_tokens=2, eos_token_id=None, return_dict_in_generate=True)
    more = {"cache": first.cache, "max_new_tokens": 2, "eos_token_id": None}
    with pytest.raises(ValueError, match="give `prefix_length`"):
        model.generate(first.sequences, **more)
    whole = model.generate(ids, max_new_tokens=4, eos_token_id=None)
    assert torch.equal(model.generate(first.sequences, prefix_length=torch.tensor([6]), **more), whole)


def test_generate_refuses_the_prefixes_that_the_model_refuses():
    ids = prompts(build(vocab_size=40), [6, 6])["input_ids"]
    for fields, length, message in (
        ({}, [2, 2], "`prefix_length` changes nothing with `prefix_visibility`='causal'"),
        (PREFIX, [2], r"`prefix_length` has the shape \(1,\); give it one number for each of the 2 texts"),
        (PREFIX, [6, 7], "is more than there is to see in the texts"),
    ):
        with pytest.raises(ValueError, match=message):
            build(vocab_size=40, **fields).generate(ids, prefix_length=torch.tensor(length), max_new_tokens=1)


@pytest.mark.parametrize("fields", [{}, PREFIX], ids=["causal", "prefix"])
@pytest.mark.parametrize("of_assistant", [{}, PREFIX], ids=["causal", "prefix"])
def test_an_assistant_whose_drafts_are_wrong_changes_nothing(fields, of_assistant):
    """It then loses the end of its own prefix, and reads it again."""
    model, assistant = build(vocab_size=40, seed=3, **fields), build(vocab_size=40, seed=4, **of_assistant)
    ids = prompts(model, [6])["input_ids"]
    expected = model.generate(ids, max_new_tokens=6, eos_token_id=None)
    draft = assistant.generate(ids, max_new_tokens=1)
    assert draft[0, 6] != expected[0, 6]
    helped = model.generate(ids, max_new_tokens=6, eos_token_id=None, assistant_model=assistant)
    assert torch.equal(helped, expected)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_what_sees_rows_gets_a_row_for_each_beam(num_beams):
    """A hook on a layer may not mistake beams for positions."""
    model, seen = build(vocab_size=40, seed=3), []
    inputs = prompts(model, [4, 3])
    expected = model.generate(**inputs, num_beams=num_beams, max_new_tokens=3, eos_token_id=None)
    model.model.layers[0].register_forward_hook(lambda module, args, output: seen.append(tuple(output.shape)))
    ids = model.generate(**inputs, num_beams=num_beams, max_new_tokens=3, eos_token_id=None)
    assert torch.equal(ids, expected)
    assert seen[1:] == [(2 * num_beams, 1, 16)] * 2


def test_a_newer_transformers_is_checked_for_this_model_too(monkeypatch):
    monkeypatch.setattr(self_check, "_found", {})
    monkeypatch.setattr(self_check, "NEWEST_TESTED_TRANSFORMERS", (5, 1))
    model = build(vocab_size=40)
    model.generate(**prompts(model, [3]), max_new_tokens=1)
    assert self_check._found == {VanillaTransformerForCausalLM: ""}
    monkeypatch.setattr(self_check, "_found", {})
    update = GrowingLayer.update
    monkeypatch.setattr(GrowingLayer, "update", lambda self, key, value, *args: update(self, key, value + 0.5, *args))
    with pytest.raises(RuntimeError, match="decodes wrongly: greedy search"):
        model.generate(**prompts(model, [3]), max_new_tokens=1)


def test_settings_of_the_search_are_saved_with_the_model(tmp_path):
    model = build()
    model.generation_config.gnmt_length_penalty = 0.6
    model.save_pretrained(tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).gnmt_length_penalty == 0.6
    assert VanillaTransformerForCausalLM.from_pretrained(tmp_path).generation_config.gnmt_length_penalty == 0.6
