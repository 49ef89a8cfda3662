"""§6.1: what each length penalty and number of beams is worth, which is best, and how a model keeps the choice."""

import pytest
import torch
from commanding import save_translator
from serving import save_tagged_translator
from test_pair_scores import build
from transformers import GenerationConfig, MarianConfig, MarianMTModel

from hf_vanilla_transformer.evaluation import (
    EvaluationSet,
    TriedDecoding,
    best_decoding,
    save_decoding,
    score_translations,
    tried_table,
    try_decodings,
)
from hf_vanilla_transformer.inference import load_translator, translate

SETS = [
    EvaluationSet("first", ["a b c", "c a", "b b a c"], [["A B C", "C A", "B B A C"], ["A", "C", "B C"]]),
    EvaluationSet("second", ["b", "a a c"], [["B", "A A C"]]),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folders = [str(tmp_path_factory.mktemp(name)) for name in ("one", "two")]
    for seed, folder in enumerate(folders):
        save_translator(folder, seed=seed)
    return folders


def translated(folder, data, **options):
    """One sentence at a time, without `translate` and its batches."""
    model, tokenizer = load_translator([folder], "cpu")
    made = []
    for sentence in data.sources:
        inputs = tokenizer([sentence], return_tensors="pt")
        with torch.inference_mode():
            output = model.generate(inputs["input_ids"], attention_mask=inputs["attention_mask"], **options)
        text = tokenizer.batch_decode(output, skip_special_tokens=True)[0]
        made.append(" ".join(text.splitlines()))
    return made


def test_section_6_1_every_pair_of_values_is_scored_as_if_it_were_the_models_own(folders):
    steps = []
    tried = try_decodings(folders, SETS, [0.0, 2.5], [2, 3], "chrf", "cpu", step=lambda: steps.append(1))
    assert [(each.num_beams, each.length_penalty) for each in tried] == [(2, 0.0), (2, 2.5), (3, 0.0), (3, 2.5)]
    assert len(steps) == 8
    for each in tried:
        words = 0
        for folder, score in zip(folders, each.scores, strict=True):
            by_set = []
            for data in SETS:
                options = {"num_beams": each.num_beams, "gnmt_length_penalty": each.length_penalty}
                made = translated(folder, data, **options)
                by_set.append(score_translations(made, list(zip(*data.references)), ["chrf"])["chrf"].value)
                words += sum(len(text.split()) for text in made)
            assert score == pytest.approx(sum(by_set) / 2)
        # The first set has 9 and 4 words in its references, so 6.5; the second 4.
        assert each.length_ratio == pytest.approx(words / (2 * 10.5))
        assert each.mean == pytest.approx(sum(each.scores) / 2)


@pytest.mark.parametrize(("metric", "expected"), [("bleu", 1.0), ("chrf", 1.0), ("wer", 0.2), ("ter", 0.2)])
def test_the_best_is_that_of_the_best_mean_and_of_equals_the_first(metric, expected):
    scores = {0.2: [1.0, 3.0], 0.6: [2.9, 2.9], 1.0: [2.0, 4.0], 1.4: [4.0, 2.0]}
    tried = [TriedDecoding(4, alpha, each, 1.0) for alpha, each in scores.items()]
    assert best_decoding(tried, metric).length_penalty == expected


def test_a_choice_is_saved_with_the_model_which_then_decodes_so(tmp_path):
    save_translator(tmp_path)
    before = GenerationConfig.from_pretrained(tmp_path).to_dict()
    save_decoding(tmp_path, TriedDecoding(3, 2.5, [1.0], 1.0))
    after = GenerationConfig.from_pretrained(tmp_path).to_dict()
    assert {name for name in after if after[name] != before.get(name)} == {"num_beams", "gnmt_length_penalty"}
    model, tokenizer = load_translator([str(tmp_path)], "cpu")
    expected = translated(str(tmp_path), SETS[0], num_beams=3, gnmt_length_penalty=2.5)
    assert list(translate(model, tokenizer, SETS[0].sources)) == expected


def test_what_outranks_a_choice_is_refused_and_stays(tmp_path):
    model, _ = save_translator(tmp_path)
    model.generation_config.length_penalty = 1.5
    model.generation_config.save_pretrained(tmp_path)
    before = (tmp_path / "generation_config.json").read_text()
    with pytest.raises(ValueError, match="length_penalty=1.5, which outranks the choice"):
        save_decoding(tmp_path, TriedDecoding(3, 2.5, [1.0], 1.0))
    assert (tmp_path / "generation_config.json").read_text() == before


def test_a_sealed_checkpoint_and_an_adapter_keep_no_choice(tmp_path):
    for name, message in (("seal.json", "is a sealed checkpoint"), ("adapter_config.json", "is an adapter")):
        folder = tmp_path / name
        save_translator(folder)
        (folder / name).write_text("{}")
        before = (folder / "generation_config.json").read_text()
        with pytest.raises(ValueError, match=message):
            save_decoding(folder, TriedDecoding(3, 2.5, [1.0], 1.0))
        assert (folder / "generation_config.json").read_text() == before


def test_a_model_whose_config_says_nothing_of_the_penalty_gets_one(tmp_path):
    save_translator(tmp_path)
    GenerationConfig(
        num_beams=2, max_new_tokens=5, pad_token_id=1, eos_token_id=2, decoder_start_token_id=0
    ).save_pretrained(tmp_path)
    assert len(try_decodings([str(tmp_path)], SETS[1:], [0.0, 1.0])) == 2
    save_decoding(tmp_path, TriedDecoding(3, 2.5, [1.0], 1.0))
    assert GenerationConfig.from_pretrained(tmp_path).to_dict()["gnmt_length_penalty"] == 2.5


def test_a_model_of_the_hub_keeps_no_choice(tmp_path):
    with pytest.raises(NotADirectoryError, match="some/model is no folder"):
        save_decoding("some/model", TriedDecoding(3, 2.5, [1.0], 1.0))


def test_models_of_other_packages_are_refused(tmp_path):
    _, tokenizer = save_translator(tmp_path)
    config = MarianConfig(vocab_size=len(tokenizer), d_model=8, encoder_layers=1, decoder_layers=1, pad_token_id=0,
                          encoder_attention_heads=1, decoder_attention_heads=1, encoder_ffn_dim=8, decoder_ffn_dim=8,
                          decoder_start_token_id=0)  # fmt: skip
    MarianMTModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a MarianMTModel, whose search has another length penalty"):
        try_decodings([str(tmp_path)], SETS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": [1, 4]}, "one beam is greedy search"),
        ({"num_beams": []}, "there is nothing to try"),
        ({"length_penalties": []}, "there is nothing to try"),
        ({"length_penalties": [float("nan")]}, "`gnmt_length_penalty`=nan is not allowed"),
        ({"metric": "rouge"}, "rouge"),
    ],
)
def test_what_makes_no_sense_is_refused(folders, options, message):
    with pytest.raises(ValueError, match=message):
        try_decodings(folders[:1], SETS, **options)


