"""Seals: whatever changes in a folder after it was sealed is found."""

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_vanilla_transformer.data.seals import SEAL, find_damage, write_seal

FILES = {
    "model.safetensors": b"weights" * 50,
    "trainer_state.json": b"{}",
    "deep/er/rng.pth": b"\x00\x01",
    "empty": b"",
}


def sealed(folder):
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    write_seal(folder)
    return folder


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(tmp_path, name):
    folder = sealed(tmp_path / "folder")
    (folder / name).unlink()
    assert find_damage(folder) == f"{name} is missing"
    (folder / name).mkdir()
    assert find_damage(folder) == f"{name} is missing"


@pytest.mark.parametrize("name", FILES)
def test_a_longer_or_shorter_file_is_found(tmp_path, name):
    folder = sealed(tmp_path / "folder")
    size = len(FILES[name])
    (folder / name).write_bytes(FILES[name] + b"\n")
    assert find_damage(folder) == f"{name} has {size + 1} bytes instead of {size}"
    if size:
        (folder / name).write_bytes(FILES[name][:-1])
        assert find_damage(folder) == f"{name} has {size - 1} bytes instead of {size}"


def test_any_changed_bit_of_a_file_is_found(tmp_path):
    folder = sealed(tmp_path / "folder")
    path = folder / "model.safetensors"
    for position in (0, 100, 349):
        content = bytearray(FILES["model.safetensors"])
        content[position] ^= 1
        path.write_bytes(content)
        assert find_damage(folder) == "model.safetensors has changed since it was written"
    path.write_bytes(FILES["model.safetensors"])
    assert find_damage(folder) is None


def test_a_missing_or_unreadable_seal_is_damage(tmp_path):
    folder = sealed(tmp_path / "folder")
    whole = (folder / SEAL).read_bytes()
    for content in (
        b"",
        b"{",
        whole[: len(whole) // 2],
        b"\xff\xfe",
        b"[]",
        b"null",
        b"3",
        b'{"a": 3}',
        b'{"empty": {}}',
    ):
        (folder / SEAL).write_bytes(content)
        assert "cannot be read" in find_damage(folder), content
    (folder / SEAL).write_bytes(b"{}")
    assert find_damage(folder) is not None  # a seal of nothing
    (folder / SEAL).unlink()
    assert "has no seal.json" in find_damage(folder)
    assert find_damage(tmp_path / "nowhere") is not None


@settings(max_examples=150)
@given(data=st.data())
def test_whatever_changes_in_a_seal_is_damage_or_makes_no_difference(tmp_path_factory, data):
    folder, whole = (tmp_path_factory.getbasetemp() / name for name in ("sealed", "whole-seal"))
    if not folder.exists():
        shutil.copyfile(sealed(folder) / SEAL, whole)
    content = bytearray(whole.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    before = json.loads(content)
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    (folder / SEAL).write_bytes(content)
    if find_damage(folder) is None:
        after = json.loads(content)
        assert {name: (each["bytes"], each["sha256"]) for name, each in after.items()} == {
            name: (each["bytes"], each["sha256"]) for name, each in before.items()
        }
