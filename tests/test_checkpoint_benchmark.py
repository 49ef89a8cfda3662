"""That the benchmark of a checkpoint compares what it says: the same sentences, and Marian's weights where it can."""

import pytest
from commanding import save_translator

from hf_vanilla_transformer import VanillaTransformerConfig
from hf_vanilla_transformer.commands.benchmark import main
from hf_vanilla_transformer.inference import translate
from hf_vanilla_transformer.lab.benchmarks import MARIAN
from hf_vanilla_transformer.lab.checkpoint_benchmark import (
    TORCH_ENGINE,
    EngineComparison,
    EngineWork,
    can_be_marian,
    compare_engines,
    make_program,
)

SENTENCES = ("a b c", "c", "b a")
MARIANS = {"sinusoid_layout": "concatenated", "attention_bias": True, "layer_norm_eps": 1e-5}


def test_programs_translate_all_sentences_and_marian_has_the_weights_where_it_can(tmp_path):
    model, tokenizer = save_translator(tmp_path, **MARIANS)
    assert can_be_marian(model.config)
    work = EngineWork(str(tmp_path), SENTENCES, batch_size=3, num_beams=1, lengths=(4, 2, 3))
    expected = list(translate(model, tokenizer, SENTENCES, num_beams=1, max_new_tokens=56))
    assert make_program(TORCH_ENGINE, work)() == list(translate(model, tokenizer, SENTENCES, num_beams=1))
    (found,) = make_program(MARIAN, work)()
    by_length = sorted(range(3), key=lambda index: -len(SENTENCES[index]))
    texts = tokenizer.batch_decode(found, skip_special_tokens=True)
    assert [" ".join(text.splitlines()) for text in texts] == [expected[index] for index in by_length]


def test_another_model_gives_marian_as_many_steps_as_its_translations_have(tmp_path):
    model, _ = save_translator(tmp_path)
    assert not can_be_marian(model.config)
    work = EngineWork(str(tmp_path), SENTENCES, batch_size=2, num_beams=2, lengths=(4, 9, 6))
    assert [ids.shape[1] for ids in make_program(MARIAN, work)()] == [1 + 6, 1 + 9]


@pytest.mark.parametrize(
    "fields",
    [
        {"norm_position": "sandwich"},
        {"attention": "linear"},
        {"cross_attention": "linear"},
        {"embedding_norm": True},
        {"position_encoding": "rotary"},
        {"num_key_value_heads": 1},
        {"d_k": 4},
        {"tie_word_embeddings": False},
        {"position_offset": 2},
    ],
)
def test_marian_has_no_variant(fields):
    shape = {"d_model": 16, "num_heads": 2, "d_ff": 8, "num_encoder_layers": 1, "num_decoder_layers": 1}
    marian = MARIANS if "position_encoding" not in fields else {**MARIANS, "sinusoid_layout": "interleaved"}
    assert can_be_marian(VanillaTransformerConfig(**shape, **MARIANS, dropout=0.3, label_smoothing=0.0))
    assert not can_be_marian(VanillaTransformerConfig(**shape, **{**marian, **fields}))


def test_lines_say_speed_ratio_and_agreement():
    work = EngineWork("model", SENTENCES, 1, 4, (1, 1, 1))
    comparison = EngineComparison(work, {MARIAN: [3.0], TORCH_ENGINE: [1.5]}, {TORCH_ENGINE: 1.0}, {MARIAN: 2**20})
    assert comparison.lines()[0].startswith("| model, 3 sentences, batch 1, beam 4 |")
    assert comparison.lines()[2:] == [f"| {MARIAN} | 1.0 | 1.00 | - | 1 MiB |", "| torch | 2.0 | 2.00 | 100.0% | - |"]


@pytest.mark.slow  # 30 seconds: four processes that load everything
def test_programs_take_turns(tmp_path):
    pytest.importorskip("ctranslate2")
    save_translator(tmp_path)
    comparison = compare_engines(str(tmp_path), [*SENTENCES, ""], batch_size=2, num_beams=1, repeats=1)
    assert comparison.ratio(MARIAN) == 1.0
    assert comparison.agreement[TORCH_ENGINE] == 1.0
    assert len(comparison.lines()) == 2 + 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "x"], "--model and --file go together"),
        (["--file", "x"], "--model and --file go together"),
        (["--sentences", "3"], "--sentences has no effect without --model"),
        (["--model", "x", "--file", "y", "--steps", "3"], "--steps has no effect with --model"),
        (["--model", "x", "--file", "y", "--sizes", "tiny"], "--sizes has no effect with --model"),
    ],
)
def test_options_of_random_models_and_of_checkpoints_do_not_mix(words, message, capsys):
    with pytest.raises(SystemExit):
        main(["decode", *words], "prog")
    assert message in capsys.readouterr().err
