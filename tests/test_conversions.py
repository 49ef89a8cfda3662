"""Conversions for CTranslate2: made once, again when the content changes, whole or not at all, wherever they fit."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from huggingface_hub import cached_assets_path

pytest.importorskip("ctranslate2")
from test_translator import save

from hf_vanilla_transformer.data.seals import find_damage
from hf_vanilla_transformer.inference import conversions
from hf_vanilla_transformer.inference.conversions import CONVERSIONS, conversion_name, conversion_of


@pytest.fixture
def made(monkeypatch):
    """The arguments of each conversion that is made; a stand-in writes it."""
    made = []

    def export(model, tokenizer, folder, quantization, num_positions):
        made.append((quantization, num_positions))
        (folder / "model.bin").write_text(f"{quantization} {num_positions}")

    monkeypatch.setattr(conversions, "export_ctranslate2", export)
    monkeypatch.setattr(conversions, "load_translator", lambda *_: (None, None))
    return made


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A folder with weights that nobody loads, and a cache that is not the user's."""
    assets = partial(cached_assets_path, assets_dir=tmp_path / "assets")
    monkeypatch.setattr(conversions, "cached_assets_path", assets)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text("weights")
    return folder


def test_a_conversion_is_named_by_all_that_it_depends_on(tmp_path):
    model, tokenizer = save(tmp_path)
    name = partial(conversion_name, tmp_path, "float32", 1024)
    names = [name(), conversion_name(tmp_path, "int8", 1024), conversion_name(tmp_path, "float32", 2048)]
    (tmp_path / "generation_config.json").unlink()  # no part of a conversion
    (tmp_path / "trainer_state.json").write_text("{}")
    assert name() == names[0]
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"dropout": 0.7}))
    names.append(name())
    with torch.no_grad():
        model.lm_head.bias[7] += 1e-3
    model.save_pretrained(tmp_path)
    names.append(name())
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(tmp_path)
    names.append(name())
    assert len(set(names)) == 6


def test_a_conversion_is_made_once_and_those_of_earlier_weights_are_removed(checkpoint, made):
    first, longer, small = (
        conversion_of(checkpoint, quantization, positions)
        for quantization, positions in (("float32", 64), ("float32", 128), ("int8", 64))
    )
    assert first.parent == checkpoint / CONVERSIONS
    assert first.name == conversion_name(checkpoint, "float32", 64)
    assert conversion_of(checkpoint, "float32", 64) == first
    assert made == [("float32", 64), ("float32", 128), ("int8", 64)]
    assert all(find_damage(each) is None for each in (first, longer, small))
    others = [checkpoint / CONVERSIONS / name for name in ("1-0123456789abcdef-float32-64", ".x", "notes")]
    for path in others:  # of another version, or still being made, or of somebody
        path.mkdir()
    (checkpoint / "model.safetensors").write_text("other weights")
    second = conversion_of(checkpoint, "float32", 64)
    conversion_of(checkpoint, "float32", 128)
    assert len(made) == 5
    kept = {path.name for path in (checkpoint / CONVERSIONS).iterdir()}
    assert kept == {second.name, conversion_name(checkpoint, "float32", 128), *(path.name for path in others)}


def spoil_a_file(folder: Path) -> None:
    (folder / "model.bin").write_text("float32 63")


def cut_a_file(folder: Path) -> None:
    (folder / "model.bin").write_text("")


def lose_the_seal(folder: Path) -> None:
    (folder / "seal.json").unlink()


@pytest.mark.parametrize("damage", [spoil_a_file, cut_a_file, lose_the_seal])
def test_a_damaged_conversion_is_made_again_with_a_warning(damage, checkpoint, made, caplog):
    found = conversion_of(checkpoint, "float32", 64)
    damage(found)
    assert conversion_of(checkpoint, "float32", 64) == found
    assert len(made) == 2
    assert (found / "model.bin").read_text() == "float32 64"
    assert find_damage(found) is None
    assert f"the conversion {found} cannot be used" in caplog.text
    assert [path.name for path in found.parent.iterdir()] == [found.name]


def test_a_folder_that_cannot_be_written_has_its_conversion_in_the_cache(checkpoint, made, tmp_path):
    (checkpoint / CONVERSIONS).write_text("in the way, as a file system that is read-only")
    found = conversion_of(checkpoint, "float32", 64)
    assert tmp_path / "assets" in found.parents
    assert conversion_of(checkpoint, "float32", 64) == found
    assert conversion_of(checkpoint, "float32", 64, is_ours=False) == found
    assert len(made) == 1
    other = tmp_path / "other"  # whose weights are the same, and stay
    other.mkdir()
    for path in checkpoint.iterdir():
        (other / path.name).write_text(path.read_text())
    of_other = conversion_of(other, "float32", 64)
    (checkpoint / "model.safetensors").write_text("other weights")
    conversion_of(checkpoint, "float32", 64)
    assert not found.exists()
    assert find_damage(of_other) is None
    (tmp_path / "assets" / "hf_vanilla_transformer").rename(tmp_path / "gone")
    (tmp_path / "assets" / "hf_vanilla_transformer").write_text("in the way, too")
    for is_ours in (True, False):
        with pytest.raises(OSError, match="can be written nowhere.*; let HF_HOME name a folder"):
            conversion_of(checkpoint, "float32", 64, is_ours=is_ours)


@pytest.mark.slow  # 4 seconds
def test_conversions_at_the_same_time_all_succeed(tmp_path):
    save(tmp_path)
    start = threading.Barrier(4)

    def convert(_):
        start.wait()
        return conversion_of(tmp_path, "float32", 32)

    with ThreadPoolExecutor(4) as pool:
        places = list(pool.map(convert, range(4)))
    assert len(set(places)) == 1
    assert [path.name for path in (tmp_path / CONVERSIONS).iterdir()] == [places[0].name]  # nothing half-made is left
    assert find_damage(places[0]) is None
