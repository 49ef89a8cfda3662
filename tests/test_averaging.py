"""§6.1 averaged checkpoints, against sums in numpy."""

import json

import numpy as np
import pytest
import torch
from commanding import run
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.commands.average import main
from hf_vanilla_transformer.training import average_checkpoints, last_checkpoints
from hf_vanilla_transformer.training.averaging import average_weights
from hf_vanilla_transformer.training.checkpoints import (
    IN_BETWEEN,
    publish_checkpoint,
    remove_checkpoint,
    writing_folder,
)


def save(folder, **weights):
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors")
    return folder


def publish(folder, step, epoch):
    written = writing_folder(folder) / f"checkpoint-{step}"
    save(written, w=torch.full((2,), float(step)))
    (written / "trainer_state.json").write_text(json.dumps({"epoch": epoch}))
    return publish_checkpoint(written, folder)


def steps(checkpoints):
    return [int(path.name.split("-")[1]) for path in checkpoints]


# The mean


def test_the_average_is_the_mean(tmp_path):
    weights = [{"a": torch.randn(3, 4), "b": torch.randn(5)} for _ in range(5)]
    folders = [save(tmp_path / str(i), **each) for i, each in enumerate(weights)]
    averaged = average_checkpoints(folders, tmp_path / "average")
    for name in ("a", "b"):
        expected = np.mean([each[name].numpy().astype(np.float64) for each in weights], axis=0)
        np.testing.assert_array_equal(averaged[name].numpy(), expected.astype(np.float32))
    saved = load_file(tmp_path / "average" / "model.safetensors")
    assert saved.keys() == averaged.keys()
    assert all(torch.equal(saved[name], averaged[name]) for name in saved)


def test_sums_are_taken_in_float64(tmp_path):
    # In float32, 1 is lost beside 2^25; in bfloat16, nothing would be left of any of it.
    values = (2.0**25, 1.0, 1.0, -(2.0**25))
    folders = [save(tmp_path / str(i), w=torch.tensor([value])) for i, value in enumerate(values)]
    assert average_weights(folders)["w"].tolist() == [0.5]
    halves = [save(tmp_path / f"half{i}", w=torch.tensor([1.0 + i / 128], dtype=torch.bfloat16)) for i in range(5)]
    mean = average_weights(halves)["w"]
    assert mean.dtype == torch.bfloat16
    assert mean.item() == 1.0 + 2 / 128


def test_one_checkpoint_is_its_own_average(tmp_path):
    weights = {"a": torch.randn(4), "half": torch.randn(4).bfloat16()}
    averaged = average_weights([save(tmp_path / "one", **weights)])
    assert all(torch.equal(averaged[name], weights[name]) for name in weights)
    assert all(averaged[name].dtype == weights[name].dtype for name in weights)


