"""Checkpoints: whole or not at all, checked before use, the old ones cleared away."""

import json
import logging
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from hf_vanilla_transformer.data.seals import SEAL, find_damage, write_seal
from hf_vanilla_transformer.training import checkpoints
from hf_vanilla_transformer.training.checkpoints import (
    IN_BETWEEN,
    clear_leftovers,
    last_good_checkpoint,
    list_checkpoints,
    prepare_folder,
    publish_checkpoint,
    remove_checkpoint,
    rotate_checkpoints,
    writing_folder,
)

FILES = {
    "model.safetensors": b"weights" * 50,
    "trainer_state.json": b"{}",
    "deep/er/rng.pth": b"\x00\x01",
    "empty": b"",
}


def write(folder, step, files=FILES):
    written = writing_folder(folder) / f"checkpoint-{step}"
    for name, content in files.items():
        (written / name).parent.mkdir(parents=True, exist_ok=True)
        (written / name).write_bytes(content)
    return written


def publish(folder, step, files=FILES):
    return publish_checkpoint(write(folder, step, files), folder)


def steps(folder):
    return [int(path.name.split("-")[1]) for path in list_checkpoints(folder)]


# Sealing


def test_a_checkpoint_is_published_with_all_its_files(tmp_path):
    checkpoint = publish(tmp_path, 7)
    assert checkpoint == tmp_path / "checkpoint-7"
    assert {str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file()} == {*FILES, SEAL}
    assert all((checkpoint / name).read_bytes() == content for name, content in FILES.items())
    assert set(json.loads((checkpoint / SEAL).read_text())) == set(FILES)
    assert find_damage(checkpoint) is None
    assert find_damage(str(checkpoint)) is None
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-7"]


def test_a_checkpoint_may_be_moved(tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.move(publish(tmp_path, 7), moved)
    assert find_damage(moved) is None


def test_one_of_the_same_name_is_replaced(tmp_path):
    publish(tmp_path, 7, {"model.safetensors": b"old", "gone": b""})
    checkpoint = publish(tmp_path, 7, {"model.safetensors": b"new"})
    assert (checkpoint / "model.safetensors").read_bytes() == b"new"
    assert not (checkpoint / "gone").exists()
    assert find_damage(checkpoint) is None
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-7"]


# Whole or not at all


@pytest.mark.parametrize("published_before", [False, True])
@pytest.mark.parametrize("failing", ["rename", "fsync", "open"])
def test_what_fails_at_any_point_leaves_no_half_of_a_checkpoint(tmp_path, monkeypatch, failing, published_before):
    publish(tmp_path, 3)
    if published_before:
        publish(tmp_path, 7, {"model.safetensors": b"old"})
    real = getattr(os, failing)
    for allowed in range(40):  # every call in turn fails
        written = write(tmp_path, 7, {"model.safetensors": b"new", "b": b"b"})
        calls = iter(range(allowed))

        def sometimes(*args, calls=calls, **kwargs):
            if next(calls, None) is None:
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(checkpoints.os, failing, sometimes)
            try:
                publish_checkpoint(written, tmp_path)
                done = True
            except OSError:
                done = False
        assert {find_damage(path) for path in list_checkpoints(tmp_path)} == {None}
        assert 3 in steps(tmp_path)
        if (tmp_path / "checkpoint-7").exists():
            assert (tmp_path / "checkpoint-7" / "model.safetensors").read_bytes() in (b"old", b"new")
        if done:
            break
        clear_leftovers(tmp_path)  # what the next run does
        assert all(path.name.startswith("checkpoint-") for path in tmp_path.iterdir())
        assert steps(tmp_path) in ([3], [3, 7])
    assert done
    assert allowed > 0
    assert (tmp_path / "checkpoint-7" / "model.safetensors").read_bytes() == b"new"


def test_a_checkpoint_that_is_written_is_not_seen(tmp_path):
    publish(tmp_path, 3)
    write(tmp_path, 7)
    assert steps(tmp_path) == [3]
    assert last_good_checkpoint(tmp_path) == tmp_path / "checkpoint-3"


# Finding


def test_checkpoints_are_found_by_step_and_nothing_else_is(tmp_path):
    for step in (900, 1000, 20):
        publish(tmp_path, step)
    for name in ("checkpoint-", "checkpoint-5-old", "my-checkpoint-5", "checkpoint-x"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-8").write_text("a file")
    assert steps(tmp_path) == [20, 900, 1000]
    assert list_checkpoints(tmp_path / "nowhere") == []
    assert last_good_checkpoint(tmp_path / "nowhere") is None


def test_damaged_checkpoints_are_named_and_passed_over(tmp_path, package_log):
    for step in (1, 2, 3, 4):
        publish(tmp_path, step)
    assert last_good_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    assert not package_log.records
    (tmp_path / "checkpoint-4" / "model.safetensors").write_bytes(b"short")
    (tmp_path / "checkpoint-3" / SEAL).write_text('{"model.safetensors": 3}')
    (tmp_path / "checkpoint-1" / SEAL).unlink()
    assert last_good_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    messages = [record.getMessage() for record in package_log.records]
    assert all(record.levelno == logging.WARNING for record in package_log.records)
    assert len(messages) == 2
    assert "checkpoint-4 is damaged and passed over: model.safetensors has 5 bytes instead of 350" in messages[0]
    assert "checkpoint-3 is damaged and passed over" in messages[1]
    (tmp_path / "checkpoint-2" / "empty").unlink()
    assert last_good_checkpoint(tmp_path) is None


# Rotation


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [
        (2, None, [4, 5]),
        (3, None, [3, 4, 5]),
        (9, None, [1, 2, 3, 4, 5]),
        (None, None, [1, 2, 3, 4, 5]),
        (1, None, [5]),
        (2, 1, [1, 4, 5]),
        (3, 2, [2, 3, 4, 5]),
        (2, 5, [4, 5]),
        (1, 5, [5]),
        (1, 2, [2, 5]),
    ],
)
def test_the_oldest_go_and_the_best_stays_on_top_of_the_last(tmp_path, keep, best, left):
    for step in range(1, 6):
        publish(tmp_path, step, {"a": b"a"})
    rotate_checkpoints(tmp_path / "checkpoint-5", keep, best and str(tmp_path / f"checkpoint-{best}"))
    assert steps(tmp_path) == left
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"checkpoint-{step}" for step in left]


