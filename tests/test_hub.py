"""What a run uploads: the model and what describes it; never the optimizer, half a checkpoint, or a pickle."""

import json
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import filter_repo_objects
from training_runs import arguments, write_text

from hf_vanilla_transformer.training import pretrain
from hf_vanilla_transformer.training.hub import upload_checkpoint

MODEL = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
TOKEN = "hf_secretsecretsecret"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture
def uploads(monkeypatch):
    """What would have been uploaded: (commit message, place in the repository, files), one for each commit."""
    made = []

    def upload_folder(
        self, repo_id, folder_path, commit_message, path_in_repo=None, allow_patterns=None, revision=None
    ):
        assert (repo_id, self.token) == ("me/model", TOKEN)
        paths = {
            path.relative_to(folder_path).as_posix(): path for path in Path(folder_path).rglob("*") if path.is_file()
        }
        files = {name: paths[name].read_bytes() for name in filter_repo_objects(paths, allow_patterns=allow_patterns)}
        made.append((commit_message, path_in_repo, files))
        return "commit"

    def run_as_future(self, function, *args, **kwargs):
        future = Future()
        future.set_result(function(*args, **kwargs))
        return future

    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(HfApi, "run_as_future", run_as_future)
    monkeypatch.setattr(HfApi, "create_repo", lambda self, name, **options: SimpleNamespace(repo_id=name))
    return made


def hub_options(**changes):
    return {"push_to_hub": True, "hub_model_id": "me/model", "hub_token": TOKEN, "report_to": [], **changes}


def test_a_run_uploads_its_model_at_each_checkpoint_and_in_the_end_and_nothing_else(text, tmp_path, uploads):
    saving = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "no"}
    (tmp_path / "notes.txt").write_text("mine")
    pretrain(arguments(text, tmp_path, **saving, **hub_options()))
    messages, places, files = zip(*uploads)
    assert messages == ("Training in progress, update 2", "Training in progress, update 4", "End of training")
    assert places == (None, None, None)
    assert [set(each) for each in files[:2]] == [MODEL, MODEL]
    assert set(files[2]) == {*MODEL, "README.md", "results.json", "curves.png"}
    assert files[1]["model.safetensors"] == (tmp_path / "checkpoint-4" / "model.safetensors").read_bytes()
    for each in files:
        assert not any(TOKEN.encode() in content for content in each.values())
    assert json.loads(files[2]["results.json"])["metrics"]["updates"] == 4
    assert not list(tmp_path.glob(".uploading/*"))
    assert not list(tmp_path.rglob("training_args.bin"))


def test_whole_checkpoints_are_uploaded_only_where_that_is_asked_for(text, tmp_path, uploads):
    saving = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "no"}
    pretrain(arguments(text, tmp_path, **saving, **hub_options(hub_strategy="checkpoint")))
    assert [place for _, place, _ in uploads] == [None, "last-checkpoint", None]
    whole = uploads[1][2]
    assert set(whole) == {path.name for path in (tmp_path / "checkpoint-2").iterdir()}
    assert {"optimizer.pt", "seal.json"} <= set(whole)


def test_uploads_can_wait_for_the_end(text, tmp_path, uploads):
    saving = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "no"}
    pretrain(arguments(text, tmp_path, **saving, **hub_options(hub_strategy="end")))
    assert [message for message, _, _ in uploads] == ["End of training"]


def test_uploads_of_one_checkpoint_that_wait_for_each_other_do_not_share_a_copy(tmp_path, uploads, monkeypatch):
    """As on the Hub, where they are done one after the other while the run goes on and removes the checkpoint."""
    waiting = []
    monkeypatch.setattr(HfApi, "run_as_future", lambda self, function: waiting.append(function))
    checkpoint = tmp_path / "checkpoint-2"
    checkpoint.mkdir()
    for name in ("model.safetensors", "config.json", "optimizer.pt"):
        (checkpoint / name).write_text(name)
    for place in (None, "last-checkpoint"):
        upload_checkpoint(checkpoint, place, "me/model", "update 2", token=TOKEN)
    for path in checkpoint.iterdir():
        path.unlink()
    for upload in waiting:
        upload()
    assert [(place, set(files)) for _, place, files in uploads] == [
        (None, {"model.safetensors", "config.json"}),
        ("last-checkpoint", {"model.safetensors", "config.json", "optimizer.pt"}),
    ]
    assert not list(tmp_path.glob(".uploading/*"))
