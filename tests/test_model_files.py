"""Which files of a folder are published: the model and what describes it, and nothing of the run's own."""

import pytest

from hf_vanilla_transformer.publishing.model_files import choose_files

PUBLISHED = [
    ".eval_results/bleu.yaml", "LICENSE", "README.md", "config.json", "curves.png", "generation_config.json",
    "model.safetensors", "outputs/test2016.de", "recipe.yaml", "results.json", "tokenizer.json",
    "tokenizer_config.json",
]  # fmt: skip
KEPT = [
    ".git/config", "checkpoint-2/model.safetensors", "checkpoint-2/optimizer.pt", "dates.jsonl", "notes.txt",
    "optimizer.pt", "runs/events.out.tfevents.1", "seal.json", "tokenizer/tokenizer.json", "training_args.bin",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    for name in [*PUBLISHED, *KEPT, "decoding.py"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_model_and_card_are_chosen_and_all_else_is_named(folder):
    assert choose_files(folder) == (PUBLISHED, KEPT)


def test_further_files_can_be_chosen_and_chosen_ones_left_out(folder):
    chosen, rest = choose_files(folder, ["*.txt", "runs/*"], ["results.json", "*.png"])
    added, removed = {"notes.txt", "runs/events.out.tfevents.1"}, {"results.json", "curves.png"}
    assert set(chosen) == {*PUBLISHED, *added} - removed
    assert set(rest) == {*KEPT, *removed} - added


def test_leaving_out_outranks(folder):
    chosen, _ = choose_files(folder, ["notes.txt"], ["*.txt"])
    assert "notes.txt" not in chosen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": ["*.md5"]}, r"--include '\*.md5' fits no file of"),
        ({"exclude": ["checkpoint-3/*"]}, r"--exclude 'checkpoint-3/\*' fits no file of"),
        ({"include": ["/etc/*"]}, "--include '/etc/.' is not a pattern of files"),
        ({"exclude": [""]}, "--exclude '' is not a pattern of files"),
        ({"exclude": ["*.json"]}, r"--exclude '\*.json' fits config.json, without which there is no model"),
        ({"exclude": ["model.*"]}, r"--exclude 'model.\*' fits model.safetensors, without which there is no model"),
    ],
)
def test_a_pattern_without_effect_is_refused(folder, options, message):
    with pytest.raises(ValueError, match=message):
        choose_files(folder, **options)


def test_what_lies_outside_the_folder_cannot_be_chosen(folder):
    (folder.parent / "outside.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"--include '../outside.txt' is not a pattern of files: it leads out"):
        choose_files(folder, ["../outside.txt"])