def test_the_average_of_models_is_a_model(tmp_path):
    config = VanillaTransformerConfig.from_preset("tiny", vocab_size=50, d_model=16, num_heads=2, d_ff=16)
    folders = []
    for number in range(3):
        torch.manual_seed(number)
        model = VanillaTransformerForConditionalGeneration(config)
        model.generation_config.num_beams = number + 1
        model.save_pretrained(tmp_path / str(number))
        folders.append(str(tmp_path / str(number)))
    (tmp_path / "2" / "optimizer.pt").write_bytes(b"not to be copied")
    (tmp_path / "2" / "tokenizer.json").write_text("{}")
    average_checkpoints(folders, tmp_path / "new" / "average")
    average = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "new" / "average")
    models = [AutoModelForSeq2SeqLM.from_pretrained(folder).state_dict() for folder in folders]
    for name, weight in average.state_dict().items():
        expected = sum(each[name].double() for each in models) / 3
        torch.testing.assert_close(weight.double(), expected, rtol=0, atol=1e-7)
    assert average.generation_config.num_beams == 3
    assert sorted(path.name for path in (tmp_path / "new" / "average").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_weights_that_do_not_fit_are_named(tmp_path):
    first = save(tmp_path / "first", a=torch.ones(2), b=torch.ones(2))
    fewer = save(tmp_path / "fewer", a=torch.ones(2))
    other = save(tmp_path / "other", a=torch.ones(2), b=torch.ones(3))
    with pytest.raises(ValueError, match="fewer and .*first do not both have b"):
        average_weights([first, fewer])
    with pytest.raises(ValueError, match="first and .*fewer do not both have b"):
        average_weights([fewer, first])
    with pytest.raises(ValueError, match=r"other: b is \(3,\), before \(2,\)"):
        average_checkpoints([first, other], tmp_path / "average")
    assert not (tmp_path / "average").exists()
    with pytest.raises(ValueError, match="there is no checkpoint to average"):
        average_checkpoints([], tmp_path / "average")


# Which are averaged


def test_the_last_ones_are_taken_by_step_or_epoch(tmp_path):
    for step, epoch in ((10, 0.5), (20, 1.0), (30, 1.5), (40, 2.0), (100, 2.5), (110, 3)):
        publish(tmp_path, step, epoch)
    assert steps(last_checkpoints(tmp_path, 3)) == [40, 100, 110]
    assert steps(last_checkpoints(tmp_path, 3, by="epoch")) == [20, 40, 110]
    assert steps(last_checkpoints(tmp_path, 2, by="epoch")) == [40, 110]


def test_fewer_than_asked_for_are_taken_with_a_warning(tmp_path, package_log):
    publish(tmp_path, 10, 1.0)
    publish(tmp_path, 20, 1.5)
    assert steps(last_checkpoints(tmp_path, 2)) == [10, 20]
    assert not package_log.records
    assert steps(last_checkpoints(tmp_path, 5)) == [10, 20]
    assert "has 2 of the 5 checkpoints to average; only these are averaged" in package_log.text


def test_damaged_ones_are_left_out_and_named_and_no_older_one_takes_their_place(tmp_path, package_log):
    for step in (10, 20, 30):
        publish(tmp_path, step, 1.0)
    (tmp_path / "checkpoint-20" / "model.safetensors").write_bytes(b"")
    assert steps(last_checkpoints(tmp_path, 2)) == [30]
    assert steps(last_checkpoints(tmp_path, 3)) == [10, 30]
    assert "checkpoint-20 is damaged and left out of the average: model.safetensors has 0 bytes" in package_log.text


def test_those_at_which_the_run_was_stopped_are_no_part_of_the_average(tmp_path):
    for step in (10, 20, 25, 30, 33):
        checkpoint = publish(tmp_path, step, 1.0)
        if step % 10:
            (checkpoint / IN_BETWEEN).touch()
    assert steps(last_checkpoints(tmp_path, 2)) == [20, 30]
    assert steps(last_checkpoints(tmp_path, 3, by="epoch")) == [10, 20, 30]
    for step in (10, 20, 30):
        remove_checkpoint(tmp_path / f"checkpoint-{step}")
    with pytest.raises(ValueError, match="no checkpoint to average; those at which the run was stopped do not count"):
        last_checkpoints(tmp_path, 2)


def test_none_at_all_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere"):
        last_checkpoints(tmp_path / "nowhere", 3)
    with pytest.raises(ValueError, match="has no checkpoint to average"):
        last_checkpoints(tmp_path, 3)
    publish(tmp_path, 10, 0.5)
    with pytest.raises(ValueError, match="has no checkpoint that was written at the end of an epoch to average"):
        last_checkpoints(tmp_path, 3, by="epoch")


def test_an_average_replaces_no_model_and_not_that_of_its_run(tmp_path):
    run_folder, other = tmp_path / "run", tmp_path / "other"
    publish(run_folder, 10, 1.0)
    other.mkdir()
    (other / "model.safetensors").write_bytes(b"of another model")
    assert "is not empty" in run(main, run_folder, "--output_dir", other).error
    assert (other / "model.safetensors").read_bytes() == b"of another model"
    for options in ((), ("--overwrite",)):
        assert "must stay as it is" in run(main, run_folder, "--output_dir", run_folder, *options).error
    done = run(main, run_folder, "--output_dir", other, "--overwrite")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "Averaged 1 checkpoint: checkpoint-10")
    assert (other / "model.safetensors").read_bytes() != b"of another model"
