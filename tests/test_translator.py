"""One translator, two engines: CTranslate2 says what torch says, and refuses what it lacks."""

import json
import logging
import math
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest
import torch
from commanding import run
from parity import randomise
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.commands import translate as command
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.evaluation import EvaluationSet, system_of_model
from hf_vanilla_transformer.inference import Translator, conversions, engine_ctranslate2, translate, translator
from hf_vanilla_transformer.inference.conversions import CONVERSIONS, conversion_of

pytest.importorskip("ctranslate2")

SENTENCES = [
    "a dog runs",
    "",
    "the cat sleeps on the mat",
    " \t",
    "birds",
    "<2de> two men watch the birds",
    "birds " * 9,
]


def save(folder, seed=3, steps=0, **fields):
    """A tiny model, and its tokenizer with a tag; with steps of training, it begins to copy its source and to end."""
    texts = [text for text in SENTENCES if "<" not in text and text.strip()]
    tokenizer = train_tokenizer(texts=texts * 3, vocab_size=290, tags=["<2de>"])
    config = VanillaTransformerConfig(
        **{
            "vocab_size": len(tokenizer) + 2, "d_model": 16, "num_heads": 2, "d_ff": 24, "num_encoder_layers": 1,
            "num_decoder_layers": 2, "final_logits_bias": True, "dropout": 0.0, **fields,
        }
    )  # fmt: skip
    model = VanillaTransformerForConditionalGeneration(config)
    with torch.no_grad():
        randomise(model, seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    ids = pad_sequence([torch.tensor(tokenizer(text).input_ids) for text in texts], batch_first=True, padding_value=1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=ids, attention_mask=ids.ne(1).long(), labels=ids.masked_fill(ids == 1, -100)).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.eval(), tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save(folder, steps=60)
    return folder


@pytest.fixture(scope="module")
def both(folder):
    return Translator(folder, "torch", "cpu"), Translator(folder, "auto", "cpu")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 1},
        {"nbest": 3, "batch_size": 2},
        {"nbest": 2, "num_beams": 5, "gnmt_length_penalty": 0.3, "read_ahead": 1},
        {"early_stopping": True, "length_penalty": 0.7, "max_new_tokens": 6},
        {"max_extra_tokens": 0, "nbest": 4, "batch_tokens": 30},
        {"max_length": 5, "num_beams": 1},
        {"max_extra_tokens": 2, "max_new_tokens": 7, "tag": "2de"},
        {"max_extra_tokens": None, "gnmt_length_penalty": -0.3},
    ],
    ids=lambda options: ",".join(options) or "defaults",
)
def test_both_engines_give_the_same_translations_scores_and_alignments(options, both):
    of_torch, of_ctranslate2 = both
    assert (of_torch.engine.name, of_ctranslate2.engine.name) == ("torch", "ctranslate2")
    expected, found = (list(each.translate_with_details(SENTENCES, **options)) for each in both)
    assert [[each.text for each in row] for row in found] == [[each.text for each in row] for row in expected]
    lengths = set()
    for mine, theirs in zip(chain(*found), chain(*expected), strict=True):
        assert (mine.source_tokens, mine.tokens, mine.alignment) == (
            theirs.source_tokens, theirs.tokens, theirs.alignment,
        )  # fmt: skip
        assert mine.score == pytest.approx(theirs.score, abs=1e-4)
        assert mine.log_prob == pytest.approx(theirs.log_prob, abs=1e-4)
        lengths.add(len(mine.tokens))
    assert len(lengths) > 1


def test_rows_are_limited_by_their_own_source_and_not_by_the_longest_of_the_batch(tmp_path):
    model, _ = save(tmp_path, seed=4)
    with torch.no_grad():
        model.lm_head.bias[model.config.eos_token_id] -= 100  # translations never end
    model.save_pretrained(tmp_path)
    options = {"max_extra_tokens": 1, "scores": True, "nbest": 2, "num_beams": 2}
    texts = ["birds", "the cat sleeps on the mat"]
    expected, found = (
        list(Translator(tmp_path, engine, "cpu").translate_with_details(texts, **options))
        for engine in ("torch", "ctranslate2")
    )
    ids = [AutoTokenizer.from_pretrained(tmp_path)(text).input_ids for text in texts]
    for row, mine, theirs in zip(ids, found, expected, strict=True):
        assert [each.tokens for each in mine] == [each.tokens for each in theirs]
        assert {len(each.tokens) for each in mine} == {len(row) + 1}
        assert [each.score for each in mine] == pytest.approx([each.score for each in theirs], abs=1e-4)


