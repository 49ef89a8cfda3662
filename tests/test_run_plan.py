"""Plans of one run: numbers that agree with those of the paper's runs, and grow as they should."""

import re

import pytest

from hf_vanilla_transformer.commands import plan as command
from hf_vanilla_transformer.inference import pipes
from hf_vanilla_transformer.lab.ablations import AblatedTransformerConfig
from hf_vanilla_transformer.lab.planning import PLANS, SCALING, count_parameters, scaling, seconds_on_gpus
from hf_vanilla_transformer.lab.run_plan import plan_run, run_table


def rows(table):
    return dict(re.findall(r"^\| (.+?) \| (.+?) \|$", table, re.MULTILINE))


def test_a_recipe_of_the_paper_on_its_eight_gpus_is_the_run_that_is_planned_for_it():
    for planned in PLANS:
        if planned.name.startswith("wmt14"):
            run = plan_run(planned.name, {})
            assert run.config.to_dict() == planned.config.to_dict()
            assert run.updates * run.flops_of_update(8) == pytest.approx(planned.flops)
            found = rows(run_table(run, "H100", 8))
            assert found["tokens per side and update"] == f"{planned.tokens:,}"
            assert found["parameters"] == f"{count_parameters(planned.config) / 1e6:,.1f}M"


def test_options_override_a_recipe_and_a_file_will_do(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("preset: tiny\nmax_tokens: 512\nconfig_overrides: {norm_position: pre}\nmax_steps: 10\n")
    run = plan_run(str(path), {"max_tokens": 256, "config_overrides": ["d_ff=64"], "vocab_size": 300})
    assert (run.config.d_model, run.config.d_ff, run.config.vocab_size) == (128, 64, 300)
    assert (run.max_tokens, run.updates, run.bf16) == (256, 10, False)
    assert rows(run_table(run, "A100"))["pairs of a batch"] == "of similar length"
    path.write_text("preset: tiny\nbatching: random\n")
    assert rows(run_table(plan_run(str(path), {}), "A100"))["pairs of a batch"] == "random, of any length"
    path.write_text("preset: tiny\nbatching: any\n")
    with pytest.raises(ValueError, match="batching='any' is none of length, random"):
        plan_run(str(path), {})
    assert plan_run(None, {}).config.d_model == 512, "the default of a run"


def test_a_run_of_another_class_is_planned_by_the_config_of_that_class():
    given = {"model_class": "hf_vanilla_transformer.lab.ablations:AblatedTransformer", "preset": "tiny"}
    run = plan_run(None, {**given, "config_overrides": ["layer_norm=false"]})
    assert (type(run.config), run.config.layer_norm) == (AblatedTransformerConfig, False)
    recurrent = "hf_vanilla_transformer.lab.recurrent:RecurrentForConditionalGeneration"
    with pytest.raises(ValueError, match="RecurrentForConditionalGeneration is no Transformer, and only their work"):
        plan_run(None, {"model_class": recurrent, "preset": "recurrent"})


def test_work_grows_with_devices_and_accumulation_and_memory_does_not():
    one, more = (plan_run(None, {"max_tokens": 512, "gradient_accumulation_steps": steps}) for steps in (1, 3))
    assert more.flops_of_update(2) == pytest.approx(6 * one.flops_of_update(1))
    assert more.memory(True) == one.memory(True)
    assert one.memory(True)["kept for backward"] < one.memory(False)["kept for backward"]
    larger = plan_run(None, {"max_tokens": 1024}).memory(True)
    assert larger["kept for backward"] == 2 * one.memory(True)["kept for backward"]
    assert larger["weights, gradients, Adam"] == one.memory(True)["weights, gradients, Adam"]


def test_a_run_in_epochs_is_planned_by_the_update():
    run = plan_run("multi30k-en-de-tiny", {})
    found = rows(run_table(run))
    assert found["updates"] == "not known; give max_steps"
    assert "time on two cores, fp32 per update" in found
    assert "FLOPs" in rows(run_table(plan_run("multi30k-en-de-tiny", {"max_steps": 5280})))


def test_devices_are_those_that_are_asked_for():
    run = plan_run(None, {"max_steps": 10})
    assert [name for name in rows(run_table(run)) if name.startswith("time")] == [
        "time on 1 A100, bf16",
        "time on 1 H100, bf16",
        "time on two cores, fp32",
    ]
    assert [name for name in rows(run_table(run, "cpu")) if name.startswith("time")] == ["time on two cores, fp32"]
    assert any("fp32: together" in name for name in rows(run_table(run, "cpu")))
    assert [name for name in rows(run_table(run, "A100", 3)) if name.startswith("time")] == ["time on 3 A100, bf16"]
    assert "no estimate" in run_table(plan_run(None, {"preset": "tiny"}), "H100")


def test_more_gpus_are_faster_but_less_than_their_number_says():
    counts = [1, 2, 3, 8, 100, 256, 1000]
    seconds = [seconds_on_gpus(1e18, "H100", count) for count in counts]
    assert seconds == sorted(seconds, reverse=True)
    shares = [scaling(count) for count in counts]
    assert shares == sorted(shares, reverse=True)
    assert {count: scaling(count) for count in SCALING} == SCALING
    assert scaling(1000) == scaling(256)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["wmt14-en-de-bse"], "did you mean wmt14-en-de-base"),
        (["--preset", "bgi"], "did you mean `big`"),
        (["--config_overrides", "dropuot=1"], "did you mean dropout?"),
        (["--gpu", "P100"], "gpu='P100' is none of A100, H100, cpu"),
        (["--count", "0"], "count=0"),
        (["--gpu", "cpu", "--count", "2"], "count=2 is not possible: give 1 or more GPUs, or 1 cpu"),
        (["--max_tokens", "0"], "max_tokens=0 is less than 1"),
    ],
)
def test_what_cannot_be_planned_is_one_line(words, message, capsys):
    assert command.main(words, "plan") == 2
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert (line.startswith("plan: error: "), output.out) == (True, "")
    assert message in line


def test_output_that_nobody_reads_any_more_is_no_error(monkeypatch, capsys):
    def print_to_nobody():
        raise BrokenPipeError

    monkeypatch.setattr(command, "plan_table", print_to_nobody)
    monkeypatch.setattr(pipes, "send_to_nobody", lambda stream: None)
    assert command.main([], "plan") == 141
    assert capsys.readouterr().err == ""


def test_the_command_plans_the_run_that_it_is_given(capsys):
    assert command.main(["wmt14-en-de-base", "--gpu", "H100", "--count", "8", "--max_steps", "7"]) == 0
    expected = run_table(plan_run("wmt14-en-de-base", {"max_steps": 7}), "H100", 8)
    assert capsys.readouterr().out == expected + "\n"
