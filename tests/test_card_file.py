"""CARD.yaml: what is read from it, and that whatever is wrong is named with its line."""

import re

import pytest
from released import CARD

from hf_vanilla_transformer.publishing import read_card


def write(folder, text):
    path = folder / "card.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_texts_are_texts_whatever_yaml_takes_them_for(tmp_path):
    card = read_card(write(tmp_path, CARD.replace("languages: [en, de]", "languages: [no, 12]")))
    assert card.languages == ["no", "12"]
    assert (card.title, card.pipeline_tag, card.repo_id, card.energy) == ("Backwards", "translation", None, None)
    val, test = card.test_sets
    assert (val.name, val.role, val.texts) == ("val", "validation", {"val": {"path": "data/words/val.jsonl"}})
    assert (val.metrics, val.moses_lowercase, val.published) == (["bleu", "chrf"], None, [])
    assert (test.moses_lowercase, test.dataset, test.split) == ("de", "me/backwards", "test")
    (published,) = test.published
    assert (published.system, published.value, published.scoring) == ("Another", 12.5, "moses_lowercase")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("summary:", "sumary:", "line 9: unknown key 'sumary'; did you mean summary?"),
        ("    split: test", "    spilt: test", "unknown key 'spilt'; did you mean split?"),
        ("    dataset: me/backwards\n    split: test\n", "", "two test sets have dataset None and split None"),
        ("limits: Everything else.\n", "", "line 2: limits missing, without which a card is not complete"),
        ("title: Backwards", "title: Backwards\ntitle: Twice", "line 3: title was given before"),
        ("title: Backwards", "title:", "line 2: expected text, got nothing"),
        ("title: Backwards", "title: [a]", "line 2: expected one value, not a list or mapping"),
        ("languages: [en, de]", "languages: en", "line 3: expected a list, such as [a, b]"),
        ("role: test", "role: tests", "'tests' is none of validation, test"),
        ("value: 12.5", "value: high", "expected a number, got 'high'"),
        ("license_name: mine\n", "", "license_name and license_link belong to `license: other`, which needs both"),
        ("license: other", "license: mit", "license_name and license_link belong to `license: other`"),
        ("- name: test", "- name: val", "test_sets need a name each, no two of them the same; got ['val', 'val']"),
        ("- name: test", "- name: a/b", "a/b: a test set has a name that a file can have"),
        ("      test: {s", "      ../x: {s", "test: its text '../x' has no name that a file can have"),
        ("value: 12.5", "value: nan", "expected a number, got 'nan'"),
        (
            "    texts:\n      val: {path: data/words/val.jsonl}",
            "    texts:\n      a: {path: a.tsv}\n      b: {path: b.tsv}\n"
            "  - {name: val.b, title: b, role: test, texts: {c: {path: b.tsv}}}",
            "two texts would have their outputs in outputs/val.b.txt",
        ),
        ("path: data/words/val.jsonl", "file: val.jsonl", "val, text val: "),
        (
            "    role: validation",
            "    role: validation\n    metrics: [blue]",
            "unknown metric 'blue'; did you mean bleu?",
        ),
        (
            "    role: validation",
            "    role: validation\n    metrics: [bleu, paper_bleu]",
            "val: the metric paper_bleu is of tokenised text, which a release does not have; leave it out",
        ),
        ("metric: bleu", "metric: wer", "the published wer by moses_lowercase has nothing beside it"),
        ("scoring: moses_lowercase", "scoring: moses", "the published bleu by moses has nothing beside it"),
        ("value: 12.5", "value: 12.5, by_text: {val: 3}", "Another has a figure of 'val', which is none of the texts"),
        ("value: 12.5", "value: 12.5, by_text: 3", "expected `key: value` lines"),
        ("title: Backwards", "title: [", "is no YAML"),
        (CARD, "", "is empty"),
        (CARD, "- a", "line 1: expected `key: value` lines"),
    ],
)
def test_whatever_is_wrong_is_named(old, new, message, tmp_path):
    assert old in CARD
    path = write(tmp_path, CARD.replace(old, new, 1))
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}.*{re.escape(message)}"):
        read_card(path)
