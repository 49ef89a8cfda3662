"""Shards of a file: where they are cut, how they appear, what is done about damage, and how they are joined."""

import gzip
import json
import os
import shutil
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_vanilla_transformer.data.text_files import read_lines
from hf_vanilla_transformer.inference import BadLines, ShardedFile
from hf_vanilla_transformer.inference import shards as shards_module
from hf_vanilla_transformer.inference.shards import ShardFolder
from hf_vanilla_transformer.inference.translation import windows


def sharded(path, shard_lines=1, on_error=None, **batching):
    return ShardedFile(path, shard_lines, {"read_ahead": 1, **batching}, on_error)


def text_writer(text, status=0):
    def write(file):
        file.write(text)
        return status

    return write


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(0, 40), max_size=40),
    shard_lines=st.integers(1, 9),
    batching=st.sampled_from([{"read_ahead": 3}, {"batch_size": 1}, {"batch_tokens": 1}, {"batch_tokens": 3}]),
)
def test_shards_are_cut_between_windows_so_that_batches_stay_what_they_are(
    lengths, shard_lines, batching, tmp_path_factory
):
    path = tmp_path_factory.mktemp("text") / "in"
    path.write_text("".join(f"{'a' * length}\n" for length in lengths))
    found = list(ShardedFile(path, shard_lines, batching).shards())
    of_shards = [window for shard in found for window in windows(shard.lines, **batching)]
    assert of_shards == list(windows(read_lines(path), **batching))
    assert [shard.number for shard in found] == list(range(len(found)))
    assert [shard.first for shard in found] == [sum(len(each.lines) for each in found[:n]) for n in range(len(found))]
    for shard in found[:-1]:
        last = list(windows(shard.lines, **batching))[-1]
        assert len(shard.lines) - len(last) < shard_lines <= len(shard.lines)


@pytest.mark.parametrize("text", [b"", b"a", b"a\n", b"a\nb", b"\n\n", b"a\r\nb\rc\r\n", b"\xef\xbb\xbfa\nb\x00\n"])
def test_lines_are_those_of_the_file_however_it_ends(text, tmp_path):
    for name, content in (("plain", text), ("zipped", gzip.compress(text))):
        (tmp_path / name).write_bytes(content)
        file = sharded(tmp_path / name)
        expected = list(read_lines(tmp_path / name, allow_nul=True))
        assert [line for shard in file.shards() for line in shard.lines] == expected
        content = file.content()
        assert (content["lines"], content["shards"]) == (len(expected), len(expected))


def test_a_line_that_is_no_text_stops_before_the_first_shard_or_is_counted_once(tmp_path):
    (tmp_path / "in").write_bytes(b"a\n\xff\nb\n")
    with pytest.raises(ValueError, match=r"line 2: not UTF-8.*--on_error skip"):
        sharded(tmp_path / "in", on_error=BadLines("stop")).content()
    skip = BadLines("skip")
    file = sharded(tmp_path / "in", on_error=skip)
    assert file.content()["lines"] == 3
    assert [shard.lines for shard in file.shards()] == [["a"], [""], ["b"]]
    assert skip.numbers == {2}


