"""The loop that writes lines: the bar, interruptions, and models that do not go together."""

import io

import pytest
from test_translation_pipeline import build

from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.inference import files as files_module
from hf_vanilla_transformer.inference import load_translator, write_lines


class Terminal(io.StringIO):
    """What looks like a terminal."""

    def isatty(self):
        return True


def interrupted_after(count):
    yield from ([f"line {index}"] for index in range(count))
    raise KeyboardInterrupt


def test_after_an_interruption_all_that_was_done_is_written_and_said(capsys):
    output = io.StringIO()
    assert write_lines(interrupted_after(3), output) == 130
    assert output.getvalue() == "line 0\nline 1\nline 2\n"
    assert capsys.readouterr().err.startswith("interrupted: 3 sentences translated")


def test_a_bar_is_shown_on_a_terminal_with_the_total_if_known(monkeypatch):
    def shown(output=None, **options):
        terminal = Terminal()
        monkeypatch.setattr(files_module.sys, "stderr", terminal)
        assert write_lines([["a"], ["b", "c"]], output or io.StringIO(), **options) == 0
        return terminal.getvalue()

    assert "2/2" in shown(total=2)
    assert "2 sentences" in shown()
    assert "2/2" not in shown()
    assert shown(quiet=True, total=2) == ""
    assert "2/2" not in shown(output=Terminal(), total=2)  # it would be mixed with the translations


def test_models_of_different_vocabularies_are_no_ensemble(tmp_path):
    for name, texts in (("one", ["aa ab"] * 9), ("two", ["cc cd"] * 9)):
        tokenizer = train_tokenizer(texts=texts, vocab_size=262)
        build(len(tokenizer)).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    with pytest.raises(ValueError, match=r"two and .*one differ"):
        load_translator([tmp_path / "one", tmp_path / "two"])
