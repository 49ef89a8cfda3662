"""Lines of text files: split where an editor would split them, and every defect named."""

import gc
import gzip
import io
import os
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_vanilla_transformer.data.text_files import (
    count_lines,
    decode_lines,
    read_aligned,
    read_lines,
    require_text_file,
)

# All that str.splitlines or universal newlines would split at, except "\n" and "\r\n".
NOT_LINE_ENDS = ["\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


def write(path, text):
    path.write_bytes(text.encode("utf-8"))
    return path


@pytest.mark.parametrize("character", NOT_LINE_ENDS)
def test_only_a_line_feed_ends_a_line(tmp_path, character):
    path = write(tmp_path / "text", f"a{character}b\n{character}c\n")
    assert list(read_lines(path)) == [f"a{character}b", f"{character}c"]


def test_a_carriage_return_is_part_of_the_line_end_only_before_a_line_feed(tmp_path):
    assert list(read_lines(write(tmp_path / "text", "a\r\nb\r\r\n\r\nc\rd\r"))) == ["a", "b\r", "", "c\rd\r"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [("", []), ("\n", [""]), ("a", ["a"]), ("a\n", ["a"]), ("a\n\n", ["a", ""]), ("\na", ["", "a"])],
)
def test_a_last_line_feed_ends_a_line_and_begins_none(tmp_path, text, lines):
    assert list(read_lines(write(tmp_path / "text", text))) == lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("\ufeffa\nb\n", ["a", "b"]),
        ("\ufeff\nb\n", ["", "b"]),
        ("\ufeff", []),
        ("\ufeff\ufeffa", ["\ufeffa"]),  # one mark is a mark, what follows is text
        ("a\n\ufeffb\n", ["a", "\ufeffb"]),
    ],
)
def test_a_byte_order_mark_is_dropped_at_the_beginning_and_nowhere_else(tmp_path, text, lines):
    assert list(read_lines(write(tmp_path / "text", text))) == lines


@settings(max_examples=100)
@given(
    lines=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\x00")), max_size=5), zipped=st.booleans()
)
def test_lines_that_are_written_are_read(tmp_path_factory, lines, zipped):
    data = "".join(f"{line}\r\n" for line in lines).encode("utf-8")
    path = tmp_path_factory.getbasetemp() / "lines"
    path.write_bytes(gzip.compress(data) if zipped else data)
    expected = [line.removeprefix("\ufeff") if number == 0 else line for number, line in enumerate(lines)]
    assert list(read_lines(path)) == expected


def test_a_binary_stream_is_read_like_a_file(tmp_path):
    data = "\ufeffä\r\nb\u2028c\n\nd\r".encode()
    (tmp_path / "text").write_bytes(data)
    assert list(decode_lines(io.BytesIO(data), "stream")) == list(read_lines(tmp_path / "text"))
    with pytest.raises(ValueError, match="stream, line 2: not UTF-8 at byte 1"):
        list(decode_lines(io.BytesIO(b"a\nb\xff\n"), "stream"))


def test_gzip_is_told_by_content_and_not_by_name(tmp_path):
    zipped = tmp_path / "zipped.txt"
    zipped.write_bytes(gzip.compress("ä\nb\n".encode()))
    named_gz = write(tmp_path / "plain.gz", "ä\nb\n")
    assert list(read_lines(zipped)) == list(read_lines(named_gz)) == ["ä", "b"]


def test_gzip_members_one_after_another_are_one_text(tmp_path):
    path = tmp_path / "two.gz"
    path.write_bytes(gzip.compress(b"a\nb") + gzip.compress(b"c\nd\n"))
    assert list(read_lines(path)) == ["a", "bc", "d"]


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("data", "line", "byte"),
    [
        (b"ok\nok\nab\xffcd\n", 3, 2),
        (b"\xe4hm\n", 1, 0),  # Latin-1
        ("\ufeffä".encode() + b"\x80\n", 1, 5),  # counted as the file has it, with the mark
        (b"a\n\xe2\x82", 2, 0),  # the first two bytes of a three-byte character
        (b"\xed\xa0\x80\n", 1, 0),  # a lone surrogate
    ],
)
def test_bytes_that_are_not_utf8_are_named_by_file_line_and_byte(tmp_path, compress, data, line, byte):
    path = tmp_path / "bad"
    path.write_bytes(compress(data))
    with pytest.raises(ValueError, match=rf"bad, line {line}: not UTF-8 at byte {byte} "):
        list(read_lines(path))


def test_lines_before_the_bad_one_are_delivered(tmp_path):
    path = tmp_path / "bad"
    path.write_bytes(b"one\ntwo\n\xff\n")
    lines = read_lines(path)
    assert [next(lines), next(lines)] == ["one", "two"]
    with pytest.raises(ValueError, match="line 3"):
        next(lines)


