"""Files that are written whole or not at all, and those that are no regular files."""

import os
import threading

import pytest

from hf_vanilla_transformer.inference import open_output


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_as_utf_8_with_plain_line_ends(tmp_path):
    with open_output(tmp_path / "out") as output:
        output.write("ü\r\n1\n")
    assert (tmp_path / "out").read_bytes() == "ü\r\n1\n".encode()
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_earlier_file_stays_until_the_new_one_is_complete(tmp_path, error, package_log):
    path = tmp_path / "out"
    path.write_text("earlier\n")

    def write_and_fail(text):
        with open_output(path) as output:
            output.write(text)
            output.flush()
            assert path.read_text() == "earlier\n"
            raise error

    with pytest.raises(error):
        write_and_fail("")
    assert names(tmp_path) == ["out"]
    with pytest.raises(error):
        write_and_fail("half\n")
    assert path.read_text() == "earlier\n"
    assert (tmp_path / "out.partial").read_text() == "half\n"
    assert "out was not replaced" in package_log.text
    with open_output(str(path)) as output:
        output.write("whole\n")
    assert path.read_text() == "whole\n"
    assert names(tmp_path) == ["out"]


def test_the_mode_of_a_file_and_a_link_to_it_are_kept(tmp_path):
    path, link = tmp_path / "out", tmp_path / "link"
    path.write_text("earlier\n")
    path.chmod(0o640)
    link.symlink_to(path)
    with open_output(link) as output:
        output.write("new\n")
    assert link.is_symlink()
    assert path.read_text() == "new\n"
    assert path.stat().st_mode & 0o777 == 0o640
    with open_output(tmp_path / "fresh") as output:
        output.write("new\n")
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "fresh").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_pipes_and_devices_are_written_as_they_are(tmp_path):
    with open_output(os.devnull) as output:
        output.write("nothing\n")
    assert not os.path.isfile(os.devnull)
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    with open_output(pipe) as output:
        output.write("line\n")
    reader.join(30)
    assert read == ["line\n"]
    assert pipe.is_fifo()


@pytest.mark.parametrize("name", [".", "none/out", "file/out"])
def test_what_cannot_be_written_is_an_error_at_once(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=name.split("/")[0]), open_output(tmp_path / name):
        pytest.fail("the block was entered")
    assert names(tmp_path) == ["file"]
