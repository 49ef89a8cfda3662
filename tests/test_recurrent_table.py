"""The tables of recurrent models beside the Transformer, from a list of runs to what is printed."""

import pytest
import yaml
from commanding import run
from training_runs import SHAPE, options, write_text

from hf_vanilla_transformer.commands import lab_recurrent
from hf_vanilla_transformer.lab.run_list import read_run_list
from hf_vanilla_transformer.training import pretrain

MODEL_CLASS = "hf_vanilla_transformer.lab.recurrent:RecurrentForConditionalGeneration"


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.slow
def test_the_verb_compares_the_runs_of_a_list_that_have_ended(tmp_path, monkeypatch):
    """Trains three tiny models, in some ten seconds."""
    monkeypatch.chdir(tmp_path)
    text = write_text(tmp_path)
    shared = options(text, "unused", max_minutes=10.0, num_train_epochs=1, eval_strategy="steps", eval_steps=4)
    for name in ("output_dir", "config_overrides", "preset"):
        del shared[name]
    gru = {"model_class": MODEL_CLASS, "preset": "recurrent", "config_overrides": {"d_model": 16, "cell": "gru"}}
    runs = [
        {"name": "transformer", "preset": "tiny", "config_overrides": SHAPE, "learning_rate": 0.01},
        {"name": "low", **gru, "learning_rate": 0.001},
        {"name": "high", **gru, "learning_rate": 0.01},
        {"name": "waits", "model_class": MODEL_CLASS, "preset": "recurrent_gnmt", "config_overrides": {"d_model": 16}},
    ]
    (tmp_path / "list.yaml").write_text(yaml.safe_dump({"defaults": shared, "runs": runs}))
    words = ["list.yaml", "--test_set", "val.jsonl", "--by_length", "3", "--device", "cpu"]
    assert "no run of list.yaml has ended" in run(lab_recurrent.main, *words).error
    listed = read_run_list("list.yaml")
    results = {each.name: pretrain(each.arguments) for each in listed.runs[:3]}
    done = run(lab_recurrent.main, *words)
    assert done.returncode == 0, done.stderr
    training, minutes, bleu, claims, notes = (part.splitlines() for part in done.stdout.strip().split("\n\n"))
    better = min("low", "high", key=lambda name: results[name].metrics["final_loss"])
    names = ["transformer", *(f"{name} *" if name == better else name for name in ("low", "high"))]
    for table in (training, minutes, bleu):
        assert [cells(line)[0] for line in table[2:]] == names
    evaluated = {
        name: [entry["eval_loss"] for entry in each.history if "eval_loss" in entry] for name, each in results.items()
    }
    lowest = sorted((min(evaluated[name]) for name in ("transformer", better)), reverse=True)
    assert cells(minutes[0])[1:] == [f"{loss:.3f}" for loss in lowest]
    assert cells(bleu[0])[:2] == ["BLEU", "all"]
    assert all("±" in cells(line)[1] for line in bleu[2:])
    assert [cells(line)[0] for line in claims[2:]] == ["transformer", better]
    assert "fails on long sentences" in claims[3]
    assert notes[0].startswith("- BLEU: nrefs:1|bs:1000")
    longest = max(len(line.split('"en": "')[1].split('"')[0].split()) for line in (text / "val.jsonl").open())
    assert notes[1] == f"- The longest source has {longest} words; longer text was not tested."
    done = run(lab_recurrent.main, *words, "--loss", 9.0, 0.5)
    titles, _, first, *_ = done.stdout.split("\n\n")[1].splitlines()
    assert cells(titles)[1:] == ["9.000", "0.500"]
    assert cells(first)[1].startswith("< ")
    assert cells(first)[2] == "-"
