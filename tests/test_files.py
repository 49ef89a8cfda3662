"""The loop that writes lines: the bar, and interruptions."""

import io

from hf_vanilla_transformer.inference import files as files_module
from hf_vanilla_transformer.inference import write_lines


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
