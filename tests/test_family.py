"""Variants side by side: what decoding keeps is counted by hand, rates are in turns and of equal lengths."""

import pytest
import torch
import yaml
from commanding import run
from queue_lists import pretend_to_train, write_list

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.commands import lab_variants
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.lab import benchmarks, family
from hf_vanilla_transformer.lab.family import DecodingState, decoding_rates, decoding_state, training_rates
from hf_vanilla_transformer.lab.run_list import read_run_list

SHAPE = {"d_model": 16, "num_heads": 4, "d_ff": 16, "num_encoder_layers": 1, "num_decoder_layers": 3, "vocab_size": 300}


def model_of(**fields):
    return VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**SHAPE, **fields)).eval()


@pytest.mark.parametrize(
    ("fields", "per_token", "constant"),
    [
        ({}, 3 * 4 * (4 + 4) * 4, 0),  # layers, heads, widths of a key and a value, bytes of a number
        ({"d_v": 6}, 3 * 4 * (4 + 6) * 4, 0),
        ({"num_key_value_heads": 1}, 3 * 1 * (4 + 4) * 4, 0),
        ({"attention": "linear", "feature_map": "elu"}, 0, 3 * 4 * (4 + 4 * 4) * 4),  # a sum of keys, and of products
    ],
)
def test_what_decoding_keeps_is_what_counting_gives(fields, per_token, constant):
    assert decoding_state(model_of(**fields)) == DecodingState(per_token, constant)


def test_rates_are_of_all_models_in_turns(monkeypatch):
    clock, order = iter(range(100)), []
    monkeypatch.setattr(benchmarks.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(family, "translate", lambda model, *args, **options: order.append(model) or [])
    rates = decoding_rates({"a": ("A", None), "b": ("B", None)}, ["x"] * 7, turns=2)
    assert order == ["A", "B", "A", "B", "A", "B"]  # warmed up first
    assert rates == {"a": 7, "b": 7}


def test_translations_whose_time_is_taken_are_equally_long_whatever_a_model_has_learned(monkeypatch):
    tokenizer = train_tokenizer(texts=["a dog runs"] * 9, vocab_size=265)
    models, lengths = {"ends": model_of(), "goes on": model_of()}, []
    for name, model in models.items():
        sign = 1 if name == "ends" else -1
        bias = torch.zeros(SHAPE["vocab_size"]).index_fill(0, torch.arange(265, 300), -1e9)
        bias[tokenizer.eos_token_id] = 1e4 * sign
        model.lm_head.register_forward_hook(lambda module, inputs, output, bias=bias: output + bias)
        generate = model.generate

        def counted(*args, generate=generate, **options):
            output = generate(*args, **options)
            lengths.append(output.shape[1] - 1)
            return output

        monkeypatch.setattr(model, "generate", counted)
    decoding_rates({name: (model, tokenizer) for name, model in models.items()}, ["a dog", "runs"], 1, steps=5)
    assert lengths == [5] * 4


def test_learning_is_measured_in_turns_of_the_tokens_that_are_learned_from(monkeypatch):
    tokenizer = train_tokenizer(texts=["a dog runs"] * 9, vocab_size=265)
    models, order = {"a": model_of(dropout=0.5), "b": model_of()}, []
    for name, model in models.items():
        model.lm_head.weight.register_hook(
            lambda gradient, name=name, model=model: order.append((name, model.training))
        )
    clock = iter(range(100))
    monkeypatch.setattr(benchmarks.time, "perf_counter", lambda: float(next(clock)))
    rates = training_rates({name: (model, tokenizer) for name, model in models.items()}, ["runs"] * 2, ["a", "dog"], 2)
    assert order == [("a", True), ("b", True)] * 4  # twice to warm up
    tokens = sum(len(tokenizer(text_target=text)["input_ids"]) for text in ("a", "dog"))
    assert rates == {"a": tokens, "b": tokens}  # </s> counts, padding does not
    assert not any(model.training for model in models.values())
    assert all(weight.grad is None for model in models.values() for weight in model.parameters())


def test_the_verb_shows_means_of_seeds_and_leaves_out_what_has_not_ended(tmp_path):
    path = write_list(tmp_path, [{"name": "plain"}, {"name": "shared"}, {"name": "never"}], text=tmp_path)
    list_ = yaml.safe_load(path.read_text())
    for entry in list_["runs"]:
        del entry["output_dir"]
        entry["seeds"] = [1, 2]
    path.write_text(yaml.safe_dump({**list_, "folder": str(tmp_path)}, sort_keys=False))
    tokenizer = train_tokenizer(texts=["a dog runs"] * 9, vocab_size=265)
    for number, queued in enumerate(read_run_list(path).runs):
        if queued.entry != "never":
            pretend_to_train(queued, loss=2.0 + number, bleu=30.0 + number)
            fields = {"num_key_value_heads": 2} if queued.entry == "shared" else {}
            model_of(**fields).save_pretrained(queued.output_dir)
            tokenizer.save_pretrained(queued.output_dir)
    (tmp_path / "x.en").write_text("a dog\nruns\n")
    (tmp_path / "x.de").write_text("a dog\nruns\n")
    test_set = f"source={tmp_path / 'x.en'},target={tmp_path / 'x.de'}"
    done = run(lab_variants.main, str(path), "--test_set", test_set, "--turns", "1")
    assert done.returncode == 0, done.stderr
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()]
    assert [row[0] for row in table[2:]] == ["plain", "shared"]
    assert table[2][3:5] == ["2.500 ± 0.500", "30.50 ± 0.50"]
    assert (table[2][-1], table[3][-1]) == ("384 a token", "192 a token")
    assert all(float(cell.replace(",", "")) > 0 for row in table[2:] for cell in row[5:7])
    assert run(lab_variants.main, str(path), "--test_set", test_set, "--turns", "0").returncode == 2
