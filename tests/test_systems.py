"""Systems that are models: their translations and likelihoods, of one test set or several, alone or as an ensemble."""

import pytest
from test_pair_scores import build

from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.data.unit_tokenizer import train_unit_tokenizer
from hf_vanilla_transformer.evaluation import (
    EvaluationSet,
    ScoreTotals,
    read_test_set,
    score_pairs,
    system_of_model,
)
from hf_vanilla_transformer.inference import EnsembleForConditionalGeneration, translate

SETS = [
    EvaluationSet("first", ["a b", "", "c c c"], [["A B", "A", "C"], ["B", "B B", ""]]),
    EvaluationSet("second", ["b", "a a"], [["B", "A"]]),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    tokenizer = train_tokenizer(texts=["a b c", "A B C"], vocab_size=262)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<up>"]})
    folders, models = [], []
    for seed, name in enumerate(("one", "two")):
        folders.append(str(tmp_path_factory.mktemp(name)))
        models.append(build(tokenizer, seed=seed))
        models[-1].save_pretrained(folders[-1])
        tokenizer.save_pretrained(folders[-1])
    return folders, models, tokenizer


def assert_made_by(system, model, tokenizer):
    for data, made, likelihood in zip(SETS, system.translations, system.likelihoods, strict=True):
        expected = translate(model, tokenizer, data.sources, num_beams=2)
        assert made == [" ".join(text.splitlines()) for text in expected]
        totals = ScoreTotals()
        for text in data.references:
            for score in score_pairs(model, tokenizer, zip(data.sources, text)):
                totals.add(score)
        assert likelihood.num_pairs == len(data.sources) * len(data.references)
        assert likelihood.nll == pytest.approx(totals.nll, rel=1e-6)


def test_a_model_translates_and_says_how_probable_all_references_are(saved):
    folders, models, tokenizer = saved
    system = system_of_model(folders[:1], SETS, num_beams=2, batch_tokens=9)
    assert (system.name, system.engine) == (folders[0], "torch")
    assert_made_by(system, models[0], tokenizer)


def test_several_models_decode_together(saved):
    folders, models, tokenizer = saved
    system = system_of_model(folders, SETS, num_beams=2)
    assert system.name == f"{folders[0]} + {folders[1]}"
    assert_made_by(system, EnsembleForConditionalGeneration(models).eval(), tokenizer)


def test_tags_stand_before_sources_whether_an_option_or_the_test_set_puts_them_there(saved, tmp_path):
    folders, models, tokenizer = saved
    (tmp_path / "x.tsv").write_text("".join(f"{source}\tA\n" for source in SETS[0].sources if source))
    plain, own = (read_test_set(f"{tmp_path / 'x.tsv'}{more}") for more in ("", ",tag=up"))
    assert (plain.tag, own.tag) == (None, "up")
    found = [system_of_model(folders[:1], [data], tag=tag) for data, tag in ((plain, "up"), (own, None))]
    expected = list(translate(models[0], tokenizer, ["<up> a b", "<up> c c c"]))
    assert [system.translations for system in found] == [[expected]] * 2
    assert found[0].likelihoods == found[1].likelihoods
    untagged = system_of_model(folders[:1], [plain])
    assert untagged.likelihoods != found[0].likelihoods
    unknown = read_test_set(f"{tmp_path / 'x.tsv'},tag=down")
    with pytest.raises(ValueError, match="'<down>' is not a tag of this tokenizer; it knows <up>"):
        system_of_model(folders[:1], [unknown])
    with pytest.raises(ValueError, match=r"tag=<up> would put <up> before sources of .*x\.tsv, where its tag=up has"):
        system_of_model(folders[:1], [plain, own], tag="<up>")


def test_a_tag_of_a_test_set_that_the_tokenizer_puts_there_by_itself_is_refused(tmp_path):
    tokenizer = train_tokenizer(texts=["a b c"], vocab_size=262, tags=["<up>"])
    tokenizer.tag = "<up>"
    build(tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "x.tsv").write_text("a b\tc\n")
    plain, own = (read_test_set(f"{tmp_path / 'x.tsv'}{more}") for more in ("", ",tag=up"))
    assert len(system_of_model([str(tmp_path)], [plain]).translations) == 1
    with pytest.raises(ValueError, match="tag=up: the tokenizer puts <up> before every source by itself"):
        system_of_model([str(tmp_path)], [own])


def test_reversed_text_is_refused_where_the_tokenizer_would_read_it_as_another_side(tmp_path):
    rows = [{"source": "abc", "target": "k a"}]
    tokenizer = train_unit_tokenizer(rows, source_units="characters", target_units="words", tags=["<p2g>"])
    build(tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "x.tsv").write_text("abc\tk a\n")
    forwards, backwards = (read_test_set(f"{tmp_path / 'x.tsv'},tag=p2g{more}") for more in ("", ",reversed=true"))
    with pytest.raises(ValueError, match=r"x\.tsv: reversed text cannot be translated where"):
        system_of_model([str(tmp_path)], [forwards, backwards])
    assert len(system_of_model([str(tmp_path)], [forwards]).translations) == 1


def test_translations_are_not_lost_where_a_reference_cannot_be_scored(tmp_path, caplog):
    tokenizer = train_tokenizer(texts=["a b c"], vocab_size=262)
    build(tokenizer, position_encoding="learned", max_position_embeddings=6).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    sets = [EvaluationSet(None, ["a", "a b c d e f g"], [["b", "a"]]), EvaluationSet(None, ["a"], [["b"]])]
    system = system_of_model([str(tmp_path)], sets)
    assert [len(text) for text in system.translations] == [2, 1]
    assert system.likelihoods[0] is None
    assert system.likelihoods[1].num_pairs == 1
