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


def test_sentences_after_an_ensemble_stand_behind_two_dashes(folder):
    alone = run(command.main, "--model", folder, "a b", "c")
    together = run(command.main, "--ensemble", folder, folder, "--", "a b", "c")
    assert (together.returncode, together.stdout) == (0, alone.stdout)
    for sentence in ("A dog runs.", "Hello"):  # the second could be the name of a model
        error = run(command.main, "--ensemble", folder, folder, sentence).error
        assert f"there is no folder {sentence}" in error
        assert f"If {sentence!r} is a sentence to translate, put -- before it" in error


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("num_beams", [0, -3]),
        ("batch_size", [0, -1]),
        ("batch_tokens", [0, -1]),
        ("nbest", [0, -2]),
        ("read_ahead", [0, -1]),
    ],
)
def test_numbers_below_1_are_refused_by_name(folder, tmp_path, option, values):
    (tmp_path / "out").write_text("earlier\n")
    for value in values:
        options = ["--model", folder, "--output", tmp_path / "out", f"--{option}", value]
        error = run(command.main, *options, stdin=b"a\n").error
        assert error == f"`{option}`={value} is not allowed; allowed: an integer of at least 1"
    assert (tmp_path / "out").read_text() == "earlier\n"


def test_batches_are_counted_in_sentences_or_tokens_and_not_both(folder):
    error = run(command.main, "--model", folder, "--batch_size", 2, "--batch_tokens", 9, "a").error
    assert "--batch_tokens: not allowed with argument --batch_size" in error


@pytest.mark.parametrize("way", ["file", "standard input"])
def test_lines_that_are_not_utf_8_stop_or_are_skipped_and_counted(folder, tmp_path, way):
    data = b"a b\n\xff\xfe\nc\nb\xc3\nnul\0\na"
    (tmp_path / "in").write_bytes(data)
    (tmp_path / "clean").write_bytes(b"a b\n\nc\n\nnul\0\na")
    given = {"stdin": data} if way == "standard input" else {}
    options = ["--model", folder, "--scores", *([] if given else ["--file", tmp_path / "in"])]
    where = "standard input" if given else str(tmp_path / "in")
    stopped = run(command.main, *options, **given)
    assert stopped.error.startswith(f"{where}, line 2: not UTF-8 at byte 0")
    assert stopped.error.endswith("--on_error skip")
    skipped = run(command.main, *options, "--on_error", "skip", **given)
    assert skipped.returncode == 0
    assert skipped.stdout == run(command.main, "--model", folder, "--scores", "--file", tmp_path / "clean").stdout
    last = skipped.stderr.splitlines()[-1]
    assert last.startswith(f"2 lines skipped, empty in the output. The first: {where}, line 2: not UTF-8")


def test_samples_are_those_of_their_seed_and_need_no_beams(folder):
    def sampled(*options):
        done = run(command.main, "--model", folder, "--quiet", "--do_sample", *options, stdin=b"a b c\nc b a\n")
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = sampled()
    assert first == sampled("--seed", 0, "--top_k", 0, "--top_p", 1, "--temperature", 1, "--num_beams", 1)
    assert first != sampled("--seed", 2)
    # Of one token there is nothing to choose: the most probable.
    greedy = run(command.main, "--model", folder, "--quiet", "--num_beams", 1, stdin=b"a b c\nc b a\n").stdout
    assert sampled("--top_k", 1) == greedy


@pytest.mark.parametrize("option", ["temperature", "top_k", "top_p", "seed"])
def test_options_of_sampling_need_sampling(folder, option):
    error = run(command.main, "--model", folder, f"--{option}", 1, "a").error
    assert error.startswith(f"--{option} has no effect without --do_sample")


def test_a_tag_that_the_model_does_not_have_is_refused_in_one_line(folder):
    error = run(command.main, "--model", folder, "--tag", "2de", "a").error
    assert error.startswith("'<2de>' is not a tag of this tokenizer; it has no tags")


@pytest.mark.parametrize("value", [0, 1.5])
def test_a_share_of_probability_that_is_none_is_refused(folder, value):
    error = run(command.main, "--model", folder, "--do_sample", "--top_p", value, "a").error
    assert error.startswith(f"--top_p {value} is not a number above 0 and up to 1")
