"""A folder is looked through before it leaves: what may run code, remains of training, sizes."""

import bz2
import gzip
import io
import lzma
import pickle
import random
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hf_vanilla_transformer.publishing import folder_checks
from hf_vanilla_transformer.publishing.folder_checks import check_folder, find_danger

CARD = "---\nlibrary_name: transformers\npipeline_tag: translation\ntags: [x]\nlicense: mit\nlanguage: [en]\n"
CARD += "datasets: [me/data]\nmetrics: [bleu]\n---\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "README.md").write_text(CARD)
    save_file({"x": torch.zeros(3)}, tmp_path / "model.safetensors")
    (tmp_path / "results.json").write_text("{}")
    assert check_folder(tmp_path) == ([], [])
    return tmp_path


def saved(save, value):
    buffer = io.BytesIO()
    save(value, buffer)
    return buffer.getvalue()


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(print))
    return buffer.getvalue()


def tarred():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("data.pkl"))
    return buffer.getvalue()


DANGERS = {
    **{f"pickle of protocol {p}": (pickle.dumps(random.Random, p), "a pickle") for p in range(6)},
    "pickle of plain values": (pickle.dumps({"a": [1]}, 2), "a pickle"),
    "what torch saves": (saved(torch.save, {"x": torch.zeros(2)}), "an archive (zip"),
    "what torch saved in old times": (
        saved(lambda v, f: torch.save(v, f, _use_new_zipfile_serialization=False), {}), "a pickle",
    ),
    "array of objects": (saved(lambda v, f: np.save(f, v, allow_pickle=True), np.array([print])), "an array of numpy"),
    "gzip": (gzip.compress(pickle.dumps(print)), "an archive (gzip)"),
    "bzip2": (bz2.compress(b"x"), "an archive (bzip2)"),
    "xz": (lzma.compress(b"x"), "an archive (xz)"),
    "tar": (tarred(), "an archive (tar)"),
    "picture with an archive behind it": (b"\x89PNG\r\n\x1a\n" + bytes(300) + zipped(), "an archive (zip) behind"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DANGERS)
def test_what_may_run_code_is_found_by_its_content_whatever_its_name(kind, folder):
    content, message = DANGERS[kind]
    for name in ("curves.png", "outputs.txt", ".eval_results/x.yml"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        (finding,) = check_folder(folder)[0]
        assert finding.startswith(f"{name}: {message}")
        (folder / name).unlink()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "x.pt", "x.PTH", "x.pkl", "x.ckpt", "x.npy", "x.h5"])
def test_and_by_its_name_whatever_its_content(name, folder):
    (folder / name).write_text("a text")
    (finding,) = check_folder(folder)[0]
    assert finding.startswith(f"{name}: may hold pickles, by its name")


@pytest.mark.parametrize("content", [pickle.dumps(print), zipped(), b"", b"{}", b"\x80\x02" + bytes(30)])
def test_weights_are_what_their_name_says(content, folder):
    (folder / "model.safetensors").write_bytes(content)
    (finding,) = check_folder(folder)[0]
    assert finding.startswith("model.safetensors: not a file of safetensors")


def test_weights_that_begin_like_a_pickle_are_none(folder):
    """The length of a header may be 0x0280, and 80 02 begins a pickle."""
    path = folder / "model.safetensors"
    save_file({"x": torch.zeros(3)}, path, metadata={"note": ""})
    missing = 0x0280 - int.from_bytes(path.read_bytes()[:8], "little")
    save_file({"x": torch.zeros(3)}, path, metadata={"note": "n" * missing})
    assert path.read_bytes()[:2] == pickle.dumps(0, 2)[:2]
    assert find_danger(path) is None


@pytest.mark.parametrize(
    "text", ["", ".", "N.", "cold\nday\n", "(a)\n.\n", "I am.\nYou are.\n", "S'x'\n.", "R. Smith", "b.", "o.k."]
)
def test_texts_that_resemble_old_pickles_are_let_through(text, tmp_path):
    path = tmp_path / "outputs.txt"
    path.write_text(text)
    assert find_danger(path) is None


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint-5/model.json", "optimizer.json", "trainer_state.json", "run.log", "outputs.txt.partial",
        "events.out.tfevents.7", ".git/config", "__pycache__/x.txt", "seal.json", "sub/.DS_Store", "x.tmp",
        ".ctranslate2/model.json",
    ],
)  # fmt: skip
def test_remains_of_training_and_editing_are_found(name, folder):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("{}")
    assert check_folder(folder)[0] == [f"{name}: left over from training or editing"]


def test_sizes(folder, monkeypatch):
    size = (folder / "README.md").write_text(CARD + "x" * 999)
    monkeypatch.setattr(folder_checks, "LARGEST_FILE", size)
    assert check_folder(folder) == ([], [])
    monkeypatch.setattr(folder_checks, "LARGEST_FILE", size - 1)
    monkeypatch.setattr(folder_checks, "LARGE_TOTAL", 10)
    findings, remarks = check_folder(folder)
    assert findings == ["README.md: 0.0 GB, more than 0 GB"]
    assert remarks == ["0.0 MB in all"]


def test_leaks_and_faults_of_the_card_are_among_the_findings(folder):
    (folder / "results.json").write_text('{"output_dir": "/home/somebody/run"}')
    (folder / "README.md").write_text(CARD.replace("tags: [x]\n", ""))
    assert check_folder(folder)[0] == [
        "results.json:1: path of this or another machine: /home/somebody/run", "README.md: its metadata lacks tags",
    ]  # fmt: skip
    assert check_folder(folder, allowed=["/home/somebody/run"])[0] == ["README.md: its metadata lacks tags"]