def test_the_best_is_known_by_another_spelling_of_its_path(tmp_path, monkeypatch):
    for step in range(1, 6):
        publish(tmp_path, step, {"a": b"a"})
    monkeypatch.chdir(tmp_path)
    rotate_checkpoints(tmp_path / "checkpoint-5", 2, "./checkpoint-1")
    assert steps(tmp_path) == [1, 4, 5]


def publish_marked(folder, step):
    """One that there is only because the run was stopped there."""
    return publish(folder, step, {"a": b"a", IN_BETWEEN: b""})


def test_those_at_which_the_run_was_stopped_go_without_having_counted(tmp_path):
    """What is left of the others is what is left without them, at any moment; the newest of all stays."""
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    for step in range(1, 10):
        if step % 2:
            rotate_checkpoints(publish(whole, step, {"a": b"a"}), 2, str(whole / "checkpoint-1"))
            rotate_checkpoints(publish(stopped, step, {"a": b"a"}), 2, str(stopped / "checkpoint-1"))
            assert steps(stopped) == steps(whole)
        else:
            rotate_checkpoints(publish_marked(stopped, step), 2, str(stopped / "checkpoint-1"))
            assert steps(stopped) == [*steps(whole), step]
    assert steps(whole) == [1, 7, 9]


@pytest.mark.parametrize("make", [publish, publish_marked])
def test_what_has_just_been_published_stays_though_a_damaged_one_of_a_later_update_is_there(tmp_path, make):
    for step in (400, 500, 600):
        publish(tmp_path, step)
    (tmp_path / "checkpoint-600" / "empty").unlink()
    rotate_checkpoints(make(tmp_path, 550), 2)
    assert steps(tmp_path) == ([500, 550, 600] if make is publish else [400, 500, 550, 600])
    assert last_good_checkpoint(tmp_path).name == "checkpoint-550"
    rotate_checkpoints(publish(tmp_path, 600), 2)  # the run has come there
    assert steps(tmp_path) == ([550, 600] if make is publish else [500, 600])


def test_a_checkpoint_that_goes_is_out_of_sight_before_anything_of_it_is_deleted(tmp_path, monkeypatch):
    publish(tmp_path, 1)

    def killed(path, *args, **kwargs):
        if Path(path).exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_checkpoint(tmp_path / "checkpoint-1")
    assert steps(tmp_path) == []
    publish(tmp_path, 2)
    remove_checkpoint(tmp_path / "checkpoint-2")  # what was left does not stand in the way
    assert list(tmp_path.iterdir()) == []