def test_test_sets_that_a_model_cannot_read_are_refused_before_the_first_search(tmp_path):
    save_tagged_translator(tmp_path, build)
    tagged = EvaluationSet("x.tsv", ["<2de> a", "<2de> b"], [["A", "B"]], tag="2de")
    tried = try_decodings([str(tmp_path)], [tagged], [0.6], [2], "chrf", "cpu")
    assert len(tried) == 1
    with pytest.raises(ValueError, match="tag=fr 2de would put <2de> before sources of x.tsv, where its tag=2de has"):
        try_decodings([str(tmp_path)], [SETS[0], tagged], [0.6], [2], "chrf", "cpu", tag="fr 2de", step=pytest.fail)
    unknown = EvaluationSet("y.tsv", ["<2xx> a"], [["A"]], tag="2xx")
    with pytest.raises(ValueError, match="'<2xx>' is not a tag of this tokenizer"):
        try_decodings([str(tmp_path)], [SETS[0], unknown], [0.6], [2], "chrf", "cpu", step=pytest.fail)


def test_the_table_has_a_row_for_each_pair_and_a_column_for_each_model():
    tried = [TriedDecoding(4, 0.6, [40.0, 42.0], 0.955), TriedDecoding(10, 1.4, [41.0, 42.5], 1.0)]
    titles, *rows = [line.split() for line in tried_table(tried, ["x", "y"], "bleu").splitlines()]
    assert titles == ["beams", "alpha", "BLEU", "of", "x", "BLEU", "of", "y", "mean", "BLEU", "length"]
    assert rows == [["4", "0.6", "40.00", "42.00", "41.00", "0.955"], ["10", "1.4", "41.00", "42.50", "41.75", "1.000"]]
    alone = tried_table([TriedDecoding(4, 0.6, [40.0], 0.955)], ["x"], "wer").splitlines()
    assert [line.split() for line in alone] == [["beams", "alpha", "WER", "length"], ["4", "0.6", "40.00", "0.955"]]
