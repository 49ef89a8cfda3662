"""The command `lab-scan`: splitting, learning by the list's options, scoring."""

import json

import pytest
from commanding import run, save_translator
from queue_lists import pretend_to_train, write_list
from test_scan import PAIRS, write_tasks

from hf_vanilla_transformer.commands import lab_scan, pretrain
from hf_vanilla_transformer.lab.run_list import read_run_list


def test_a_split_is_learned_from_and_scored(tmp_path):
    pytest.importorskip("matplotlib")
    tasks = write_tasks(tmp_path / "tasks.txt", PAIRS * 6)
    done = run(lab_scan.main, "split", tasks, "--output_dir", tmp_path / "scan", "--cutoffs", 10)
    assert done.returncode == 0, done.stderr
    assert "cutoff-10: 100 pairs to learn from, 500 for validation, 120 longer ones" in done.stdout
    folder = tmp_path / "scan" / "cutoff-10"
    options = {
        "train_data": folder / "train.tsv", "output_dir": tmp_path / "run", "source_units": "words", "preset": "tiny",
        "target_units": "words", "vocab_size": 40, "max_tokens": 256, "max_steps": 1, "final_weights": "last",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    shape = ["--config_overrides", "d_model=16", "num_heads=2", "d_ff=16", "position_encoding=rotary"]
    done = run(pretrain.main, *words, *shape)
    assert done.returncode == 0, done.stderr
    where = {"--data": folder / "test.tsv", "--output": tmp_path / "counts.json", "--plot": tmp_path / "scan.png"}
    done = run(lab_scan.main, "score", tmp_path / "run", *(word for pair in where.items() for word in pair))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "| Exact match, % | all | 11 actions | 12 actions |"
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert sum(count for _, count in counts["run"]["by_length"].values()) == 120
    assert (tmp_path / "scan.png").exists()


def test_a_list_of_runs_makes_one_table_and_names_what_has_not_ended(tmp_path):
    (tmp_path / "test.tsv").write_text("a b\tA B\nc\tC A\n")
    entries = [{"name": f"scan-1-{name}", "train_data": [str(tmp_path / "train.tsv")]} for name in ("none", "alibi")]
    (tmp_path / "train.tsv").write_text("a\tA\n")
    path = write_list(tmp_path, entries)
    ended = read_run_list(path).runs[0]
    pretend_to_train(ended, wer=10.0)
    save_translator(ended.output_dir, max_extra_tokens=2)
    done = run(lab_scan.main, "score", path, "--output", tmp_path / "counts.json", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    titles = "| Exact match, % | longer than 1 actions | as short, held out | of the wrong, only ended early |"
    assert lines[0] == titles
    assert "left out, not ended: scan-1-alibi" in done.stderr
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert list(counts) == ["scan-1-none"]
    right, count = counts["scan-1-none"]["by_length"]["2"]
    assert count == 2
    early = counts["scan-1-none"]["ended_early"]
    assert lines[2] == f"| none | {50 * right:.1f} | 90.0 | {100 * early / (count - right):.1f} |"


def test_models_need_a_test_file_and_a_list_has_its_own(tmp_path):
    (tmp_path / "test.tsv").write_text("go\tI_GO\ngo twice\n")
    data = ("--data", tmp_path / "test.tsv")
    assert "test.tsv:2: there has to be one tab" in run(lab_scan.main, "score", "m", *data).error
    assert "models need --data" in run(lab_scan.main, "score", "m").error
    for words in (("runs.yaml", *data), ("runs.yaml", "m")):
        assert "runs.yaml says by itself which models and data" in run(lab_scan.main, "score", *words).error