def test_what_a_search_does_not_find_is_empty_and_impossible(both):
    for each in both:
        ((*found,),) = each.translate_with_details(["birds"], nbest=300, num_beams=300, max_new_tokens=1)
        assert [(one.text, one.score, one.log_prob) for one in found[-2:]] == [("", -math.inf, -math.inf)] * 2
        assert found[0].score > -20


@pytest.mark.slow  # 4 seconds
def test_pieces_are_joined_and_positions_grow(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_ctranslate2, "_POSITIONS", 64)
    save(tmp_path / "learned", position_encoding="learned", max_position_embeddings=8)
    save(tmp_path / "sinusoids")
    long = "the dog watch the birds. the cat sleeps on the mat! " * 3
    for name in ("learned", "sinusoids"):
        text = long if name == "learned" else "birds " * 70
        texts = [
            list(Translator(tmp_path / name, engine, "cpu").translate([text], num_beams=1, max_new_tokens=4))
            for engine in ("torch", "ctranslate2")
        ]
        assert texts[0] == texts[1]
    assert len(list((tmp_path / "sinusoids" / CONVERSIONS).iterdir())) == 2  # with 64 positions, and with more


@pytest.mark.parametrize(("longest", "positions"), [(1, 64), (65, 128), (200, 256)])
def test_what_is_no_longer_than_was_said_needs_no_other_conversion(longest, positions, folder, monkeypatch):
    """A limit of 50 tokens more than the source included, which is the model's own."""
    monkeypatch.setattr(engine_ctranslate2, "_POSITIONS", 64)
    made = []

    def convert(place, quantization, num_positions, is_ours):
        made.append(num_positions)
        return conversion_of(place, quantization, num_positions, is_ours)

    monkeypatch.setattr(translator, "conversion_of", convert)
    engine = Translator(folder, "ctranslate2", "cpu", longest_source=longest).engine
    assert made == [positions]
    eos = engine.tokenizer.eos_token_id
    list(engine.translate_batches([[[4] * (min(longest, 14) - 1) + [eos]], [[4] * (longest - 1) + [eos]]], {}))
    assert made == [positions]


def test_a_translator_after_a_change_of_weights_says_what_the_new_weights_say(tmp_path):
    model, tokenizer = save(tmp_path)
    before = list(Translator(tmp_path, "ctranslate2").translate(["a dog runs"]))
    with torch.no_grad():
        randomise(model, seed=11)
    model.save_pretrained(tmp_path)
    after = list(Translator(tmp_path, "ctranslate2").translate(["a dog runs"]))
    assert after == list(translate(model, tokenizer, ["a dog runs"])) != before


def test_auto_takes_torch_where_the_conversion_can_be_written_nowhere_and_says_why(folder, tmp_path, monkeypatch):
    for path in folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / CONVERSIONS).write_text("in the way, as a file system that is read-only")
    monkeypatch.setattr(conversions, "cached_assets_path", lambda *_, **__: (tmp_path / CONVERSIONS / "x").mkdir())
    chosen = Translator(tmp_path, "auto", "cpu")
    assert chosen.engine.name == "torch"
    assert "can be written nowhere" in chosen.reason
    assert list(chosen.translate(["birds"])) == list(Translator(folder, "torch", "cpu").translate(["birds"]))
    with pytest.raises(OSError, match="written nowhere .*; let HF_HOME name a folder"):
        Translator(tmp_path, "ctranslate2", "cpu")
    done = run(command.main, "--model", tmp_path, "--engine", "auto", "--device", "cpu", "birds")
    assert done.returncode == 0
    assert "engine torch: the conversion of" in done.stderr


@pytest.fixture(scope="module")
def greedy(folder, tmp_path_factory):
    """The model whose own search is greedy, and whose beams would end as CTranslate2 cannot end them."""
    greedy = tmp_path_factory.mktemp("greedy")
    for path in folder.iterdir():
        if path.is_file():
            (greedy / path.name).write_bytes(path.read_bytes())
    (greedy / "generation_config.json").write_text(
        json.dumps({"num_beams": 1, "decoder_start_token_id": 0, "pad_token_id": 1, "eos_token_id": 2})
    )
    return greedy


