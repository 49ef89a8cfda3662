"""The table of the staged models: counts, agreement, what comes out instead, and the same as JSON."""

import json

import pytest

from hf_vanilla_transformer.lab.stage_runs import MAX_TOKENS, Outcome
from hf_vanilla_transformer.lab.stage_table import (
    agreement,
    as_data,
    parameter_counts,
    report,
    write_output,
    wrong_outputs,
)
from hf_vanilla_transformer.lab.stages import CAUSAL, ORDER, Experiment

RIGHT = tuple(target for _, target in ORDER)
WRONG = ((1, 0, 1, 0), (1, 0, 1, 0))


def experiment(claim=False, **options):
    return Experiment(CAUSAL, "order", ORDER, 1, claim=claim, **options)


def outcomes(*learned):
    return [Outcome(0.1 * (i + 1), RIGHT if each else WRONG, each) for i, each in enumerate(learned)]


@pytest.mark.parametrize(("claim", "learned", "agrees"), [
    (True, [True, True], "yes"), (False, [False, False], "yes"), (True, [False, False], "no"),
    (True, [True, False], "in 1 of 2"), (False, [True, True, False], "in 1 of 3"),
])  # fmt: skip
def test_agreement_counts_the_seeds_that_do_what_the_text_says(claim, learned, agrees):
    assert agreement(experiment(claim), outcomes(*learned)) == agrees


@pytest.mark.parametrize(("numbers", "written"), [
    ((0, 1, 1), "011"), ((), "nothing"), ((1,) * MAX_TOKENS, "1111..."), ((0.5, 1.0), "0.50 1.00"),
    ((0, 3, 2), "0<eos><sos>"), ((4,), "<pad>"),
])  # fmt: skip
def test_outputs_are_written_to_be_read(numbers, written):
    assert write_output(numbers) == written


def test_only_wrong_outputs_are_shown_and_those_of_one_seed():
    assert wrong_outputs(experiment(), outcomes(True, False, False)) == "0101 → 1010"
    assert wrong_outputs(experiment(), outcomes(True, True)) == "-"


def test_the_report_has_a_row_for_each_experiment_and_its_remarks():
    results = [
        (experiment(claimed_loss=0.25, remark="First."), outcomes(False, True, False)),
        (experiment(True), outcomes(True, True, True)),
        (experiment(True, remark="Second."), outcomes(False, False, False)),
    ]
    lines = report(results, range(3)).splitlines()
    assert len({line.count("|") for line in lines if "order" in line}) == 1
    first, second, third = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "order" in line)
    wrong = "0101 → 1010"
    assert first == ["causal", "order", "not learned", "1 of 3", "in 2 of 3", wrong, "0.2500", "0.2000", "1"]
    assert second == ["causal", "order", "learned", "3 of 3", "yes", "-", "-", "0.2000", ""]
    assert third[-1] == "2"
    assert lines[-2:] == ["1. First.", "2. Second."]
    assert "1. " not in report(results[1:2], range(3))


def test_parameter_counts_are_in_the_report_and_those_of_the_text_but_for_the_row_of_padding():
    counts = parameter_counts()
    assert [claimed for _, claimed, _ in counts] == [46, 88, 1332, 1340]
    assert [count - claimed for _, claimed, count in counts] == [0, 0, 0, 9]
    table = report([], range(1))
    assert all(f"{count:,}" in table for _, _, count in counts)


def test_the_data_have_every_outcome():
    results = [(experiment(claimed_loss=0.5), outcomes(False, True))]
    (data,) = json.loads(json.dumps(as_data(results, range(2))))["experiments"]
    assert data["pairs"] == [["0101", "0101"], ["1010", "1010"]]
    assert data["claim"] == {"is_learned": False, "loss": 0.5}
    assert [each["is_learned"] for each in data["outcomes"]] == [False, True]
    assert [each["seed"] for each in data["outcomes"]] == [0, 1]
    assert data["outcomes"][0]["outputs"] == [list(each) for each in WRONG]
