"""Examples of good and bad translations: those of the rule, and no others."""

import random
from types import SimpleNamespace

import pytest
from sacrebleu.metrics import CHRF

from hf_vanilla_transformer.evaluation import EvaluationSet
from hf_vanilla_transformer.publishing.card_file import CardTestSet
from hf_vanilla_transformer.publishing.example_translations import pick_examples
from hf_vanilla_transformer.publishing.release import _examples


def sentences(count=60):
    generator = random.Random(0)
    words = ["a", "dog", "runs", "over", "green", "grass", "while", "two", "men", "sit", "on", "wooden", "chairs"]
    found = []
    for _ in range(count):
        reference = generator.choices(words, k=generator.randint(4, 14))
        made = [word if generator.random() < 0.7 else generator.choice(words) for word in reference]
        source = generator.choices(words, k=len(reference) + generator.randint(-2, 2))
        found.append((" ".join(source), " ".join(made), " ".join(reference)))
    return found


def test_they_are_the_best_and_the_worst_of_the_long_sentences():
    data = sentences()
    sources, made, references = zip(*data)
    examples = pick_examples(sources, made, [[each] for each in references], "a test set")
    long = [row for row in data if len(row[0].split()) >= 8 and len(row[2].split()) >= 8]
    assert 10 < len(long) < len(data)
    assert f"Of the {len(long)} lines of a test set with at least 8 words in source and reference" in examples["rule"]
    scores = sorted(CHRF().sentence_score(output, [reference]).score for _, output, reference in long)
    assert [each["score"] for each in examples["bad"]] == pytest.approx(scores[:5])
    assert [each["score"] for each in examples["good"]] == pytest.approx(scores[:-6:-1])
    for each in examples["good"] + examples["bad"]:
        assert (each["source"], each["output"], each["reference"]) in long


def test_of_equals_the_first_come_first_and_no_sentence_twice():
    sources = [f"{number} one two three four five six seven" for number in range(7)]
    examples = pick_examples(sources, sources, [[each] for each in sources], "a test set")
    assert [each["source"] for each in examples["good"]] == sources[:4]
    assert [each["source"] for each in examples["bad"]] == sources[4:]


def test_of_equals_each_text_has_one_in_turn():
    sources = [f"{number} one two three four five six seven" for number in range(20)]
    texts = ["a"] * 12 + ["b"] * 6 + ["c"] * 2
    made = [sources[0].replace("one", "six"), *sources[1:]]
    examples = pick_examples(sources, made, [[each] for each in sources], "a test set", texts=texts)
    numbers = {kind: [int(each["source"].split()[0]) for each in examples[kind]] for kind in ("good", "bad")}
    assert numbers["good"] == [1, 12, 18, 2, 13]
    assert numbers["bad"][:3] == [0, 19, 3], "the worst first, then equals in turn again"
    assert examples["rule"].endswith("of equals, the first of each text, then the second, and so on.")


def test_error_rates_are_best_where_they_are_least():
    references = [[f"a b c d e f g {number}"] for number in range(10)]
    made = [references[number][0] if number % 2 else "z z z z z z z z" for number in range(10)]
    examples = pick_examples(["word"] * 10, made, references, "words", metric="per")
    assert {each["score"] for each in examples["good"]} == {0}
    assert min(each["score"] for each in examples["bad"]) > 80
    assert "Of the 10 lines of words with at least 8 units in the reference" in examples["rule"]


def test_tags_are_shown_and_not_counted():
    """Of a release, whose texts may have a tag each."""
    data = sentences()
    sources, made, references = zip(*data)
    of_texts = ["a"] * 30 + ["b"] * (len(data) - 30)
    expected = pick_examples(sources, made, [[each] for each in references], "test", texts=of_texts)
    texts = [
        EvaluationSet(tag, [f"<{tag}> {source}" for source in sources[rows]], [list(references[rows])], tag=tag)
        for tag, rows in (("2de", slice(30)), ("2fr", slice(30, None)))
    ]
    test_set = CardTestSet("test", "A test set", "test", {"a": {}, "b": {}})
    found = _examples(SimpleNamespace(test_sets=[test_set]), {"test": texts}, {"test": [made[:30], made[30:]]})
    assert found["rule"] == expected["rule"]
    for kind in ("good", "bad"):
        shown = [each["source"] for each in found[kind]]
        assert [source.split(maxsplit=1)[1] for source in shown] == [each["source"] for each in expected[kind]]
        assert all(source.startswith("<2") for source in shown)


def test_without_a_long_sentence_there_is_no_example():
    assert pick_examples(["a b"], ["a b"], [["a b"]], "a test set") is None
