"""Parsers whose errors are one line, and the verbs that all have one."""

import importlib

import pytest
from test_command_line import refused

from hf_vanilla_transformer.commands.main import VERBS
from hf_vanilla_transformer.inference.one_line_parser import OneLineParser


@pytest.mark.parametrize("verb", sorted({*VERBS} - {"benchmark", "convert", "pretrain", "finetune"}))
def test_every_verb_answers_a_mistyped_option_in_one_line_with_a_suggestion(verb, capsys):
    main = importlib.import_module(f"hf_vanilla_transformer.commands.{VERBS[verb][0]}").main
    with pytest.raises(SystemExit) as caught:
        main([*(["split"] if verb == "lab-scan" else []), "--hepl"], "prog")
    assert caught.value.code == 2
    said = capsys.readouterr().err.replace("prog split", "prog")
    assert said == "prog: error: unknown option --hepl; did you mean --help? (see prog --help)\n"


def test_a_mistyped_option_of_a_system_is_answered_so_too(capsys):
    main = importlib.import_module("hf_vanilla_transformer.commands.convert").main
    with pytest.raises(SystemExit):
        main(["marian", "folder", "--output_dri", "x"], "prog")
    assert capsys.readouterr().err.startswith(
        "prog marian: error: unknown option --output_dri; did you mean --output_d"
    )


def test_parsers_of_other_commands_suggest_options_as_they_are_spelled(capsys):
    parser = OneLineParser("prog")
    parser.add_argument("--output-dir", required=True)
    parser.add_argument("--number", type=int)
    assert "unknown option --outptu_dir; did you mean --output-dir?" in refused(parser, ["--outptu_dir", "x"], capsys)
    assert "arguments are required: --output-dir" in refused(parser, [], capsys)
    assert "unknown option --output" in refused(parser, ["--output", "x"], capsys), "nothing is abbreviated"
    assert parser.parse_args(["--output-dir", "x"]).output_dir == "x"


def test_options_of_sub_commands_are_their_own(capsys):
    parser = OneLineParser("prog")
    parser.add_subparsers().add_parser("sub").add_argument("--depth")
    assert parser.parse_args(["sub", "--depth", "3"]).depth == "3"
    with pytest.raises(SystemExit):
        parser.parse_args(["sub", "--dept", "3"])
    assert capsys.readouterr().err.startswith("prog sub: error: unknown option --dept; did you mean --depth?")
