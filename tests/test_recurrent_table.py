"""The table of recurrent models beside the Transformer: what training was like, and BLEU by length."""

import pytest
import yaml
from commanding import run
from training_runs import options, write_text

from hf_vanilla_transformer.commands import lab_recurrent
from hf_vanilla_transformer.lab.recurrent_table import TrainedRun, training_rows
from hf_vanilla_transformer.lab.run_list import read_run_list
from hf_vanilla_transformer.training import pretrain

MODEL_CLASS = "hf_vanilla_transformer.lab.recurrent:RecurrentForConditionalGeneration"


def trained(name, preset, losses):
    return TrainedRun(name, preset, 10, 5, 1234.0, losses)


def test_time_is_taken_to_the_lowest_loss_that_all_reach():
    fast = trained("fast", "tiny", [(1.0, 3.0), (2.0, 2.0), (3.0, 1.5), (4.0, 1.7)])
    slow = trained("slow", "recurrent", [(2.0, 3.5), (4.0, 2.5), (6.0, 2.2)])
    assert (fast.lowest_loss, slow.lowest_loss) == (1.5, 2.2)
    assert [fast.minutes_to(each) for each in (3.0, 2.2, 1.5, 1.0)] == [1.0, 2.0, 3.0, None]
    titles, *rows = training_rows([fast, slow])
    assert titles[-1] == "minutes to 2.200"
    assert [row[-1] for row in rows] == ["2.0", "6.0"]
    assert [row[-1] for row in training_rows([fast, slow], 1.6)[1:]] == ["3.0", "-"]
    silent = TrainedRun("silent", "recurrent", 10, 5, None, [(1.0, 2.0)])
    assert [row[3] for row in training_rows([fast, silent])[1:]] == ["1,234", "-"]
    assert fast.claim == "better in less time (Vaswani et al. 2017)"
    assert "fails on long sentences" in slow.claim


@pytest.mark.slow
def test_the_verb_compares_the_runs_of_a_list_that_have_ended(tmp_path, monkeypatch):
    """Trains a tiny model, in a few seconds."""
    monkeypatch.chdir(tmp_path)
    text = write_text(tmp_path)
    shared = options(text, "unused", learning_rate=0.01, max_minutes=10.0, num_train_epochs=1)
    for name in ("output_dir", "config_overrides", "preset"):
        del shared[name]
    runs = [
        {
            "name": "gru",
            "model_class": MODEL_CLASS,
            "preset": "recurrent",
            "config_overrides": {"d_model": 16, "cell": "gru"},
        },
        {"name": "waits", "model_class": MODEL_CLASS, "preset": "recurrent_gnmt", "config_overrides": {"d_model": 16}},
    ]
    (tmp_path / "list.yaml").write_text(yaml.safe_dump({"defaults": shared, "runs": runs}))
    words = ["list.yaml", "--test_set", "val.jsonl", "--by_length", "3", "--device", "cpu"]
    assert "no run of list.yaml has ended" in run(lab_recurrent.main, *words).error
    listed = read_run_list("list.yaml")
    pretrain(listed.runs[0].arguments)
    done = run(lab_recurrent.main, *words)
    assert done.returncode == 0, done.stderr
    training, bleu, signature = done.stdout.strip().split("\n\n")
    assert training.splitlines()[2].startswith("| gru | ")
    assert len(training.splitlines()) == 3
    assert [cell.strip() for cell in bleu.splitlines()[0].split("|")][1:3] == ["BLEU", "all"]
    assert "fails on long sentences" in bleu.splitlines()[2]
    assert signature.startswith("BLEU: nrefs:1")
