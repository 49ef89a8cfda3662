"""A file translated by one, two and three processes: equal bytes, whatever is killed, damaged or changed in between."""

import shutil
import subprocess
import sys
import time
from functools import partial

import pytest
from child_processes import start
from commanding import run, save_translator

from hf_vanilla_transformer.commands import translate as command
from hf_vanilla_transformer.inference import Translator
from hf_vanilla_transformer.inference import shard_translation as module
from hf_vanilla_transformer.inference.shards import ShardFolder

LINES = ["a b", "", "C", "a b c A B C", "b", "c c c", "A", "B a", "c", "a a a a", "b b", "A B"]
# Of everything small, so that a short file has several shards of several windows of several batches.
SMALL = ["--batch_size", 2, "--read_ahead", 3, "--num_beams", 2, "--quiet"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny untrained model, whose translations are short."""
    folder = tmp_path_factory.mktemp("model")
    save_translator(folder, max_extra_tokens=4)
    return folder


@pytest.fixture
def source(tmp_path):
    (tmp_path / "in").write_text("\n".join(LINES))
    return tmp_path / "in"


@pytest.fixture
def translated(monkeypatch):
    """The lines that translators are given."""
    given, original = [], Translator.translate_with_details

    def counting(self, sentences, **options):
        sentences = list(sentences)
        given.extend(sentences)
        return original(self, sentences, **options)

    monkeypatch.setattr(Translator, "translate_with_details", counting)
    return given


def as_process(rank, count, *options):
    """Runs the command as one of several processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", str(count))
        patch.setenv("RANK", str(rank))
        return run(command.main, *options)


def by_processes(count, folder, source, output, *options):
    """The bytes of the output of several processes, one after the other."""
    words = ["--model", folder, "--file", source, "--output", output, "--shard_lines", 3, *SMALL, *options]
    done = [as_process(rank, count, *words) for rank in range(count)]
    assert [each.returncode for each in done] == [0] * count, [each.stderr for each in done]
    return output.read_bytes()


def at_once(folder, source, output, *options):
    done = run(command.main, "--model", folder, "--file", source, "--output", output, *SMALL, *options)
    assert done.returncode == 0, done.stderr
    return output.read_bytes()


@pytest.mark.parametrize("engine", ["torch", "ctranslate2"])
def test_several_processes_write_the_bytes_of_one(folder, source, tmp_path, engine):
    if engine == "ctranslate2":
        pytest.importorskip("ctranslate2")
    options = ["--engine", engine, "--nbest", 2, "--scores", "--alignments"]
    expected = at_once(folder, source, tmp_path / "out", *options)
    assert [line.split(b"\t")[0] for line in expected.splitlines()[::2]] == [b"%d" % n for n in range(len(LINES))]
    for count in (2, 3):
        assert by_processes(count, folder, source, tmp_path / f"out{count}", *options) == expected


def test_batches_by_tokens_are_those_of_one_process_too(folder, source, tmp_path):
    source.write_text("a b c A B C c b a\n" * 20)

    def words(output):
        return ["--model", folder, "--file", source, "--output", output, "--batch_tokens", 1, "--scores", "--quiet"]

    assert run(command.main, *words(tmp_path / "one")).returncode == 0
    for rank in range(2):
        assert as_process(rank, 2, *words(tmp_path / "two"), "--shard_lines", 1).returncode == 0
    assert len(list((tmp_path / "two.shards").glob("shard-*"))) > 2
    assert (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes()


def test_draws_depend_on_the_seed_and_the_shard_and_not_on_the_process(folder, source, tmp_path):
    source.write_text("a b c\n" * 12)

    def drawn(count, seed):
        options = ["--do_sample", "--num_beams", 1, "--seed", seed]
        return by_processes(count, folder, source, tmp_path / f"out{count}{seed}", *options)

    assert drawn(1, 0) == drawn(2, 0) == drawn(3, 0)
    assert drawn(1, 0) != drawn(1, 1)
    lines = drawn(1, 0).splitlines()
    assert len({tuple(lines[first : first + 3]) for first in range(0, 12, 3)}) == 4, "each shard has its own draws"


@pytest.mark.parametrize(
    "text", [b"", b"a", b"a\r\nb\r\n", b"\n\n", b"a\n\xff\nb\n"], ids=["empty", "one", "CRLF", "blank", "not UTF-8"]
)
def test_text_of_any_kind_is_what_one_process_makes_of_it(folder, tmp_path, text):
    (tmp_path / "in").write_bytes(text)
    expected = at_once(folder, tmp_path / "in", tmp_path / "one", "--on_error", "skip")
    assert by_processes(2, folder, tmp_path / "in", tmp_path / "two", "--on_error", "skip") == expected


def test_a_line_that_is_no_text_stops_all_and_is_said_by_the_first_when_skipped(folder, source, tmp_path):
    source.write_bytes(b"a\nb\nc\n\xff\n")
    words = ["--model", folder, "--file", source, "--output", tmp_path / "out", "--shard_lines", 1, *SMALL]
    for rank in range(2):
        assert "line 4: not UTF-8" in as_process(rank, 2, *words).error
    assert not (tmp_path / "out.shards").exists()
    said = [as_process(rank, 2, *words, "--on_error", "skip").stderr for rank in range(2)]
    assert said[0].startswith("1 line skipped, empty in the output. The first: ")
    assert said[1] == ""


def test_what_is_sealed_is_not_translated_again_and_damage_is(folder, source, tmp_path, translated):
    output = tmp_path / "out"
    words = ["--model", folder, "--file", source, "--output", output, "--shard_lines", 3, *SMALL]
    done = as_process(0, 2, *words)
    assert (done.returncode, output.exists()) == (0, False)
    assert translated == LINES[:3] + LINES[6:9]
    translated.clear()
    assert run(command.main, *words).returncode == 0, "by one process"
    assert translated == LINES[3:6] + LINES[9:]
    whole = output.read_bytes()
    translated.clear()
    for rank in range(3):
        assert as_process(rank, 3, *words).returncode == 0
    assert (translated, output.read_bytes()) == ([], whole)
    (shard,) = (tmp_path / "out.shards").glob("shard-000002-*")
    (shard / "lines.txt").write_bytes(b"damage")
    assert run(command.main, *words).returncode == 0
    assert (translated, output.read_bytes()) == (LINES[6:9], whole)
    assert at_once(folder, source, tmp_path / "once") == whole


def test_an_interruption_or_error_in_a_shard_leaves_those_before_it(folder, source, tmp_path, monkeypatch, translated):
    words = ["--model", folder, "--file", source, "--output", tmp_path / "out", "--shard_lines", 3, *SMALL]
    original = module.translated_lines

    def stopped_in_third(stop, translator, lines, first=0, **options):
        for number, line in enumerate(original(translator, lines, first=first, **options)):
            if first == 6 and number == 1:
                raise stop
            yield line

    for stop, status in ((KeyboardInterrupt(), 130), (OSError("no room"), 2)):
        with monkeypatch.context() as patch:
            patch.setattr(module, "translated_lines", partial(stopped_in_third, stop))
            assert run(command.main, *words).returncode == status
        found = sorted(path.name for path in (tmp_path / "out.shards").iterdir())
        assert [name[:12] for name in found] == ["plan", "shard-000000", "shard-000001"]
        assert not (tmp_path / "out").exists()
    translated.clear()
    assert run(command.main, *words).returncode == 0
    assert translated == LINES[6:]
    assert (tmp_path / "out").read_bytes() == at_once(folder, source, tmp_path / "once")


def test_a_shard_damaged_after_its_process_has_seen_it_is_translated_by_the_last(folder, source, tmp_path, translated):
    output = tmp_path / "out"
    words = ["--model", folder, "--file", source, "--output", output, "--shard_lines", 3, *SMALL]
    assert as_process(0, 2, *words).returncode == 0
    (shard,) = (tmp_path / "out.shards").glob("shard-000002-*")
    (shard / "lines.txt").write_bytes(b"damage")
    translated.clear()
    assert as_process(1, 2, *words).returncode == 0
    assert translated == LINES[3:6] + LINES[9:] + LINES[6:9]
    assert output.read_bytes() == at_once(folder, source, tmp_path / "once")


@pytest.mark.parametrize("change", ["damaged", "removed"])
def test_without_an_output_the_only_process_fails_and_the_next_one_mends_it(
    folder, source, tmp_path, monkeypatch, change
):
    output, original = tmp_path / "out", ShardFolder.join
    output.write_text("of an earlier run\n")
    words = ["--model", folder, "--file", source, "--output", output, "--shard_lines", 3, *SMALL]

    def changed(self):
        (shard,) = self.path.glob("shard-000002-*")
        if change == "damaged":
            (shard / "lines.txt").write_bytes(b"damage")
        else:
            shutil.rmtree(shard)
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(ShardFolder, "join", changed)
        error = run(command.main, *words).error
        if change == "damaged":  # whoever finds it, however many there are
            assert as_process(1, 2, *words).returncode == 2
    assert ("cannot be joined" if change == "damaged" else "shards have been removed from") in error
    assert "the same command translates" in error
    assert output.read_text() == "of an earlier run\n"
    assert run(command.main, *words).returncode == 0
    assert output.read_bytes() == at_once(folder, source, tmp_path / "once")


def test_shards_of_another_input_model_or_option_are_not_mixed(folder, source, tmp_path):
    words = ["--file", source, "--output", tmp_path / "out", "--shard_lines", 3, *SMALL]
    ours = ["--model", folder]
    assert as_process(0, 2, *ours, *words).returncode == 0
    other = tmp_path / "other"
    other.mkdir()
    save_translator(other, d_ff=48)
    for options, name in (
        ([*ours, *words, "--num_beams", 3], "num_beams was 2 and is 3"),
        ([*ours, *words, "--batch_size", 3], "batch_size was 2 and is 3"),
        ([*ours, *words, "--shard_lines", 4], "shard_lines was 3 and is 4"),
        ([*ours, *words, "--scores"], "scores was false and is true"),
        ([*ours, *words, "--dtype", "bfloat16"], 'dtype was "float32" and is "bfloat16"'),
        (["--model", other, *words], "models was "),
    ):
        assert name in as_process(1, 2, *options).error
    source.write_text("\n".join(LINES[1:]))
    error = as_process(1, 2, *ours, *words).error
    assert "input was " in error
    assert "lines was 12 and is 11" in error
    assert "remove that folder to begin anew" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("later", "error"),
    [
        ([*LINES[:3], "b", *LINES[4:]], "from line 4 on, there is other text than before"),
        ([*LINES, "a"], "from line 13 on, there is other text than before"),
        (LINES[:9], "it is shorter than the 12 lines that it had"),
    ],
)
def test_a_file_that_changes_meanwhile_ends_in_an_error(folder, source, tmp_path, monkeypatch, later, error):
    words = ["--model", folder, "--file", source, "--output", tmp_path / "out", "--shard_lines", 3, *SMALL]
    original = module.make_plan

    def then_overwritten(*args, **options):
        plan = original(*args, **options)
        source.write_text("\n".join(later))
        return plan

    with monkeypatch.context() as patch:
        patch.setattr(module, "make_plan", then_overwritten)
        assert f"{source} has changed while it was translated" in (said := run(command.main, *words).error)
    assert error in said
    assert not (tmp_path / "out").exists()
    source.write_text("\n".join(LINES))
    assert run(command.main, *words).returncode == 0
    assert (tmp_path / "out").read_bytes() == at_once(folder, source, tmp_path / "once")


def test_a_plan_names_the_engine_its_threads_and_versions(folder, source, tmp_path):
    pytest.importorskip("ctranslate2")
    words = ["--model", folder, "--file", source, "--output", tmp_path / "out", "--shard_lines", 3, *SMALL]
    assert as_process(0, 2, *words).returncode == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "__version__", "0.0")
        patch.setattr(module.torch, "get_num_threads", lambda: 77)
        error = as_process(1, 2, *words, "--engine", "ctranslate2").error
    for words in ('engine was "torch" and is "ctranslate2"', "and is 77", 'and is "0.0"', "(OMP_NUM_THREADS)"):
        assert words in error


