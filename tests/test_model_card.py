"""The card of a published model: what it says about scores, and that nothing of the run's arguments is in it."""

import re

import pytest
import yaml
from huggingface_hub import ModelCard
from released import standing

from hf_vanilla_transformer import (
    VanillaTransformerConfig,
    VanillaTransformerEncoderModel,
    VanillaTransformerForCausalLM,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerForMaskedLM,
    VanillaTransformerForSequenceClassification,
    VanillaTransformerModel,
)
from hf_vanilla_transformer.publishing import model_card, read_results, render_card, save_self_contained
from hf_vanilla_transformer.publishing.card_tables import cell

SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
SECRETS = [
    "hf_abcdefSECRET",
    "hf_pushSECRET",
    "/home/somebody/data/train.en",
    "/scratch/runs/en-de",
    "C:\\\\data",
    "my-pass",
]
RESULTS = {
    "metrics": {
        "final_bleu": 37.914159, "final_chrf": 61.25, "final_loss": 1.65, "final_weights": "average", "updates": 9000,
        "signatures": {"bleu": SIGNATURE, "chrf": "/home/somebody/data/train.en"}, "train_runtime": 12.5,
    },
    "arguments": {
        "hub_token": SECRETS[0], "push_to_hub_token": SECRETS[1], "train_data": [f"source={SECRETS[2]}"],
        "output_dir": SECRETS[3], "logging_dir": SECRETS[4], "password": SECRETS[5],
    },
    "history": [{"step": 1, "loss": 9.0, "where": SECRETS[3]}],
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    config = VanillaTransformerConfig(
        vocab_size=270, d_model=16, num_heads=2, d_ff=32, num_encoder_layers=1, num_decoder_layers=3
    )
    return VanillaTransformerForConditionalGeneration(config)


def test_scores_are_where_the_hub_looks_for_them_and_secrets_are_not(model):
    card = model_card(model, "me/en-de", RESULTS, "apache-2.0", ["en", "de"], "Multi30k validation")
    text = str(card)
    assert not any(secret in text for secret in SECRETS)
    assert "token" not in text.replace("tokens", "").replace("tokenizer", "").replace("special_tok", "")
    data = ModelCard(text).data.to_dict()
    assert (data["license"], data["language"], data["pipeline_tag"]) == ("apache-2.0", ["en", "de"], "translation")
    (index,) = data["model-index"]
    assert index["name"] == "en-de"
    scores = {metric["type"]: metric for result in index["results"] for metric in result["metrics"]}
    assert {name: metric["value"] for name, metric in scores.items()} == {"bleu": 37.91, "chrf": 61.25}
    assert scores["bleu"]["args"] == {"signature": SIGNATURE}
    assert "args" not in scores["chrf"]  # what is no signature is left out
    assert data["metrics"] == ["bleu", "chrf"]
    assert {result["dataset"]["name"] for result in index["results"]} == {"Multi30k validation"}
    assert f"{model.num_parameters():,} parameters, 1 encoder and 3 decoder layers" in text
    assert [line for line in text.splitlines() if line.startswith("| BLEU")] == ["| BLEU | 37.91 |"]
    assert f"- BLEU: `{SIGNATURE}`" in text
    assert "- chrF" not in text


def test_a_card_has_every_metric_of_a_run(model):
    rates = {"ter": 51.234, "wer": 22.5, "per": 4.75}
    signature = "nrefs:1|error:unit|version:1"
    metrics = {f"final_{name}": value for name, value in rates.items()} | {"signatures": {"per": signature}}
    text = str(model_card(model, "me/g2p", {"metrics": metrics}))
    (result,) = ModelCard(text).data.to_dict()["model-index"][0]["results"]
    assert {each["type"]: each["value"] for each in result["metrics"]} == {"ter": 51.23, "wer": 22.5, "per": 4.75}
    assert {each["name"] for each in result["metrics"]} == {"TER", "WER", "PER"}
    assert "| PER (lower is better) | 4.75 |" in text
    assert f"- PER: `{signature}`" in text


def test_a_card_without_scores_is_a_card_and_is_saved_with_the_model(model, tmp_path):
    card = model_card(model, "en-de")
    assert "## Results" not in str(card)
    assert "model-index" not in str(card)
    save_self_contained(model, tmp_path, card=card)
    text = (tmp_path / "README.md").read_text()
    metadata = yaml.safe_load(text.split("---")[1])
    assert metadata["library_name"] == "transformers"
    assert "model-index" not in metadata
    with_package, without_package = [part.split("```")[0] for part in text.split("```python")[1:]]
    for code in (with_package, without_package):
        compile(code, "README.md", "exec")
    assert 'from_pretrained("en-de")' in with_package
    assert 'from_pretrained("en-de", trust_remote_code=True)' in without_package
    assert "vanilla-transformer translate --model en-de 'A sentence.'" in text
    assert not re.search(r"^#+ .*\n\n#", text, re.MULTILINE), "a heading without text"


@pytest.mark.parametrize(
    "kind",
    [
        VanillaTransformerModel,
        VanillaTransformerEncoderModel,
        VanillaTransformerForMaskedLM,
        VanillaTransformerForSequenceClassification,
        VanillaTransformerForCausalLM,
    ],
)
def test_only_a_model_that_translates_gets_a_card_of_translation(kind):
    model = kind(kind.config_class(vocab_size=270, d_model=16, num_heads=2, d_ff=32))
    with pytest.raises(TypeError, match=f"VanillaTransformerForConditionalGeneration, and this is a {kind.__name__};"):
        model_card(model, "me/model")


def test_a_card_names_its_repository_or_one_to_be_filled_in(tmp_path_factory):
    results = read_results(standing(tmp_path_factory.mktemp).folder)
    text = str(render_card(results))
    assert 'from_pretrained("model_cards/backwards")' in text
    assert 'from_pretrained("USER/backwards", trust_remote_code=True)' in text
    named = str(render_card(results, "me/backwards"))
    assert str(render_card({**results, "card": {**results["card"], "repo_id": "me/backwards"}})) == named
    assert set(re.findall(r'from_pretrained\("([^"]*)"', named)) == {"me/backwards"}


def test_a_card_says_what_it_was_trained_on_and_that_energy_was_not_measured(tmp_path_factory):
    results = read_results(standing(tmp_path_factory.mktemp).folder)
    text = str(render_card(results))
    torch_version = results["training"]["runs"][0]["environment"]["torch"]
    assert f"| 42 (this checkpoint) | 3 | 3.0 | last update | A CPU, 3 threads, torch {cell(torch_version)} |" in text
    assert "Energy was not measured." in text
    assert "Licence of this checkpoint: mine (https://example.org/licence)." in text
    for run in results["training"]["runs"]:
        run["environment"] = None
    results["card"] |= {"hardware": "a laptop", "energy": "0.2 kWh at the wall."}
    text = str(render_card(results))
    assert "| last update | a laptop |" in text
    assert "0.2 kWh at the wall." in text


def test_results_of_another_format_are_refused():
    with pytest.raises(ValueError, match="results.json has format 99, but this version knows 1"):
        render_card({"format": 99})


@pytest.mark.parametrize("name", ["/home/me/run", "runs/en/de", "", "a b", "../run"])
def test_a_path_is_no_name(name, model):
    with pytest.raises(ValueError, match="is not allowed; allowed: a name of the Hub"):
        model_card(model, name)


@pytest.mark.parametrize("score", [float("nan"), "37.9", None, True])
def test_a_score_is_a_number(score, model):
    with pytest.raises(ValueError, match="final_bleu=.* is not a score"):
        model_card(model, "en-de", {"metrics": {"final_bleu": score}})
