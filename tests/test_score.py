"""The command `score`: what it does at lines that are no pairs."""

import pytest
from commanding import run, save_translator

from hf_vanilla_transformer.commands import score as command
from hf_vanilla_transformer.evaluation import ScoreTotals, score_pairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def translator(folder):
    return save_translator(folder)


SOURCES = [b"a b", b"\xff", b"c", b"b\0", b"a", b"b"]
TARGETS = [b"A B", b"B\xfe", b"C", b"B", b"A\xe4", b""]
GOOD = {0: ("a b", "A B"), 2: ("c", "C"), 5: ("b", "")}


@pytest.mark.parametrize("way", ["two files", "table", "standard input"])
def test_lines_that_are_no_pairs_stop_or_are_skipped_and_counted(folder, translator, tmp_path, way):
    table = b"".join(source + b"\t" + target + b"\n" for source, target in zip(SOURCES, TARGETS))
    for name, data in {"s": b"\n".join([*SOURCES, b""]), "t": b"\n".join([*TARGETS, b""]), "table": table}.items():
        (tmp_path / name).write_bytes(data)
    given = {"stdin": table} if way == "standard input" else {}
    options = ["--model", folder]
    options += ["--source", tmp_path / "s", "--target", tmp_path / "t"] if way == "two files" else []
    options += ["--file", tmp_path / "table"] if way == "table" else []
    stopped = run(command.main, *options, **given)
    assert ", line 2: not UTF-8 at byte " in stopped.error
    assert stopped.error.endswith("--on_error skip")
    skipped = run(command.main, *options, "--on_error", "skip", **given)
    assert skipped.returncode == 0, skipped.stderr
    totals, expected = ScoreTotals(), dict.fromkeys(range(6), "")
    for index, score in zip(GOOD, score_pairs(*translator, GOOD.values())):
        expected[index] = score.to_line()
        totals.add(score)
    assert skipped.stdout == "".join(f"{line}\n" for line in expected.values())
    described, last = skipped.stderr.splitlines()[-2:]
    assert described == totals.describe()
    assert last.startswith("3 lines skipped, empty in the output. The first: ")


def test_a_line_without_two_columns_may_be_skipped_too(folder, translator):
    data = b"a\tA\nno pair\na\tb\tc\nb\tB\n"
    assert "line 2: expected SOURCE<tab>TARGET, got 1 column." in run(command.main, "--model", folder, stdin=data).error
    done = run(command.main, "--model", folder, "--json", "--on_error", "skip", stdin=data)
    assert [bool(line) for line in done.stdout.splitlines()] == [True, False, False, True]
    assert "2 pairs" in done.stderr
    assert "2 lines skipped" in done.stderr


def test_a_tag_that_the_model_does_not_have_is_named(folder, translator):
    error = run(command.main, "--model", folder, "--tag", "2de", stdin=b"a\tA\n").error
    assert error.startswith("'<2de>' is not a tag of this tokenizer; it has no tags")