def test_what_cannot_be_read_twice_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="can be read only once"):
        sharded(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        sharded(tmp_path / "none")
    (tmp_path / "in").write_text("a\n")
    with pytest.raises(ValueError, match=r"`shard_lines`=0"):
        sharded(tmp_path / "in", shard_lines=0)


def test_an_output_is_joined_when_the_last_shard_is_there_and_an_earlier_one_stays_until_then(tmp_path):
    output = tmp_path / "out"
    output.write_text("earlier\n")
    output.chmod(0o640)
    folder = ShardFolder(output, {"shards": 3})
    for number in (2, 0):
        assert folder.write(number, text_writer(f"ü{number}\n")) == 0
        assert not folder.join()
    assert output.read_text() == "earlier\n"
    assert [folder.is_done(number) for number in range(3)] == [True, False, True]
    folder.write(1, text_writer(""))
    assert folder.join()
    assert output.read_text() == "ü0\nü2\n"
    assert output.stat().st_mode & 0o777 == 0o640
    assert [name[:12] for name in names(folder.path)] == ["plan", "shard-000000", "shard-000001", "shard-000002"]


def test_an_output_of_no_shards_is_empty(tmp_path):
    assert ShardFolder(tmp_path / "out", {"shards": 0}).join()
    assert (tmp_path / "out").read_bytes() == b""


def test_a_shard_that_was_not_finished_is_none(tmp_path):
    folder = ShardFolder(tmp_path / "out", {"shards": 1})
    assert folder.write(0, text_writer("half", status=130)) == 130

    def fail(file):
        file.write("half")
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        folder.write(0, fail)
    assert not folder.is_done(0)
    assert names(folder.path) == ["plan"]


def test_a_damaged_shard_is_never_joined_and_is_taken_away(tmp_path, package_log):
    folder = ShardFolder(tmp_path / "out", {"shards": 1})
    folder.write(0, text_writer("whole\n"))
    (shard,) = folder.path.glob("shard-000000-*")
    (shard / "lines.txt").write_text("whale\n")
    with pytest.raises(OSError, match=r"cannot be joined: lines\.txt has changed.*the same command translates it"):
        folder.join()
    assert not list(folder.path.glob(".joining-*"))
    assert not (tmp_path / "out").exists()
    assert not folder.is_done(0)
    assert "is damaged and translated again: lines.txt has changed" in package_log.text
    folder.write(0, text_writer("whole\n"))
    assert folder.join()


def test_damage_is_looked_for_in_shards_of_all_processes_once_all_are_there(tmp_path):
    folder = ShardFolder(tmp_path / "out", {"shards": 3})
    for number in (0, 2):
        folder.write(number, text_writer("whole\n"))
    (shard,) = folder.path.glob("shard-000002-*")
    (shard / "lines.txt").unlink()
    assert folder.damaged() == []
    folder.write(1, text_writer("whole\n"))
    assert folder.damaged() == [2]
    assert not folder.join()
    folder.write(2, text_writer("whole\n"))
    assert folder.damaged() == []
    assert folder.join()


def test_a_shard_that_its_process_takes_away_while_another_joins_is_joined_later(tmp_path, monkeypatch):
    folder = ShardFolder(tmp_path / "out", {"shards": 1})
    folder.write(0, text_writer("whole\n"))
    find_damage = shards_module.find_damage

    def then_taken_away(shard):
        damage = find_damage(shard)
        shutil.rmtree(shard)
        return damage

    with monkeypatch.context() as patch:
        patch.setattr(shards_module, "find_damage", then_taken_away)
        assert not folder.join()
    assert names(folder.path) == ["plan"]
    assert not (tmp_path / "out").exists()


def test_what_killed_processes_left_is_removed_when_all_is_joined_and_not_before(tmp_path):
    folder = ShardFolder(tmp_path / "out", {"shards": 2})
    left = [folder.path / f".{name}" for name in ("writing-shard-000000-x", "writing-plan-x", "damaged-x")]
    for each in left:
        each.mkdir()
        (each / "lines.txt").write_text("half")
    (folder.path / ".joining-x").write_text("half")
    folder.write(0, text_writer("0\n"))
    assert not folder.join()
    assert {each.name for each in left} <= set(names(folder.path))
    folder.write(1, text_writer("1\n"))
    assert folder.join()
    assert [name[:12] for name in names(folder.path)] == ["plan", "shard-000000", "shard-000001"]


def test_a_process_whose_duplicate_is_removed_by_another_that_has_joined_goes_on(tmp_path):
    folder = ShardFolder(tmp_path / "out", {"shards": 2})
    folder.write(0, text_writer("0\n"))

    def overtaken(file):
        file.write("1\n")
        other = ShardFolder(tmp_path / "out", {"shards": 2})
        assert other.write(1, text_writer("1\n")) == 0
        assert other.join()
        assert not list(folder.path.glob(".writing-*"))
        return 0

    assert folder.write(1, overtaken) == 0
    assert folder.join()
    assert (tmp_path / "out").read_text() == "0\n1\n"
    assert len(names(folder.path)) == 3


def test_a_process_that_joins_while_another_has_joined_and_tidied_up_has_joined(tmp_path, monkeypatch):
    folder = ShardFolder(tmp_path / "out", {"shards": 1})
    folder.write(0, text_writer("0\n"))
    sync = shards_module.sync

    def overtaken(path):
        if path.name.startswith(".joining-"):
            monkeypatch.setattr(shards_module, "sync", sync)
            assert ShardFolder(tmp_path / "out", {"shards": 1}).join()
        sync(path)

    monkeypatch.setattr(shards_module, "sync", overtaken)
    assert folder.join()
    assert (tmp_path / "out").read_text() == "0\n"
    assert len(names(folder.path)) == 2


def test_a_process_that_began_by_another_plan_writes_nothing_into_a_folder_begun_anew(tmp_path):
    old = ShardFolder(tmp_path / "out", {"shards": 1, "tag": None})
    shutil.rmtree(old.path)
    new = ShardFolder(tmp_path / "out", {"shards": 1, "tag": "2de"})
    old.write(0, text_writer("old\n"))
    assert not new.is_done(0)
    assert not new.join()
    new.write(0, text_writer("new\n"))
    assert new.join()
    assert (tmp_path / "out").read_text() == "new\n"


def test_another_plan_is_refused_and_each_difference_named(tmp_path):
    plan = {"shards": 2, "input": "1" * 64, "tag": None, "models": ["a", "b"], "same": (1, 2)}
    folder = ShardFolder(tmp_path / "out", plan)
    ShardFolder(tmp_path / "out", plan)
    with pytest.raises(ValueError, match="was begun with another") as error:
        ShardFolder(tmp_path / "out", {**plan, "input": "2" * 64, "tag": "2de", "models": ["a"]})
    said = str(error.value)
    assert str(folder.path) in said
    assert 'input was "11111111111... and is "22222222222...' in said
    assert 'tag was not given and is "2de"' in said
    assert 'models was ["a", "b"] and is ["a"]' in said
    assert "same" not in said
    (folder.path / "plan" / "plan.json").write_text(json.dumps(plan)[:-2])
    with pytest.raises(ValueError, match=r"plan is damaged: plan\.json has"):
        ShardFolder(tmp_path / "out", plan)


def test_processes_that_do_the_same_at_the_same_time_do_no_harm(tmp_path):
    """All begin, write the same shards and join at once."""
    barrier, joined, failed = threading.Barrier(6), [], []

    def work():
        try:
            barrier.wait(60)
            folder = ShardFolder(tmp_path / "out", {"shards": 4})
            for number in range(4):
                barrier.wait(60)
                folder.write(number, text_writer(f"{number}\n" * 1000))
            joined.append(folder.join())
        except Exception as error:
            failed.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert joined == [True] * 6
    assert (tmp_path / "out").read_text() == "".join(f"{number}\n" * 1000 for number in range(4))
    assert len(names(tmp_path / "out.shards")) == 5


def test_only_one_of_two_plans_begins(tmp_path, monkeypatch):
    """The other process makes its folder after this one has looked for it, and before it writes its own."""
    write_seal = shards_module.write_seal

    def slow_seal(folder):
        monkeypatch.setattr(shards_module, "write_seal", write_seal)
        ShardFolder(tmp_path / "out", {"shards": 1, "tag": "theirs"})
        write_seal(folder)

    monkeypatch.setattr(shards_module, "write_seal", slow_seal)
    with pytest.raises(ValueError, match='tag was "theirs" and is "ours"'):
        ShardFolder(tmp_path / "out", {"shards": 1, "tag": "ours"})
    assert names(tmp_path / "out.shards") == ["plan"]


def test_outputs_that_are_no_files_are_refused():
    with pytest.raises(ValueError, match="no regular file"):
        ShardFolder(os.devnull, {"shards": 1})