def test_what_cannot_be_divided_is_refused(folder, source, tmp_path):
    ours, output = ["--model", folder], ["--output", tmp_path / "out"]
    for words, error in (
        ([*ours, *output], "2 processes (WORLD_SIZE) divide the lines of a file, and standard input cannot be divided"),
        ([*ours, *output, "a b"], "sentences on the command line cannot be divided; give --file"),
        ([*ours, "--file", source], "shards are kept beside the output; give --output"),
        ([*ours, *output, "--file", source, "--shard_lines", 0], "`shard_lines`=0 is not allowed"),
        ([*ours, *output, "--file", source, "--batch_size", 0], "`batch_size`=0 is not allowed"),
    ):
        assert error in as_process(0, 2, *words).error
    error = run(command.main, *ours, "--shard_lines", 3, *output).error
    assert error.startswith("--shard_lines divides the lines of a file, and standard input cannot be divided")
    assert as_process(2, 2, *ours, *output, "--file", source).error.startswith("RANK=2 ")
    assert not (tmp_path / "out.shards").exists()


def test_each_process_says_what_it_has_done(folder, source, tmp_path):
    words = ["--model", folder, "--file", source, "--output", tmp_path / "out", "--shard_lines", 3, "--read_ahead", 3]
    first = as_process(0, 2, *words).stderr.splitlines()
    assert first[0].startswith("process 0 of 2: shard 1 of 4: 3 lines (")
    assert first[1].startswith("process 0 of 2: shard 3 of 4: 3 lines (")
    assert first[2].startswith("process 0 of 2: 6 sentences translated in ")
    assert "the last to finish joins the shards" in first[3]
    last = run(command.main, *words).stderr.splitlines()
    assert last[2] == "2 shards had been translated before"
    assert last[-1].endswith("out has all 12 lines; " + str(tmp_path / "out.shards") + " may be removed")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_launchers_start_processes_that_write_the_bytes_of_one(folder, source, tmp_path, launcher):
    """Half a minute each, for starting the processes."""
    starting = {
        "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node", 2],
        "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes", 2, "--main_process_port", 0],
    }[launcher]
    output = tmp_path / "out"
    words = ["-m", "hf_vanilla_transformer", "translate", "--model", folder, "--file", source]
    words += ["--output", output, "--shard_lines", 3, *SMALL]
    command = [sys.executable, "-m", *starting, *words, "--device", "cpu", "--engine", "torch"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == at_once(folder, source, tmp_path / "once", "--device", "cpu")


@pytest.mark.slow
def test_a_process_that_is_killed_goes_on_after_its_last_sealed_shard(folder, tmp_path):
    """A minute or two: killed in the middle of a shard, again and again; what is sealed stays, to the inode."""
    source, output, shards = tmp_path / "in", tmp_path / "out", tmp_path / "out.shards"
    source.write_text("".join(f"{LINES[number % 12]} {number}\n" for number in range(2000)))
    words = ["--model", folder, "--file", source, "--output", output, "--shard_lines", 100, "--read_ahead", 100]
    program = [sys.executable, "-m", "hf_vanilla_transformer", "translate", *words, "--engine", "torch"]
    seen = {}
    for _ in range(3):
        left = set(shards.glob(".writing-shard-*"))  # by those that were killed
        with start(program, seconds=1800, stderr=subprocess.PIPE, text=True) as process:
            before = len(seen)
            while len(list(shards.glob("shard-*"))) < before + 2 or set(shards.glob(".writing-shard-*")) <= left:
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.002)
            process.kill()
            process.wait()
        for shard in shards.glob("shard-*"):
            inode = (shard / "lines.txt").stat().st_ino
            assert seen.setdefault(shard.name, inode) == inode
        assert len(seen) >= before + 2
        assert not output.exists()
    assert len(seen) < 20
    done = subprocess.run([str(word) for word in program], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(": 100 lines (") == 20 - len(seen)
    assert f"{len(seen)} shards had been translated before" in done.stderr
    assert not list(shards.glob(".*"))  # what those that were killed have left
    assert all((shards / name / "lines.txt").stat().st_ino == inode for name, inode in seen.items())
    once = ["--model", folder, "--file", source, "--output", tmp_path / "once", "--read_ahead", 100, "--quiet"]
    assert run(command.main, *once).returncode == 0
    assert output.read_bytes() == (tmp_path / "once").read_bytes()
