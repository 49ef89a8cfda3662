"""Runs of the staged models: decoding against generate() and a stub, processes, and tasks that are learned or not."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from hf_vanilla_transformer.lab.stage_runs import MAX_TOKENS, decode, is_right, run, run_all
from hf_vanilla_transformer.lab.stages import (
    CAUSAL,
    EOS,
    EXPERIMENTS,
    MANY_TO_ONE,
    ORDER,
    PLAIN,
    POSITIONS,
    REPEAT,
    Experiment,
    build,
)


@torch.no_grad()
def test_with_the_causal_mask_decoding_is_that_of_generate():
    lengths = set()
    for seed in range(8):
        model = build(POSITIONS, seed).eval()
        options = {"num_beams": 1, "max_new_tokens": MAX_TOKENS}
        ids = model.generate(torch.tensor([[2, 0, 1, 3]]), **options)[0, 1:].tolist()
        decoded = decode(model, (0, 1))
        assert decoded == tuple(ids[: ids.index(3)] if 3 in ids else ids)
        lengths.add(len(decoded))
    assert len(lengths) > 1  # both those that end and those that do not


@pytest.mark.parametrize(("end", "expected"), [(4, (0, 0, 1)), (10**6, (*[0] * (MAX_TOKENS - 1), 1))])
def test_each_step_of_decoding_predicts_all_tokens_anew(end, expected):
    def model(decoder_input_ids, **_):
        """Says 0 for every token but the last, which is 1, and the end after `end` of them."""
        length = decoder_input_ids.shape[1]
        said = [0] * (length - 1) + [1] if length < end else [0] * (length - 2) + [1, EOS]
        return SimpleNamespace(logits=torch.eye(4)[said].unsqueeze(0))

    assert decode(model, (1,)) == expected


@pytest.mark.parametrize(("output", "right"), [
    ((0, 1), True), ((0.2, 0.8), True), ((0.5, 0.5), False), ((0,), False), ((0, 1, 1), False)
])  # fmt: skip
def test_an_output_is_right_if_all_of_it_is_the_target(output, right):
    assert is_right(output, ((1,), (0, 1))) == right


def test_plain_attention_collapses_to_the_mean():
    outcome = run(replace(EXPERIMENTS[0], epochs=120, samples=2), seed=0)
    assert outcome.loss == pytest.approx(0.25, abs=0.01)
    assert all(number == pytest.approx(0.5, abs=0.05) for output in outcome.outputs for number in output)
    assert not outcome.is_learned


def test_a_task_is_learned_in_fewer_epochs_too():
    assert run(Experiment(CAUSAL, "many to one", MANY_TO_ONE, 100, claim=True, samples=16), seed=1).is_learned
    assert not run(Experiment(CAUSAL, "many to one", MANY_TO_ONE, 1, claim=True, samples=16), seed=1).is_learned


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda each: f"{each.stage.name}, {each.task}")
def test_claims_hold_with_most_of_three_seeds(experiment):
    """The text's recipe, whole: five minutes of a core for all ten."""
    ((_, outcomes),) = run_all(range(3), [experiment], processes=2)
    assert sum(each.is_learned == experiment.claim for each in outcomes) >= 2


def test_runs_in_processes_are_those_in_one():
    short = [
        Experiment(POSITIONS, "order", ORDER, 3, claim=True, samples=4),
        Experiment(PLAIN, "repeat", REPEAT, 3, claim=False, samples=4),
    ]
    expected = [(each, [run(each, seed) for seed in (4, 5)]) for each in short]
    steps = []
    assert list(run_all([4, 5], short, processes=2, step=lambda: steps.append(1))) == expected
    assert len(steps) == 4


def test_an_error_of_a_run_is_that_of_all_and_stops_the_rest():
    broken = Experiment(PLAIN, "of no pairs", (), 1, claim=False)
    with pytest.raises(ZeroDivisionError):
        list(run_all([0], [broken, *[replace(EXPERIMENTS[-1], epochs=10**6)] * 3], processes=2))
