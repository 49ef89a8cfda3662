"""By what a checkpoint is known: its content, and not its place, its dates or what lies beside it."""

import json
import shutil

import pytest
from commanding import save_translator

from hf_vanilla_transformer.inference.checkpoint_fingerprints import checkpoint_fingerprint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_translator(folder)
    return folder


def test_a_copy_is_the_same_and_other_files_do_not_count(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "README.md").write_text("a card")
    (copy / "optimizer.pt").write_bytes(b"of the training")
    (copy / ".ctranslate2").mkdir()
    assert checkpoint_fingerprint(str(copy)) == checkpoint_fingerprint(folder)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"])
def test_each_file_that_is_loaded_counts(folder, tmp_path, name):
    copy = shutil.copytree(folder, tmp_path / "copy")
    with open(copy / name, "ab") as file:
        file.write(b"\n")
    assert checkpoint_fingerprint(copy) != checkpoint_fingerprint(folder)


def test_how_a_model_decodes_is_no_part_of_what_can_be_learned_from_it(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "generation_config.json").write_text(json.dumps({"num_beams": 7}))
    assert checkpoint_fingerprint(copy, decoding=False) == checkpoint_fingerprint(folder, decoding=False)
    with open(copy / "model.safetensors", "ab") as file:
        file.write(b"\n")
    assert checkpoint_fingerprint(copy, decoding=False) != checkpoint_fingerprint(folder, decoding=False)


def test_the_base_of_an_adapter_counts(folder, tmp_path):
    base, adapter = shutil.copytree(folder, tmp_path / "base"), tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    before = checkpoint_fingerprint(adapter)
    with open(base / "model.safetensors", "ab") as file:
        file.write(b"\0")
    assert checkpoint_fingerprint(adapter) != before
