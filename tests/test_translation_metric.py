"""The metric of the `evaluate` library: loaded as users do, without a network and with a cache of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools
from sacrebleu.metrics import BLEU, CHRF, TER

import hf_vanilla_transformer
from hf_vanilla_transformer.evaluation import load_translation_metric, translation_metric_path
from hf_vanilla_transformer.evaluation.translation_metric.translation_metric import TranslationMetric

PROJECT = Path(hf_vanilla_transformer.__file__).parents[1]

PREDICTIONS = ["ein Hund läuft durch den Park", "zwei Männer sitzen auf der Bank dort"]
REFERENCES = ["Ein Hund läuft durch den großen Park", "zwei Männer sitzen auf der Bank"]
SEVERAL = [[REFERENCES[0], "ein Hund rennt im Park"], [REFERENCES[1], "zwei Herren sitzen auf der Bank dort"]]

PROGRAM = """
import json, sys
import evaluate
metric = evaluate.load(sys.argv[1])
print(json.dumps([sys.modules[type(metric).__module__].__file__, metric.compute(**json.loads(sys.argv[2]))]))
"""


def expected(references, **options):
    metrics = {
        "bleu": BLEU(**options),
        "chrf": CHRF(**{k: v for k, v in options.items() if k != "tokenize"}),
        "ter": TER(),
    }
    streams = [list(stream) for stream in zip(*references)]
    scores = {}
    for name, metric in metrics.items():
        scores[name] = pytest.approx(metric.corpus_score(PREDICTIONS, streams).score)
        scores[f"{name}_signature"] = str(metric.get_signature())
    return scores


@pytest.mark.slow  # 4 seconds: another interpreter
def test_evaluate_loads_it_by_its_path_from_a_cache_without_a_network(tmp_path):
    # Somewhere else, so that the package is found as an installed one is; no proxy could be reached.
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    environment |= {"HF_HUB_OFFLINE": "1", "HTTPS_PROXY": "http://127.0.0.1:9", "PYTHONPATH": str(PROJECT)}
    inputs = json.dumps({"predictions": PREDICTIONS, "references": SEVERAL})
    command = [sys.executable, "-c", PROGRAM, str(translation_metric_path()), inputs]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    file, scores = json.loads(done.stdout)
    assert Path(file).is_relative_to(tmp_path / "modules")  # what runs is the copy
    assert scores == expected(SEVERAL)
    assert "nrefs:2" in scores["bleu_signature"]


@pytest.fixture
def metric(tmp_path):
    return load_translation_metric(cache_dir=str(tmp_path), keep_in_memory=True)


def test_one_reference_for_each_will_do(metric):
    assert metric.compute(predictions=PREDICTIONS, references=REFERENCES) == expected([[text] for text in REFERENCES])


def test_the_class_can_be_used_without_being_loaded(tmp_path):
    metric = TranslationMetric(cache_dir=str(tmp_path), keep_in_memory=True)
    assert metric.compute(predictions=PREDICTIONS, references=SEVERAL) == expected(SEVERAL)
    assert "predictions" in metric.inputs_description


def test_options_are_those_of_the_function(metric):
    scores = metric.compute(
        predictions=PREDICTIONS, references=REFERENCES, metrics=["chrf", "bleu"], lowercase=True, tokenize="none"
    )
    options = expected([[text] for text in REFERENCES], lowercase=True, tokenize="none")
    assert scores == {name: value for name, value in options.items() if not name.startswith("ter")}
    scores = metric.compute(predictions=["a b", "a"], references=["a b", "b"], metrics=["wer", "per"])
    assert (scores["wer"], scores["per"]) == pytest.approx((50, 100 / 3))


def test_batches_add_up_to_the_whole(metric):
    for prediction, reference in zip(PREDICTIONS, REFERENCES):
        metric.add_batch(predictions=[prediction], references=[reference])
    assert metric.compute() == expected([[text] for text in REFERENCES])


def test_a_wheel_has_it():
    found = setuptools.find_packages(str(PROJECT), include=["hf_vanilla_transformer*"])
    name = f"hf_vanilla_transformer.evaluation.{translation_metric_path().name}"
    assert name in found
    assert (translation_metric_path() / f"{translation_metric_path().name}.py").is_file()