# The folder of a run


Usage = namedtuple("Usage", "total used free")


def test_a_folder_is_made_and_what_is_in_it_is_left_alone(tmp_path):
    folder = tmp_path / "a" / "b"
    prepare_folder(folder, 1, 1)
    assert list(folder.iterdir()) == []
    publish(folder, 1)
    write(folder, 2)  # of a run that is training there
    before = sorted(folder.rglob("*"))
    prepare_folder(folder, 1, 1)
    assert sorted(folder.rglob("*")) == before


def test_what_a_killed_run_left_is_cleared_and_nothing_else(tmp_path):
    clear_leftovers(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    publish(tmp_path, 1)
    write(tmp_path, 2)
    (tmp_path / ".removing" / "checkpoint-0").mkdir(parents=True)
    (tmp_path / ".uploading" / "checkpoint-1-model").mkdir(parents=True)
    (tmp_path / "results.json").write_text("{}")
    clear_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "results.json"]


@pytest.mark.parametrize(
    ("written", "removed", "left"),
    [
        ("sealed", "whole", b"new"),  # between the two renames
        ("half", "whole", b"old"),
        (None, "whole", b"old"),
        ("sealed", None, b"new"),  # nothing was replaced
        ("half", "damaged", None),
    ],
)
def test_what_was_killed_between_two_renames_is_put_back(tmp_path, package_log, written, removed, left):
    if removed:
        old = publish(tmp_path, 7, {"model.safetensors": b"old"})
        if removed == "damaged":
            (old / "model.safetensors").write_bytes(b"odd")
        checkpoints._hide(old)
    if written:
        new = write(tmp_path, 7, {"model.safetensors": b"new"})
        if written == "sealed":
            write_seal(new)
    clear_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == (["checkpoint-7"] if left else [])
    if left:
        assert (tmp_path / "checkpoint-7" / "model.safetensors").read_bytes() == left
        assert find_damage(tmp_path / "checkpoint-7") is None
    assert ("checkpoint-7 is put back" in package_log.text) is bool(left)


def test_what_is_there_is_not_replaced_by_what_was_left(tmp_path):
    publish(tmp_path, 7, {"model.safetensors": b"there"})
    write_seal(write(tmp_path, 7, {"model.safetensors": b"left"}))
    clear_leftovers(tmp_path)
    assert (tmp_path / "checkpoint-7" / "model.safetensors").read_bytes() == b"there"


def test_one_that_is_replaced_is_deleted_only_when_the_new_one_is_there(tmp_path, monkeypatch):
    """Deleting takes long: a kill meanwhile must not cost the run its newest checkpoint."""
    publish(tmp_path, 7, {"model.safetensors": b"old"})
    written, rmtree, seen = write(tmp_path, 7), checkpoints.shutil.rmtree, []

    def look(path, *args, **kwargs):
        if Path(path).exists():
            seen.append(find_damage(tmp_path / "checkpoint-7"))
        rmtree(path, *args, **kwargs)

    monkeypatch.setattr(checkpoints.shutil, "rmtree", look)
    publish_checkpoint(written, tmp_path)
    assert seen == [None]


@pytest.mark.parametrize(
    ("name", "message"), [("file", "file is a file; name a folder"), ("file/below", "file/below cannot be written")]
)
def test_a_file_in_the_way_is_named(tmp_path, name, message):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=rf"output_dir=.*{message}"):
        prepare_folder(tmp_path / name, 1, 1)


def test_a_folder_that_takes_no_file_is_named(tmp_path):
    (tmp_path / ".probe").mkdir()
    with pytest.raises(OSError, match=rf"output_dir={tmp_path} cannot be written: .*\.probe"):
        prepare_folder(tmp_path, 1, 1)


def test_a_disk_without_room_is_found_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: Usage(10**12, 0, 5 * 10**9))
    prepare_folder(tmp_path, 10**9, 5)
    with pytest.raises(OSError, match=r"has 5\.00 GB left, but 6 checkpoints of 1\.00 GB need 6\.00 GB; make room"):
        prepare_folder(tmp_path, 10**9, 6)


def test_checkpoints_that_are_there_need_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: Usage(10**6, 0, 1500))
    with pytest.raises(OSError, match="2 checkpoints"):
        prepare_folder(tmp_path, 1000, 2)
    publish(tmp_path, 1, {"model.safetensors": bytes(1000)})
    prepare_folder(tmp_path, 1000, 2)
