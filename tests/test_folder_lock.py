"""One run at a time in a folder: who is kept out, who is not, and what becomes of the lock when its process is gone."""

import errno
import multiprocessing
import os
import subprocess
import sys

import pytest
from child_processes import start
from training_runs import arguments, write_text

from hf_vanilla_transformer.training import folder_lock, prepare, prepare_only, train
from hf_vanilla_transformer.training.checkpoints import writing_folder
from hf_vanilla_transformer.training.folder_lock import TRAINING_LOCK, is_file_locked, lock_file, training_folder

# A process that locks as training does, without all that training imports.
HOLDER = f"""
import fcntl, os, sys
lock = os.open(os.path.join(sys.argv[1], {TRAINING_LOCK!r}), os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
os.write(lock, b"process 77 on elsewhere, since 2026-01-01 10:00:00,")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def locked(tmp_path):
    """A folder in which another process trains, and that process."""
    folder = tmp_path / "run"
    folder.mkdir()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with start([sys.executable, "-S", "-c", HOLDER, folder], **pipes) as process:
        assert process.stdout.readline() == b"locked\n"
        yield folder, process


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(folder_lock, "_PATIENCE", 0.01)


def test_a_folder_in_which_another_process_trains_is_refused_and_left_alone(locked, tmp_path):
    folder, process = locked
    args = arguments(write_text(tmp_path), folder)
    (writing_folder(folder) / "checkpoint-3").mkdir(parents=True)  # of the live run
    with pytest.raises(ValueError, match=rf"={folder} is in use: process 77 on elsewhere, .* trains there\. Wait"):
        prepare(args)
    assert writing_folder(folder).exists()
    prepare_only(args)
    assert writing_folder(folder).exists()
    process.kill()
    process.wait()
    with training_folder(folder):  # at once, and what the killed run left is cleared
        assert not writing_folder(folder).exists()
    assert not (folder / TRAINING_LOCK).exists()


def test_what_was_prepared_is_not_trained_where_another_process_began_meanwhile(tmp_path):
    args = arguments(write_text(tmp_path), tmp_path / "run", eval_strategy="no")
    run = prepare(args)
    lock = lock_file(tmp_path / "run" / TRAINING_LOCK, patience=0)
    try:
        with pytest.raises(ValueError, match="is in use: another process trains there"):
            train(run, args)
    finally:
        os.close(lock)


def test_blocks_of_one_process_may_be_nested_and_the_outermost_one_counts(tmp_path):
    path = tmp_path / TRAINING_LOCK
    with training_folder(tmp_path):
        (writing_folder(tmp_path) / "checkpoint-3").mkdir(parents=True)
        with training_folder(f"{tmp_path}/../{tmp_path.name}"):
            assert writing_folder(tmp_path).exists()
        assert is_file_locked(path)
        assert f"process {os.getpid()} on " in path.read_text()
    assert not path.exists()
    assert not is_file_locked(path)


def test_a_lock_ends_with_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), training_folder(tmp_path):
            raise KeyError
    assert not (tmp_path / TRAINING_LOCK).exists()


def wait(is_up, going_on):
    is_up.set()
    going_on.wait(60)


def test_a_lock_is_not_held_on_by_forked_workers(tmp_path):
    """They may outlive a process that is killed by seconds, in which it may be started again."""
    context = multiprocessing.get_context("fork")
    is_up, going_on = context.Event(), context.Event()
    path = tmp_path / TRAINING_LOCK
    with training_folder(tmp_path):
        worker = context.Process(target=wait, args=(is_up, going_on))
        worker.start()
        try:
            assert is_up.wait(60)
            assert is_file_locked(path)
            os.close(folder_lock._HELD.pop(tmp_path))  # as when this process is killed
            assert not is_file_locked(path)
        finally:
            going_on.set()
            worker.join()


def test_a_lock_whose_file_its_holder_removed_is_taken_anew(tmp_path, monkeypatch):
    """Between opening a file and locking it, another process may end, and remove the file that it had locked."""
    path, flock, calls = tmp_path / "lock", folder_lock.fcntl.flock, []

    def removed_meanwhile(lock, how):
        calls.append(how)
        if len(calls) == 1:
            path.unlink()
        return flock(lock, how)

    monkeypatch.setattr(folder_lock.fcntl, "flock", removed_meanwhile)
    lock = lock_file(path, patience=1)
    assert len(calls) == 2
    assert is_file_locked(path)
    os.close(lock)


def test_where_there_are_no_locks_a_run_goes_on_with_a_warning(tmp_path, monkeypatch, package_log):
    def flock(lock, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folder_lock.fcntl, "flock", flock)
    with training_folder(tmp_path):
        assert f"{tmp_path} is on a file system without locks (No locks available)" in package_log.text
    assert list(tmp_path.iterdir()) == []

    def denied(path, *flags):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(folder_lock.os, "open", denied)
    with pytest.raises(PermissionError), training_folder(tmp_path):
        pass


def test_the_processes_of_one_run_do_not_refuse_each_other(tmp_path, monkeypatch):
    """The first one locks; the others learn of it, and of its errors, and leave the lock alone."""
    decided = []

    def by_main_process(work):
        decided.append(work)
        return True  # as the first process found

    monkeypatch.setattr(folder_lock, "by_main_process", by_main_process)
    monkeypatch.setattr(folder_lock, "PartialState", lambda: type("State", (), {"is_main_process": False})())
    path = tmp_path / TRAINING_LOCK
    lock = lock_file(path, patience=0)
    with training_folder(tmp_path):
        assert len(decided) == 1
    assert is_file_locked(path)
    os.close(lock)