def test_the_engine_is_that_of_the_search_that_an_nbest_list_makes(greedy):
    chosen = Translator(greedy, "auto", "cpu")
    assert chosen.engine.name == "ctranslate2"
    assert chosen.engine_for({"nbest": 1}).name == "ctranslate2"
    assert chosen.engine_for({"nbest": 2}).name == "torch"
    assert chosen.engine_for({"nbest": 2, "early_stopping": True}).name == "ctranslate2"
    (found,) = chosen.translate_with_details(["birds"], nbest=2)
    (expected,) = Translator(greedy, "torch", "cpu").translate_with_details(["birds"], nbest=2)
    assert found == expected
    assert len(found) == 2
    asked = Translator(greedy, "auto", "cpu", asked={"nbest": 2, "scores": True})
    assert asked.engine.name == "torch"
    with pytest.raises(ValueError, match="`length_penalty`"):
        Translator(greedy, "ctranslate2", "cpu", asked={"nbest": 2})
    done = run(command.main, "--model", greedy, "--engine", "auto", "--device", "cpu", "--nbest", "2", "birds")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)
    assert "engine torch" in done.stderr


def test_a_search_that_may_end_elsewhere_is_said_once_and_an_exact_one_is_not(both, caplog):
    logging.Logger.warning_once.cache_clear()
    of_ctranslate2 = both[1]
    for options in ({"num_beams": 1}, {"num_beams": 3, "early_stopping": True}):
        list(of_ctranslate2.translate(["birds"], **options))
    assert "ends its beam search" not in caplog.text
    for _ in range(2):
        list(of_ctranslate2.translate(["birds"], num_beams=3))
    assert caplog.text.count("ends its beam search") == 1


@pytest.mark.parametrize("which", [0, 1], ids=["torch", "ctranslate2"])
def test_threads_may_share_a_translator(which, both):
    expected = [list(both[which].translate([text], num_beams=2)) for text in SENTENCES]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: list(both[which].translate([text], num_beams=2)), SENTENCES))
    assert found == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"do_sample": True, "num_beams": 1}, "`do_sample`=True"),
        ({"no_repeat_ngram_size": 3}, "`no_repeat_ngram_size`=3"),
        (
            {"repetition_penalty": 1.2, "bad_words_ids": [[5]]},
            "`bad_words_ids`=\\[\\[5\\]\\]; .*`repetition_penalty`=1.2",
        ),
        ({"length_penalty": 2.0}, "`length_penalty`=2.0 without `early_stopping`"),
        ({"eos_token_id": 5}, "`eos_token_id`=5"),
    ],
)
def test_what_a_search_of_ctranslate2_lacks_is_refused_by_name_and_left_to_torch(options, message, folder, both):
    by_name = Translator(folder, "ctranslate2", "cpu")
    with pytest.raises(ValueError, match=message):
        by_name.translate(["birds"], **options)
    with pytest.raises(ValueError, match=f"cannot translate with .*{message}"):
        Translator(folder, "ctranslate2", "cpu", asked=options)
    assert "the option" in Translator(folder, "auto", "cpu", asked=options).reason or "length_penalty" in options
    assert both[1].engine_for(options).name == "torch"
    torch.manual_seed(1)
    found = list(both[1].translate(["birds"], **options))
    torch.manual_seed(1)
    assert found == list(both[0].translate(["birds"], **options))


def test_neutral_values_of_options_are_no_obstacle(both):
    neutral = {"no_repeat_ngram_size": 0, "repetition_penalty": 1.0, "do_sample": False, "use_cache": True, "top_k": 5}
    assert both[1].engine_for({**neutral, "batch_size": 3, "alignments": True}).name == "ctranslate2"


def test_options_that_are_not_allowed_are_refused_by_both_engines_alike(both):
    for options in ({"gnmt_length_penalty": "long"}, {"max_extra_tokens": -1}, {"num_beams": 0}):
        said = []
        for each in both:
            with pytest.raises(ValueError, match=next(iter(options))) as caught:
                list(each.translate(["birds"], **options))
            said.append(str(caught.value))
        assert said[0] == said[1]


