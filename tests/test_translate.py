"""The command `translate`: what becomes of its files, and what it says of options and input that will not do."""

import pytest
from commanding import run, save_translator

from hf_vanilla_transformer.commands import translate as command
from hf_vanilla_transformer.inference import translate


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_translator(folder)
    return folder


@pytest.fixture(scope="module")
def translator(folder, tmp_path_factory):
    return save_translator(tmp_path_factory.mktemp("same"))


def test_an_output_that_fails_half_way_leaves_the_earlier_file(folder, translator, tmp_path):
    source, output = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"a\nb\n\xff\n")
    output.write_text("earlier\n")
    done = run(command.main, "--model", folder, "--file", source, "--output", output, "--read_ahead", 1, "--quiet")
    assert "line 3: not UTF-8" in done.stderr
    assert done.returncode == 2
    assert output.read_text() == "earlier\n"
    expected = "".join(f"{line}\n" for line in translate(*translator, ["a", "b"]))
    assert (tmp_path / "out.partial").read_text() == expected


def test_after_an_interruption_the_output_has_what_was_done(folder, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        yield ["one"]
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "translated_lines", interrupted)
    (tmp_path / "out").write_text("earlier\n")
    done = run(command.main, "--model", folder, "--output", tmp_path / "out", "a", "b")
    assert done.returncode == 130
    assert (tmp_path / "out").read_text() == "one\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
