"""The folder of a result: whole or not at all, whatever was there before and whenever it fails."""

import os
from pathlib import Path

import pytest

from hf_vanilla_transformer.interop.output_folder import OF_MODELS, output_folder


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def filled(folder, contents):
    folder.mkdir(exist_ok=True)
    for name, text in contents.items():
        (folder / name).write_text(text)
    return folder


def write(target, contents, then=lambda: None, overwrite=False, own=OF_MODELS):
    with output_folder(target, overwrite, own=own) as written:
        filled(written, contents)
        then()


def test_an_earlier_result_is_replaced_as_a_whole(tmp_path):
    target = filled(tmp_path / "model", {"config.json": "old", "tokenizer.json": "old"})
    filled(target / "target_tokenizer", {"tokenizer.json": "old"})
    seen = []
    new = {"config.json": "new", "model.safetensors": "new"}
    write(target, new, lambda: seen.append(files(target)["config.json"]), overwrite=True)
    assert seen == ["old"]
    assert files(tmp_path) == {f"model/{name}": text for name, text in new.items()}


def test_what_is_no_result_is_refused_before_anything_is_done(tmp_path):
    target = filled(tmp_path / "model", {"config.json": "old", "diary.txt": "mine"})
    (target / "checkpoint-1").mkdir()
    with pytest.raises(FileExistsError, match=r"model has checkpoint-1, diary.txt, which no such result has made"):
        write(target, {}, lambda: pytest.fail("it was not refused"), overwrite=True)
    assert files(target) == {"config.json": "old", "diary.txt": "mine"}


def test_pictures_are_replaced_one_by_one_and_others_stay(tmp_path):
    target = filled(tmp_path / "pictures", {"a.png": "old", "b.png": "old"})
    write(target, {"a.png": "new"}, overwrite=True, own=None)
    assert files(target) == {"a.png": "new", "b.png": "old"}


@pytest.mark.parametrize("when", ["writing", "renaming"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_after_an_error_the_earlier_result_is_there_and_nothing_else(when, error, tmp_path, monkeypatch):
    target = filled(tmp_path / "model", {"config.json": "old"})
    rename = os.rename

    def fail():
        raise error

    def fails_once(old, new):
        if os.path.basename(old) == "written":
            fail()
        rename(old, new)

    monkeypatch.setattr(os, "rename", fails_once)
    with pytest.raises(error):
        write(target, {"config.json": "new"}, fail if when == "writing" else lambda: None, overwrite=True)
    assert files(tmp_path) == {"model/config.json": "old"}


def test_what_another_process_has_written_meanwhile_stays(tmp_path):
    target = tmp_path / "model"
    with pytest.raises(OSError, match="not empty"):
        write(target, {"config.json": "second"}, lambda: filled(target, {"config.json": "first"}))
    assert files(tmp_path) == {"model/config.json": "first"}


def test_an_empty_folder_is_filled_and_a_link_stays_one(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    for text in ("first", "second"):
        write(tmp_path / "link", {"config.json": text}, overwrite=text == "second")
        assert (tmp_path / "link").is_symlink()
        assert files(tmp_path / "disk") == {"config.json": text}


def test_the_present_folder_may_be_the_one(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir(mode=0o750)
    monkeypatch.chdir(tmp_path / "here")
    with output_folder(".") as written:
        (written / "a").write_text("1")
    assert (Path("a").read_text(), os.getcwd()) == ("1", str(tmp_path / "here"))
    assert (tmp_path / "here").stat().st_mode & 0o777 == 0o750
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