@pytest.mark.slow  # 4 seconds
def test_obstacles_of_the_model_are_named_and_torch_is_taken_by_itself(folder, tmp_path, monkeypatch):
    save(tmp_path / "rotary", position_encoding="rotary")
    model, _ = save(tmp_path / "half")
    model.bfloat16().save_pretrained(tmp_path / "half")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    cases = {
        "`position_encoding`='rotary'": ((tmp_path / "rotary",), {}),
        "`dtype`='bfloat16'": ((tmp_path / "half",), {}),
        "there are 2 models": (([folder, folder],), {}),
        "for float32, and `dtype`='float16'": ((folder,), {"dtype": "float16"}),
    }
    for message, (args, options) in cases.items():
        with pytest.raises(ValueError, match=message):
            Translator(*args, "ctranslate2", "cpu", **options)
        chosen = Translator(*args, "auto", "cpu", **options)
        assert chosen.engine.name == "torch"
        assert message in chosen.reason
    with pytest.raises(ValueError, match="no adapters"):
        Translator(tmp_path / "adapter", "ctranslate2")
    monkeypatch.setattr(translator, "choose_device", lambda name: torch.device("cuda"))
    with pytest.raises(ValueError, match="for the CPU, and the device is cuda"):
        Translator(folder, "ctranslate2", "cuda")
    monkeypatch.undo()
    monkeypatch.setattr(translator, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'hf-vanilla-transformer\[ctranslate2\]'"):
        Translator(folder, "ctranslate2")
    assert "not installed" in Translator(folder, "auto", "cpu").reason


def test_unknown_engines_and_int8_without_its_engine_are_refused(folder):
    with pytest.raises(ValueError, match="allowed: auto, torch, ctranslate2"):
        Translator(folder, "onnx")
    with pytest.raises(ValueError, match="allowed: float32, int8"):
        Translator(folder, "ctranslate2", quantization="int4")
    with pytest.raises(ValueError, match="for `engine`='ctranslate2' only"):
        Translator(folder, "auto", quantization="int8")


def test_int8_is_near_and_not_the_same(folder, both):
    near = Translator(folder, "ctranslate2", quantization="int8")
    options = {"num_beams": 1, "max_new_tokens": 1}
    expected, found = (list(each.translate_with_details(SENTENCES[:1], **options)) for each in (both[0], near))
    assert 0 < abs(expected[0][0].log_prob - found[0][0].log_prob) < 0.5


def test_no_generation_config_is_that_of_a_new_model(tmp_path):
    model, tokenizer = save(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    found = Translator(tmp_path, "ctranslate2")
    assert found.engine.generation_config.gnmt_length_penalty == 0.6
    assert list(found.translate(SENTENCES)) == list(translate(model, tokenizer, SENTENCES))


def test_the_command_takes_an_engine_and_says_which_one_auto_has_chosen(folder):
    plain = run(command.main, "--model", folder, "--device", "cpu", *SENTENCES)
    assert plain.returncode == 0
    for engine in ("auto", "ctranslate2"):
        done = run(command.main, "--model", folder, "--engine", engine, "--device", "cpu", "--scores", *SENTENCES)
        assert [line.split("\t")[-1] for line in done.stdout.splitlines()] == plain.stdout.splitlines()
        assert ("engine ctranslate2 (float32" in done.stderr) == (engine == "auto")
    sampled = ["--do_sample", "--seed", "2", "birds"]
    done = run(command.main, "--model", folder, "--engine", "auto", "--device", "cpu", *sampled)
    assert "engine torch: the option `do_sample`=True" in done.stderr
    assert done.stdout == run(command.main, "--model", folder, *sampled).stdout
    error = run(command.main, "--model", folder, "--engine", "ctranslate2", *sampled).error
    assert "`do_sample`=True" in error
    error = run(command.main, "--model", folder, "--quantization", "int8", "birds").error
    assert error.startswith("--quantization int8 is for --engine ctranslate2, and not for torch")


def test_systems_are_translated_by_the_engine_and_scored_by_torch(folder):
    data = [EvaluationSet(None, ["a dog runs", "birds"], [["ein Hund", "birds"]])]
    first, second = (system_of_model([str(folder)], data, engine=engine) for engine in ("torch", "ctranslate2"))
    assert first.translations == second.translations
    assert first.likelihoods == second.likelihoods
    assert (first.engine, second.engine) == ("torch", "ctranslate2 (float32)")
