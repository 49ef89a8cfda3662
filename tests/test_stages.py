"""The staged models: the text's parameter counts, what each stage sees, and that the tasks are learned or not."""

from dataclasses import replace

import pytest
import torch

from hf_vanilla_transformer.lab import stages
from hf_vanilla_transformer.lab.stages import (
    CAUSAL,
    EXPERIMENTS,
    MANY_TO_ONE,
    ONE_TO_MANY,
    ORDER,
    PADDING,
    PLAIN,
    POSITIONS,
    REPEAT,
    TOKENS,
    Experiment,
    Outcome,
    build,
    count_parameters,
    decode,
    example_of,
    outcome_row,
    run,
    run_all,
)


def test_parameters_are_as_many_as_the_text_counts():
    assert count_parameters(build(PLAIN, 0)) == 88
    assert count_parameters(build(replace(PLAIN, fields={**PLAIN.fields, "d_ff": 1}), 0)) == 46
    assert count_parameters(build(TOKENS, 0)) == count_parameters(build(POSITIONS, 0)) == 1332


def test_tasks_are_those_of_the_text():
    assert REPEAT == (((0, 0, 0, 0), (0, 0, 0, 0)), ((1, 1, 1, 1), (1, 1, 1, 1)))
    assert MANY_TO_ONE == (((0, 0, 0), (1,)), ((1, 1, 1), (0,)))
    assert ONE_TO_MANY == (((1,), (0, 0, 0)), ((0,), (1, 1, 1)))
    assert ORDER == (((0, 1, 0, 1), (0, 1, 0, 1)), ((1, 0, 1, 0), (1, 0, 1, 0)))
    listed, printed = (each.pairs for each in EXPERIMENTS if each.stage is PADDING)
    assert [len(each) for each in (listed, printed)] == [8, 8]
    assert set(listed) - set(printed) == {((0, 0, 0, 0), (1, 1, 1, 1)), ((1, 1, 1, 1), (0, 0, 0, 0))}


@pytest.mark.parametrize(("stage", "sees_future", "sees_order"), [
    (TOKENS, True, False), (CAUSAL, False, False), (POSITIONS, False, True), (PADDING, False, True)
])  # fmt: skip
@torch.no_grad()
def test_a_stage_has_what_it_is_named_after(stage, sees_future, sees_order):
    model = build(stage, 0).eval()
    source, target = torch.tensor([[2, 0, 1, 1, 3]]), torch.tensor([[2, 0, 1, 0]])
    masks = stages._visibility(target, stage.is_causal)

    def first_logits(source, target):
        return model(input_ids=source, decoder_input_ids=target, **masks).logits[0, 0]

    before, later = first_logits(source, target), torch.tensor([[2, 0, 1, 1]])
    assert torch.allclose(first_logits(source, later), before, atol=1e-6) != sees_future
    assert torch.allclose(first_logits(source[:, [0, 2, 1, 3, 4]], target), before, atol=1e-6) != sees_order


@torch.no_grad()
def test_decoding_is_that_of_generate():
    for seed in range(3):
        model = build(POSITIONS, seed).eval()
        options = {"num_beams": 1, "max_new_tokens": stages.MAX_TOKENS}
        ids = model.generate(torch.tensor([[2, 0, 1, 3]]), **options)[0, 1:].tolist()
        assert decode(model, (0, 1)) == tuple(ids[: ids.index(3)] if 3 in ids else ids)


def test_plain_attention_collapses_to_the_mean():
    outcome = run(EXPERIMENTS[0], seed=0)
    assert outcome.loss == pytest.approx(0.25, abs=0.01)
    assert all(number == pytest.approx(0.5, abs=0.05) for output in outcome.outputs for number in output)
    assert not outcome.is_learned


@pytest.mark.parametrize(("stage", "pairs", "epochs", "is_learned"), [
    (CAUSAL, MANY_TO_ONE, 400, True), (TOKENS, ONE_TO_MANY, 400, False), (POSITIONS, ORDER, 600, True),
    (CAUSAL, ORDER, 600, False),
])  # fmt: skip
def test_what_the_parts_are_for_shows_in_fewer_epochs_too(stage, pairs, epochs, is_learned):
    assert run(Experiment(stage, "task", pairs, epochs, samples=20), seed=1).is_learned == is_learned


def test_runs_in_processes_are_those_in_one():
    short = [Experiment(POSITIONS, "order", ORDER, 3, samples=4), Experiment(PLAIN, "repeat", REPEAT, 3, samples=4)]
    expected = [(each, [run(each, seed) for seed in (4, 5)]) for each in short]
    assert list(run_all([4, 5], short, processes=2)) == expected
    assert list(run_all([4, 5], short, epochs=3, processes=1)) == expected


@pytest.mark.parametrize(("claim", "learned", "agrees"), [
    (True, [True, True], "yes"), (False, [False, False], "yes"), (True, [False, False], "no"),
    (True, [True, False], "partly"), (None, [True, True], "-"),
])  # fmt: skip
def test_a_row_says_whether_the_seeds_agree_with_the_text(claim, learned, agrees):
    experiment = Experiment(CAUSAL, "order", ORDER, 1, claim=claim)
    outcomes = [Outcome(loss, ((0, 1), ()), each) for loss, each in zip((0.1, 0.3), learned)]
    row = outcome_row(experiment, outcomes)
    assert row[0:2] == ["causal mask", "order"]
    assert row[3:] == [f"{sum(learned)} of 2", "0.2000", agrees]
    assert example_of(experiment, outcomes) == "0101 -> 01, 1010 -> nothing"
