"""Which transformers this works with, the cache under both of its names, and arguments that nobody knows."""

import inspect
from pathlib import Path

import pytest
import torch
import transformers
from transformers import DynamicCache, Seq2SeqTrainer, Seq2SeqTrainingArguments
from transformers.cache_utils import EncoderDecoderCache

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer import modeling_compatibility as compatibility
from hf_vanilla_transformer.modeling_compatibility import (
    CACHE,
    CACHE_NAMES,
    NEWEST_TESTED_TRANSFORMERS,
    OLDEST_TRANSFORMERS,
    PASSED_ON,
    cache_of_generation,
    parsed_version,
    refuse_old_transformers,
    with_cache_named,
)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    config = VanillaTransformerConfig(
        vocab_size=40, d_model=16, num_heads=2, d_ff=32, num_encoder_layers=1, num_decoder_layers=2
    )
    return VanillaTransformerForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def inputs():
    source = torch.tensor([[5, 6, 7, 8, 2], [9, 10, 2, 1, 1]])
    return {"input_ids": source, "attention_mask": source.ne(1).long()}


def empty_cache(model):
    return EncoderDecoderCache(DynamicCache(config=model.config), DynamicCache(config=model.config))


def test_versions_are_compared_as_numbers():
    assert parsed_version("5.9.1") < parsed_version("5.18.0") < parsed_version("5.25.0.dev0") < parsed_version("6.0rc1")


def test_the_installed_transformers_is_one_that_is_supported():
    installed = parsed_version(transformers.__version__)
    assert installed >= OLDEST_TRANSFORMERS
    if installed > NEWEST_TESTED_TRANSFORMERS:
        pytest.skip("if all other tests pass, NEWEST_TESTED_TRANSFORMERS and the range in pyproject.toml may move")


def test_the_range_of_the_project_is_the_one_that_was_tested():
    text = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    (first_major, first_minor), (major, minor) = OLDEST_TRANSFORMERS, NEWEST_TESTED_TRANSFORMERS
    assert f'"transformers>={first_major}.{first_minor},<{major}.{minor + 1}"' in text


def test_a_transformers_that_is_too_old_is_refused_by_name():
    with pytest.raises(ImportError, match=r"needs transformers 5\.18 or newer, and 5\.17\.3 is installed"):
        refuse_old_transformers("5.17.3")
    refuse_old_transformers("5.18.0")


@pytest.mark.parametrize("name", CACHE_NAMES)
def test_every_public_forward_takes_the_cache_under_either_name(model, inputs, name):
    """Two tokens and then one more from the cache give what three at once give."""
    target = torch.tensor([[0, 11, 12], [0, 13, 14]])
    states = model.get_encoder()(**inputs).last_hidden_state
    calls = {
        "head": (model, lambda ids: {**inputs, "decoder_input_ids": ids}, "logits"),
        "base": (model.model, lambda ids: {**inputs, "decoder_input_ids": ids}, "last_hidden_state"),
        "decoder": (
            model.get_decoder(),
            lambda ids: {
                "input_ids": ids,
                "encoder_hidden_states": states,
                "encoder_attention_mask": inputs["attention_mask"],
            },
            "last_hidden_state",
        ),
    }
    for call, arguments, field in calls.values():
        whole = call(**arguments(target), use_cache=False)[field]
        first = call(**arguments(target[:, :2]), **{name: empty_cache(model)})
        second = call(**arguments(target[:, 2:]), **{name: getattr(first, name)})
        torch.testing.assert_close(second[field], whole[:, 2:], rtol=0, atol=1e-5)


def test_outputs_answer_to_both_names(model, inputs):
    with_cache = model(**inputs, decoder_input_ids=torch.zeros(2, 1, dtype=torch.long))
    without = model(**inputs, decoder_input_ids=torch.zeros(2, 1, dtype=torch.long), use_cache=False)
    greedy = model.generate(**inputs, num_beams=1, max_new_tokens=2, return_dict_in_generate=True)
    hooked = model.generate(
        **inputs, num_beams=1, max_new_tokens=2, return_dict_in_generate=True, use_cache=True,
        output_hidden_states=True,
    )  # fmt: skip
    decoded = model.get_decoder()(
        input_ids=torch.zeros(2, 1, dtype=torch.long), encoder_hidden_states=with_cache.encoder_last_hidden_state
    )
    for output in (with_cache, greedy, hooked, decoded, model.model(**inputs, decoder_input_ids=inputs["input_ids"])):
        caches = [output.cache, output.past_key_values]
        caches += [output[name] for name in CACHE_NAMES] + [output.get(name) for name in CACHE_NAMES]
        assert isinstance(caches[0], EncoderDecoderCache)
        assert all(each is caches[0] for each in caches)
        assert all(name in output for name in CACHE_NAMES)
        assert CACHE in list(output.keys())
    assert without.cache is None
    assert without.past_key_values is None
    assert "cache" not in without
    assert without.get("past_key_values", 7) == 7
    assert not any(each is None for each in without.to_tuple())


def test_two_caches_are_refused(model, inputs):
    step = {**inputs, "decoder_input_ids": torch.zeros(2, 1, dtype=torch.long)}
    caches = {name: model(**step)[CACHE] for name in CACHE_NAMES}
    with pytest.raises(TypeError, match="`cache` and `past_key_values`, two names of one thing"):
        model(**step, **caches)
    with pytest.raises(TypeError, match="two names of one thing"):
        with_cache_named("cache", caches, "anything")
    # One cache under both names is one, and an empty one beside it says nothing.
    one = caches["cache"]
    assert with_cache_named("cache", {"cache": one, "past_key_values": one}, "it") == {"cache": one}
    assert with_cache_named("cache", {"cache": empty_cache(model), "past_key_values": one}, "it") == {"cache": one}
    two = {name: empty_cache(model) for name in CACHE_NAMES}
    assert with_cache_named("cache", two, "it") == {"cache": two["cache"]}