@pytest.mark.parametrize(
    ("data", "line"), [(b"a\nb\x00c\n", 2), ("ab\n".encode("utf-16"), 1), ("ab\n".encode("utf-16-le"), 1)]
)
def test_nul_bytes_look_like_a_binary_file(tmp_path, data, line):
    path = tmp_path / "binary"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"binary, line {line}: NUL byte .*looks like a binary file"):
        list(read_lines(path))


def damaged_gzips():
    whole = gzip.compress("\n".join(map(str, range(5000))).encode())
    middle = len(whole) // 2
    return {
        "cut_in_the_data": whole[:middle],
        "cut_in_the_header": whole[:5],
        "cut_in_the_checksum": whole[:-3],
        "flipped_data": whole[:middle]
        + bytes(byte ^ 0xFF for byte in whole[middle : middle + 20])
        + whole[middle + 20 :],
        "wrong_checksum": whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:],
        "trailing_rubbish": whole + b"rubbish",
    }


@pytest.mark.parametrize("damage", sorted(damaged_gzips()))
def test_damaged_gzip_is_named(tmp_path, damage):
    path = tmp_path / "damaged.gz"
    path.write_bytes(damaged_gzips()[damage])
    with pytest.raises(ValueError, match=r"damaged\.gz, after line \d+: damaged or truncated gzip"):
        list(read_lines(path))


@pytest.mark.parametrize("read", [lambda path: list(read_lines(path)), require_text_file])
def test_paths_without_a_file_are_named(tmp_path, read):
    with pytest.raises(FileNotFoundError, match="missing"):
        read(tmp_path / "missing")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match=r"a directory.*folder"):
        read(str(tmp_path / "folder"))


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_memory_does_not_grow_with_the_file(tmp_path, compress):
    size = 8 * 2**20
    path = tmp_path / "long"
    path.write_bytes(compress((b"a" * 1023 + b"\n") * (size // 1024)))
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_lines(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == size // 1024
    assert peak < size / 16  # buffers of some hundred kilobytes


def test_the_file_is_closed_when_reading_stops_early(tmp_path, recwarn):
    lines = read_lines(write(tmp_path / "text", "a\nb\n"))
    next(lines)
    lines.close()
    del lines
    gc.collect()
    assert not [warning for warning in recwarn if issubclass(warning.category, ResourceWarning)]


def test_nul_is_text_where_that_is_allowed(tmp_path):
    path = write(tmp_path / "text", "a\0b\n\0\n")
    assert list(read_lines(path, allow_nul=True)) == ["a\0b", "\0"]
    with pytest.raises(ValueError, match="line 1: NUL byte at byte 1"):
        list(read_lines(path))


@pytest.mark.parametrize("text", ["", "\n", "a", "a\n\u2028b\r\n\nc", "\ufeff"])
def test_lines_are_counted_as_they_are_read(tmp_path, text):
    path = write(tmp_path / "text", text)
    assert count_lines(path) == len(list(read_lines(path)))


def test_what_can_be_read_only_once_is_not_counted(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert count_lines(tmp_path / "pipe") is None
    with pytest.raises(FileNotFoundError):
        count_lines(tmp_path / "nothing")


def test_aligned_files_are_read_whole_and_unequal_ones_refused_with_their_names(tmp_path):
    one, two = write(tmp_path / "one", "a\nb\n"), write(tmp_path / "two", "\nx\u2028y")
    assert read_aligned([str(one), str(two)]) == {str(one): ["a", "b"], str(two): ["", "x\u2028y"]}
    short = write(tmp_path / "short", "a\n")
    with pytest.raises(ValueError, match="one has 2 lines.*short has 1 lines"):
        read_aligned([str(one), str(short)])


def test_bad_lines_may_be_read_as_empty_ones_and_keep_their_numbers(tmp_path):
    path, bad = tmp_path / "text", []
    path.write_bytes(b"\xff\n\xef\xbb\xbf\ngood\nnul\0\nb\xc3\r\nlast")
    note = lambda number, error: bad.append((number, str(error).split(": ")[1]))  # noqa: E731
    lines = list(read_lines(path, on_error=note))
    assert lines == ["", "\ufeff", "good", "", "", "last"]
    assert [number for number, _ in bad] == [1, 4, 5]
    assert [what.split(" at byte")[0] for _, what in bad] == ["not UTF-8", "NUL byte", "not UTF-8"]
    assert count_lines(path, on_error=note) == 6

    def refuse(number, error):
        raise KeyError(number)

    with pytest.raises(KeyError, match="1"):
        next(read_lines(path, on_error=refuse))
