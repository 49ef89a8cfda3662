"""Options that several verbs have: the same words, defaults and refusals wherever they are."""

import argparse

import pytest

from hf_vanilla_transformer.commands.shared_options import (
    add_batch_tokens_option,
    add_device_options,
    add_text_options,
    check_port,
    check_text_options,
    first_repeat,
)
from hf_vanilla_transformer.inference.one_line_parser import OneLineParser


def parse(*words):
    parser = OneLineParser("program")
    add_text_options(parser)
    add_batch_tokens_option(parser)
    add_device_options(parser)
    args = parser.parse_args(words)
    check_text_options(parser, args)
    return args


def test_defaults_leave_the_choice_to_the_model():
    args = parse("--source", "a", "--references", "b", "c")
    assert args == argparse.Namespace(
        source="a", references=["b", "c"], test_set=None, source_lang=None, target_lang=None, batch_tokens=4096,
        device="auto", dtype="auto",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--source", "a", "--test_set", "b"], "--test_set has the source; leave out --source"),
        (["--references", "b", "--target_lang", "de"], "--target_lang has no effect without --test_set"),
        (["--references", "b", "--test_set", "c"], "not allowed with argument"),
        ([], "one of the arguments --references --test_set is required"),
        (["--references", "b", "--dtype", "int8"], "invalid choice: 'int8'"),
    ],
)
def test_what_does_not_go_together_is_refused(words, message, capsys):
    with pytest.raises(SystemExit):
        parse(*words)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("values", "expected"), [([], None), ([1, 2], None), ([1, 2, 2, 1], 2), (["a", "a"], "a")])
def test_the_first_repeat_is_found(values, expected):
    assert first_repeat(values) == expected


def test_a_port_is_a_number_that_one_can_listen_at(capsys):
    """Beyond them, getaddrinfo takes the number modulo 65536."""
    for port in (0, 1, 65535):
        check_port(OneLineParser("program"), port)
    for port in (-1, 65536, 70000):
        with pytest.raises(SystemExit):
            check_port(OneLineParser("program"), port)
        assert f"--port {port} is no port; allowed: 1 to 65535, or 0 for any that is free" in capsys.readouterr().err


def test_a_verb_may_have_no_dtype():
    parser = OneLineParser("program")
    add_device_options(parser, dtype=False)
    assert vars(parser.parse_args([])) == {"device": "auto"}
