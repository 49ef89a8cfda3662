"""Words of a command line: errors of one line with suggestions, and help that shows the options by purpose."""

import dataclasses
import re

import pytest
from transformers import Seq2SeqTrainingArguments

from hf_vanilla_transformer.training import VanillaTransformerTrainingArguments
from hf_vanilla_transformer.training.command_line import OPTION_GROUPS, RunParser
from hf_vanilla_transformer.training.refused_options import REFUSED

OPTIONS = {field.name for field in dataclasses.fields(VanillaTransformerTrainingArguments) if field.init}
OURS = OPTIONS - {field.name for field in dataclasses.fields(Seq2SeqTrainingArguments)}


def refused(parser, words, capsys):
    """What a parser says of words that it refuses, which is one line."""
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(words)
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert not output.out
    (line,) = output.err.splitlines()
    assert line.startswith("prog: error: ")
    assert line.endswith("(see prog --help)")
    return line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max_token", "3"], "unknown option --max_token; did you mean --max_tokens?"),
        (["--max-token=3"], "unknown option --max-token; did you mean --max_tokens?"),
        (["--train_dat", "a", "b"], "unknown option --train_dat; did you mean --train_data?"),
        (["--xyzzy"], "unknown option --xyzzy (see"),
        (["--max_tokens", "many"], "argument --max_tokens/--max-tokens: invalid int value: 'many'"),
        (["--learning_rate", "fast"], "invalid float value: 'fast'"),
        (["--bf16", "perhaps"], "got perhaps but expected one of yes/no"),
        (["--final_weights", "worst"], "invalid choice: 'worst'"),
        (["--max_tokens"], "--max_tokens/--max-tokens: expected one argument"),
        (["--max_tokens", "3", "stray"], "unexpected word 'stray'"),
        (["--evaluation_strategy", "no"], "did you mean --eval_strategy?"),
    ],
)
def test_mistakes_end_in_one_line(words, message, capsys):
    assert message in refused(RunParser(prog="prog"), words, capsys)


def test_an_option_of_other_versions_is_told_what_to_use_instead(capsys):
    unknown = sorted(set(REFUSED) - OPTIONS)
    assert unknown, "group_by_length is gone from transformers 5"
    for name in unknown:
        assert REFUSED[name][1] in refused(RunParser(prog="prog"), [f"--{name}", "1"], capsys)


def test_only_what_is_given_is_returned():
    assert RunParser().given([]) == {}
    given = RunParser().given(["--preset", "base", "--bf16", "--train_data", "a", "b", "--max-tokens", "9"])
    assert given == {"preset": "base", "bf16": True, "train_data": ["a", "b"], "max_tokens": 9}


def help_of(word, capsys, **options):
    with pytest.raises(SystemExit) as caught:
        RunParser(prog="prog", **options).parse_args([word])
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", ["110", "140"])
def test_help_shows_all_options_of_ours_by_purpose_in_a_screen_or_two(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    shown = help_of("--help", capsys, description="Trains.", epilog="examples:\n  one")
    assert shown.splitlines()[2] == "Trains."
    assert shown.endswith("examples:\n  one\n")
    assert len(shown.splitlines()) <= 110
    assert max(map(len, shown.splitlines())) <= 120
    listed = re.findall(r"^  --(\w+)", shown, re.MULTILINE)
    assert len(set(listed)) == len(listed)
    assert set(listed) >= OURS
    assert set(listed).isdisjoint(REFUSED)
    titles = [shown.index(f"\n{title}:") for title in OPTION_GROUPS]
    assert titles == sorted(titles)
    for title, group in OPTION_GROUPS.items():
        part = shown.split(f"\n{title}:\n")[1].split(":\n")[0]
        assert all(f"--{name}" in part for name in group if name in OPTIONS), title
    for entry in re.split(r"^  --", shown.split("\nexamples:")[0], flags=re.MULTILINE)[1:]:
        text = [line for line in entry.splitlines()[1:] if line.startswith(" ")]
        assert len(text) <= 2, entry  # one or two lines, and one for a name that is too long to stand beside


def test_options_that_are_named_exist():
    assert {name for group in OPTION_GROUPS.values() for name in group} <= OPTIONS | {"gradient_checkpointing"}


def test_an_option_of_ours_in_no_group_is_shown_all_the_same(capsys, monkeypatch):
    monkeypatch.delitem(OPTION_GROUPS, "adapters")
    assert "--lora_rank" in help_of("--help", capsys).split("\nmore:\n")[1]


def test_help_all_shows_what_transformers_has_but_what_is_refused(capsys):
    listed = set(re.findall(r"^ +--(\w+)", help_of("--help_all", capsys), re.MULTILINE))
    assert listed >= OPTIONS - set(REFUSED)
    assert listed.isdisjoint(REFUSED)


def test_help_shows_what_the_recipe_says(capsys):
    assert re.search(r"--max_tokens .*\n? +.*\[1234\]", help_of("--help", capsys, recipe={"max_tokens": 1234}))
