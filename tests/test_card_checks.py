"""What a model card has to say before it goes to the Hub, and the examples in it."""

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCardData

from hf_vanilla_transformer.publishing.card_checks import card_examples, check_card

RESULT = EvalResult(
    task_type="translation", dataset_type="text", dataset_name="x", metric_type="bleu", metric_value=41.0
)
GOOD = {
    "library_name": "transformers", "pipeline_tag": "translation", "tags": ["vanilla_transformer"], "license": "mit",
    "language": ["en", "de"], "datasets": ["bentrevett/multi30k"], "metrics": ["bleu"],
    **ModelCardData(model_name="x", eval_results=[RESULT]).to_dict(),
}  # fmt: skip


def write(folder, metadata, text="# Title\n"):
    body = metadata if isinstance(metadata, str) else yaml.safe_dump(metadata)
    (folder / "README.md").write_text(f"---\n{body}\n---\n{text}")


def test_a_complete_card_is_let_through(tmp_path):
    write(tmp_path, GOOD)
    assert check_card(tmp_path) == ([], [])


@pytest.mark.parametrize("code", ["en", "deu", "zh-Hans", "pt-BR", "multilingual"])
def test_languages(code, tmp_path):
    write(tmp_path, {**GOOD, "language": code})
    assert check_card(tmp_path) == ([], [])


FAULTS = {
    "lacks library_name": {"library_name": None},
    "lacks pipeline_tag": {"pipeline_tag": None},
    "lacks tags": {"tags": []},
    "library_name is 'fairseq'": {"library_name": "fairseq"},
    "language: False is not a string; put it in quotes": {"language": ["en", False]},
    "language: 'English' is not a code": {"language": "English"},
    "datasets: 'my data, all of it' is not a name of the Hub": {"datasets": ["my data, all of it"]},
    "base_model: 'a/b/c' is not a name": {"base_model": "a/b/c"},
    "license: 7 is not a string": {"license": 7},
    "widget: 'A dog.' has no text": {"widget": ["A dog."]},
    "its metadata cannot be read: .*": {"model-index": [{"name": "x", "results": [{"task": 1}]}]},
}


@pytest.mark.parametrize("message", FAULTS)
def test_faults_are_named(message, tmp_path):
    write(tmp_path, {**GOOD, **FAULTS[message]})
    (finding,) = check_card(tmp_path)[0]
    assert finding.startswith("README.md: ")
    assert message.removesuffix(".*") in finding
    assert "\n" not in finding


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("# Title\n", "has no metadata: a block of YAML between two lines of ---"),
        ("---\ntags: [a\n---\n", "cannot be read"),
        ("---\n- a\n- b\n---\n", "cannot be read"),
        ("---\n\n---\n", "has no metadata"),
    ],
)
def test_a_card_without_readable_metadata(content, message, tmp_path):
    if content is not None:
        (tmp_path / "README.md").write_text(content)
    (finding,) = check_card(tmp_path)[0]
    assert message in finding
    assert "\n" not in finding


def test_what_is_only_missed_is_a_remark(tmp_path):
    write(tmp_path, {name: value for name, value in GOOD.items() if name not in ("license", "metrics")})
    assert check_card(tmp_path) == ([], ["README.md does not say license, metrics"])


@pytest.mark.parametrize("code", ['AutoModel.from_pretrained("you/other")', "pipeline('x', model = 'you/other')"])
def test_a_card_that_loads_another_repository_is_a_remark(code, tmp_path):
    write(tmp_path, GOOD, f"```python\n{code}\n```\n")
    assert check_card(tmp_path, "me/model") == ([], ["README.md loads you/other, and this is me/model"])
    assert check_card(tmp_path, "you/other") == ([], [])
    assert check_card(tmp_path) == ([], [])


def test_evaluation_results_beside_the_card(tmp_path):
    write(tmp_path, GOOD)
    (tmp_path / ".eval_results").mkdir()
    path = tmp_path / ".eval_results" / "bleu.yaml"
    path.write_text("- dataset:\n    id: bentrevett/multi30k\n    task_id: test\n  value: 41.0\n")
    assert check_card(tmp_path) == ([], [])
    path.write_text("- dataset: 3\n")
    (finding,) = check_card(tmp_path)[0]
    assert finding.startswith(".eval_results/bleu.yaml: not evaluation results as the Hub reads them")


def test_examples_are_those_that_the_hub_shows(tmp_path):
    widget = [{"text": "A dog.", "output": {"text": "Ein Hund."}}, {"text": "A cat.", "example_title": "cat"}, {"x": 1}]
    write(tmp_path, {**GOOD, "widget": widget})
    assert card_examples(tmp_path) == [("A dog.", "Ein Hund."), ("A cat.", None)]


@pytest.mark.parametrize("content", [None, "# Title\n", "---\nwidget: 3\n---\n"])
def test_no_card_no_examples(content, tmp_path):
    if content is not None:
        (tmp_path / "README.md").write_text(content)
    assert card_examples(tmp_path) == []


def test_examples_of_a_card_that_cannot_be_read(tmp_path):
    (tmp_path / "README.md").write_text("---\ntags: [a\n---\n")
    with pytest.raises(ValueError, match=r"README.md: its metadata cannot be read: .*line 1"):
        card_examples(tmp_path)