@pytest.mark.parametrize("name", CACHE_NAMES)
@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated:FutureWarning")  # what the caller wrote himself
def test_generate_takes_a_cache_under_either_name(model, inputs, name):
    expected = model.generate(**inputs, num_beams=1, max_new_tokens=6)
    for cache in (empty_cache(model), EncoderDecoderCache(DynamicCache(), DynamicCache())):
        output = model.generate(**inputs, num_beams=1, max_new_tokens=6, return_dict_in_generate=True, **{name: cache})
        assert torch.equal(output.sequences, expected)
        assert output.cache is cache
        assert cache.get_seq_length() == 6
    beams = {"num_beams": 3, "max_new_tokens": 6}
    assert torch.equal(
        model.generate(**inputs, **beams, **{name: empty_cache(model)}), model.generate(**inputs, **beams)
    )


def test_a_cache_under_a_name_of_tomorrow_is_refused(model):
    with pytest.raises(RuntimeError, match=f"transformers {transformers.__version__} hands the cache over as `memory`"):
        cache_of_generation({"memory": empty_cache(model), "use_cache": True})
    assert cache_of_generation({"use_cache": True}) is None


@pytest.mark.filterwarnings("error::FutureWarning")
def test_normal_use_causes_no_future_warning(model, inputs, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path).eval()
    for options in ({}, {"num_beams": 1}, {"do_sample": True, "num_beams": 1}, {"cache_implementation": "static"}):
        loaded.generate(**inputs, max_new_tokens=3, **options)
    loaded.train()
    output = loaded(**inputs, labels=torch.tensor([[5, 2], [6, 2]]))
    output.loss.backward()


PUBLIC = ["head", "base", "encoder", "decoder"]


def part(model, name):
    return {
        "head": model,
        "base": model.model,
        "encoder": model.get_encoder(),
        "decoder": model.get_decoder(),
    }[name]


@pytest.mark.parametrize("name", PUBLIC)
def test_an_unknown_argument_is_refused_by_name(model, inputs, name):
    called = part(model, name)
    with pytest.raises(TypeError, match=rf"{type(called).__name__}.forward\(\) does not know `head_mask`, `odd`\."):
        called(input_ids=inputs["input_ids"], head_mask=torch.ones(1), odd=3)
    with pytest.raises(TypeError, match="does not know `atention_mask`. Did you mean `attention_mask`"):
        called(input_ids=inputs["input_ids"], atention_mask=inputs["attention_mask"])


@pytest.mark.parametrize("name", PUBLIC)
def test_the_signature_says_exactly_what_is_taken(model, name):
    parameters = inspect.signature(part(model, name).forward).parameters
    assert not any(each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL) for each in parameters.values())
    assert {*PASSED_ON, "token_type_ids"} <= set(parameters)
    assert set(CACHE_NAMES).issubset(parameters) == (name != "encoder")


def test_generate_refuses_what_the_model_does_not_know(model, inputs):
    with pytest.raises(ValueError, match="head_mask"):
        model.generate(**inputs, head_mask=torch.ones(1))
    with pytest.raises(TypeError, match="does not know `cu_seq_lens_q`"):  # transformers lets this one through
        model.generate(**inputs, cu_seq_lens_q=torch.ones(1))


@pytest.mark.parametrize(
    "options", [{"num_beams": 1}, {"num_beams": 3}, {"num_beams": 1, "output_hidden_states": True}]
)
def test_token_type_ids_are_left_out(model, inputs, options):
    types = {"token_type_ids": torch.zeros_like(inputs["input_ids"])}
    target = torch.zeros(2, 1, dtype=torch.long)
    expected = model(**inputs, decoder_input_ids=target).logits
    assert torch.equal(model(**inputs, **types, decoder_input_ids=target).logits, expected)
    states = model.get_encoder()(**inputs, **types).last_hidden_state
    assert torch.equal(states, model.get_encoder()(**inputs).last_hidden_state)
    expected = model.generate(**inputs, max_new_tokens=4, **options)
    assert torch.equal(model.generate(**inputs, **types, max_new_tokens=4, **options), expected)


def test_token_type_ids_are_mentioned_once(model, inputs, monkeypatch):
    said = []
    monkeypatch.setattr(compatibility.logger, "warning_once", said.append)
    types = {"token_type_ids": torch.zeros_like(inputs["input_ids"])}
    model.generate(**inputs, **types, max_new_tokens=2)
    assert len(said) == 1
    assert "`token_type_ids` were given and are left out" in said[0]


def test_hidden_states_of_all_layers_can_be_recorded(model, inputs):
    states = model.get_encoder()(**inputs, output_hidden_states=True).hidden_states
    assert len(states) == model.config.num_encoder_layers + 1
    decoded = model(**inputs, decoder_input_ids=inputs["input_ids"], output_hidden_states=True)
    assert len(decoded.decoder_hidden_states) == model.config.num_decoder_layers + 1


def test_the_trainer_hands_over_the_number_of_labels(model, tmp_path):
    trainer = Seq2SeqTrainer(model=model, args=Seq2SeqTrainingArguments(output_dir=str(tmp_path), use_cpu=True))
    assert trainer.model_accepts_loss_kwargs is True
