"""One system or two: that every figure is of the right text, and that the table says them."""

import json

import pytest
from test_pair_scores import build

from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.evaluation import (
    ScoreTotals,
    System,
    compare_systems,
    comparison_table,
    moses_lowercased,
    paired_bootstrap,
    score_pairs,
    score_translations,
    system_of_model,
)
from hf_vanilla_transformer.inference import translate

REFERENCES = ["Ein Hund läuft durch den Park.", "Zwei Männer sitzen auf einer Bank.", 'Sie sagt: „Ja."'] * 4
OTHERS = [text.replace("Park", "Garten") for text in REFERENCES]
GOOD = System("good", [text.replace("einer", "der") for text in REFERENCES])
BAD = System("bad", [text.lower().replace("ein", "kein") for text in REFERENCES])


def test_scores_of_one_system_with_several_references():
    comparison = compare_systems(GOOD, None, [REFERENCES, OTHERS])
    scores = score_translations(GOOD.translations, list(zip(REFERENCES, OTHERS)), ter=True)
    assert comparison["systems"] == [{"name": "good", "scores": vars(scores), "likelihood": None}]
    assert (comparison["sentences"], comparison["references"], comparison["text"]) == (12, 2, None)
    assert comparison["paired_bootstrap"] is None
    table = comparison_table(comparison)
    for part in (f"{scores.bleu:.2f}", f"{scores.chrf:.2f}", f"{scores.ter:.2f}", scores.ter_signature, "nrefs:2"):
        assert part in table
    assert "perplexity" not in table


def test_the_second_is_the_baseline_and_ter_can_be_left_out():
    options = {"ter": False, "lowercase": True, "num_resamples": 30, "seed": 3}
    comparison = compare_systems(GOOD, BAD, [REFERENCES], **options)
    expected = paired_bootstrap(GOOD.translations, BAD.translations, REFERENCES, **options)
    assert comparison["paired_bootstrap"] == {name: vars(one) for name, one in expected.items()}
    assert [system["name"] for system in comparison["systems"]] == ["good", "bad"]
    bleu = comparison["paired_bootstrap"]["bleu"]
    assert [system["scores"]["bleu"] for system in comparison["systems"]] == [bleu["score"], bleu["baseline_score"]]
    assert bleu["score"] > bleu["baseline_score"]
    table = comparison_table(comparison)
    assert "TER" not in table
    assert f"p = {bleu['p_value']:.4f}" in table
    assert bleu["signature"] in table
    assert json.loads(json.dumps(comparison)) == comparison


def test_moses_takes_all_texts_apart_and_is_named():
    pytest.importorskip("sacremoses")
    comparison = compare_systems(GOOD, BAD, [REFERENCES], ter=False, moses_language="de", num_resamples=10)
    cut = [moses_lowercased(text, "de") for text in (BAD.translations, REFERENCES)]
    assert comparison["systems"][1]["scores"] == vars(score_translations(*cut, tokenize="none"))
    assert comparison["text"] in comparison_table(comparison)
    assert "tok:none" in comparison_table(comparison)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(texts=["a b c", "A B C"], vocab_size=262)
    model = build(tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, model.eval(), tokenizer


def test_a_model_translates_and_says_how_probable_all_references_are(folder):
    folder, model, tokenizer = folder
    sources, references = ["a b", "", "c c c"], [["A B", "A", "C"], ["B", "B B", ""]]
    system = system_of_model(str(folder), sources, references, num_beams=2, batch_tokens=9)
    made = translate(model, tokenizer, sources, num_beams=2)
    assert system.translations == [" ".join(text.splitlines()) for text in made]
    totals = ScoreTotals()
    for text in references:
        for score in score_pairs(model, tokenizer, zip(sources, text)):
            totals.add(score)
    assert system.likelihood.num_pairs == 6
    assert system.likelihood.nll == pytest.approx(totals.nll, rel=1e-6)
    comparison = compare_systems(system, System("text", references[0]), references)
    table = comparison_table(comparison)
    assert f"{system.likelihood.perplexity:.3f}" in table
    assert f"{system.likelihood.nats_per_character:.4f}" in table
    assert comparison["systems"][0]["likelihood"]["num_tokens"] == totals.num_tokens
    assert comparison["systems"][1]["likelihood"] is None


def test_of_two_equal_systems_no_p_value_is_shown():
    comparison = compare_systems(GOOD, GOOD, [REFERENCES], ter=False, num_resamples=10)
    assert "p = " not in comparison_table(comparison)
    assert comparison_table(comparison).count("the same") == 2


def test_translations_are_not_lost_where_a_reference_cannot_be_scored(tmp_path, caplog):
    tokenizer = train_tokenizer(texts=["a b c"], vocab_size=262)
    build(tokenizer, position_encoding="learned", max_position_embeddings=6).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    system = system_of_model(str(tmp_path), ["a", "a b c d e f g"], [["b", "a"]])
    assert len(system.translations) == 2
    assert system.likelihood is None
