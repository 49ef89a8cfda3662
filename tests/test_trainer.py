"""The trainer: its loss by definition, its log, and how it stops when something is wrong."""

import errno
import json
import math
import shutil
import textwrap
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from training_runs import SHAPE, arguments, assert_same_end, flags, options, write_text
from transformers import AutoTokenizer
from transformers.trainer_utils import HPSearchBackend

from hf_vanilla_transformer import VanillaTransformerForConditionalGeneration, training
from hf_vanilla_transformer.commands.pretrain import main
from hf_vanilla_transformer.evaluation import label_likelihood
from hf_vanilla_transformer.inference import translate
from hf_vanilla_transformer.training import VanillaTransformerTrainer, prepare, pretrain, train
from hf_vanilla_transformer.training.checkpoints import find_damage, list_checkpoints, writing_folder
from hf_vanilla_transformer.training.run import _trainer


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


def trainer_and_batch(text, output_dir, **options):
    args = arguments(text, output_dir, **options)
    trainer = _trainer(prepare(args), args)
    return trainer, next(iter(trainer.get_train_dataloader()))


def test_r_drop_is_the_mean_loss_of_two_dropouts_plus_alpha_times_their_divergence(text, tmp_path):
    """Liang et al. (2021), with the halves written out; float64."""
    alpha = 2.5
    trainer, batch = trainer_and_batch(text, tmp_path, r_drop=alpha)
    model = trainer.model.double().train()
    index = batch.pop("index")
    assert len(index) == len(batch["labels"])
    torch.manual_seed(1)
    loss = trainer.compute_loss(model, dict(batch))
    torch.manual_seed(1)
    twice = {name: torch.cat([tensor, tensor]) for name, tensor in batch.items()}
    logits = model(**twice, return_logits=True).logits
    labels = batch["labels"]
    kept = labels != -100
    first, second = (half[kept].log_softmax(-1) for half in logits.chunk(2))
    assert not torch.allclose(first, second)  # two dropouts
    cross_entropy = sum(F.nll_loss(half, labels[kept], reduction="sum") for half in (first, second))
    uniform = sum(-half.mean(-1).sum() for half in (first, second))
    smoothed = (0.9 * cross_entropy + 0.1 * uniform) / 2
    divergence = (
        sum(F.kl_div(a, b, reduction="sum", log_target=True) for a, b in ((first, second), (second, first))) / 2
    )
    torch.testing.assert_close(loss, (smoothed + alpha * divergence) / kept.sum())


def test_a_loss_of_ones_own_finds_out_how_to_get_logits(text, tmp_path):
    trainer, batch = trainer_and_batch(text, tmp_path)
    batch.pop("index")
    outputs = trainer.model.train()(**batch)
    assert outputs.logits is None
    assert "logits" not in outputs
    with pytest.raises(KeyError, match="call the model with return_logits=True"):
        outputs["logits"]
    asked = trainer.model(**batch, return_logits=True)
    assert asked["logits"] is asked.logits
    assert asked.logits.shape[:2] == batch["labels"].shape
    loss = {"label_smoothing_factor": 0.1}
    with pytest.raises(ValueError, match=r"label_smoothing_factor=0\.1 has no effect"):
        trainer_and_batch(text, tmp_path, **loss)


def test_the_example_with_data_of_ones_own_runs_as_it_is_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = textwrap.dedent(training.__doc__.partition("does:\n")[2])
    found = {}
    exec(compile(example, "example", "exec"), found)
    assert [entry["step"] for entry in found["trainer"].state.log_history if "nll" in entry] == [10, 20]
    assert found["scores"].keys() >= {"eval_loss", "eval_perplexity", "eval_bleu", "eval_chrf"}
    model = VanillaTransformerForConditionalGeneration.from_pretrained("runs/own")
    tokenizer = AutoTokenizer.from_pretrained("runs/own")
    assert len(list(translate(model, tokenizer, ["a red dog"]))) == 1
    assert label_likelihood(model, found["rows"]).nll_per_token == pytest.approx(found["scores"]["eval_loss"], rel=1e-5)
    assert found["trainer"].train_dataset.where(1) == "row 1"


def test_the_log_has_unsmoothed_loss_perplexity_padding_and_speed(text, tmp_path):
    options = {"config_overrides": [f"{name}={value}" for name, value in {**SHAPE, "dropout": 0.0}.items()]}
    args = arguments(text, tmp_path, max_steps=2, eval_strategy="no", **options)
    run = prepare(args)
    batches = list(run.text.train_sampler)[:2]
    expected = []
    for keys in batches:
        rows = run.text.train_set.__getitems__(keys)
        sources, targets = ([row[name] for row in rows] for name in ("input_ids", "labels"))
        useful = sum(map(len, sources)) + sum(map(len, targets))
        expected.append(1 - useful / (len(rows) * (max(map(len, sources)) + max(map(len, targets)))))
    before = {name: weight.clone() for name, weight in run.model.state_dict().items()}
    result = train(run, args)
    entries = [entry for entry in result.history if "loss" in entry]
    assert [entry["padding"] for entry in entries] == pytest.approx(expected)
    run.model.load_state_dict(before)
    rows = run.text.train_set.__getitems__(batches[0])
    nll = tokens = 0.0
    for row in rows:  # one by one, by the definition
        source, target = (torch.tensor(row[name], dtype=torch.long) for name in ("input_ids", "labels"))
        logits = run.model(source[None], labels=target[None], return_logits=True).logits
        nll += F.cross_entropy(logits[0], target, reduction="sum").item()
        tokens += len(row["labels"])
    assert entries[0]["nll"] == pytest.approx(nll / tokens, rel=1e-5)
    assert entries[0]["perplexity"] == pytest.approx(math.exp(nll / tokens), rel=1e-5)
    for entry in entries:
        assert entry.keys() >= {"loss", "grad_norm", "learning_rate", "tokens_per_second", "minutes", "epoch", "step"}


def test_accumulated_batches_have_the_gradient_of_one_large_batch(text, tmp_path):
    trainer, _ = trainer_and_batch(text, tmp_path, gradient_accumulation_steps=3)
    loader = iter(trainer.get_train_dataloader())
    batches = [next(loader) for _ in range(3)]
    model = trainer.model.double().eval()
    tokens = sum(int((batch["labels"] != -100).sum()) for batch in batches)
    for batch in batches:
        inputs = {name: tensor for name, tensor in batch.items() if name != "index"}
        trainer.compute_loss(model, inputs, num_items_in_batch=tokens).backward()
    accumulated = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    rows = [
        trainer.train_dataset.__getitems__([(0, index)])[0] for batch in batches for index in batch["index"].tolist()
    ]
    whole = trainer.data_collator(rows)
    whole.pop("index")
    trainer.compute_loss(model, whole).backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(accumulated[name], weight.grad, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_stops_the_run_and_says_where(what, text, tmp_path, monkeypatch):
    args = arguments(text, tmp_path, save_strategy="steps", save_steps=2, eval_strategy="no", max_steps=9)
    run = prepare(args)
    before_failure = {}

    def poison(module, inputs, output):
        poison.calls += 1
        if poison.calls == 5:
            before_failure.update({name: weight.clone() for name, weight in run.model.state_dict().items()})
            if what == "loss":
                output.loss = output.loss * float("inf")
            else:
                output.loss.register_hook(lambda gradient: gradient * float("nan"))
        return output

    poison.calls = 0
    run.model.register_forward_hook(poison)
    expected = [index for _, index in list(run.text.train_sampler)[4]]
    with pytest.raises(FloatingPointError) as raised:
        train(run, args)
    message = str(raised.value)
    assert message.startswith("update 5: the loss is inf" if what == "loss" else "update 5: the norm of the gradient")
    assert f"sentences {', '.join(map(str, expected[:20]))}" in message
    assert f"train.jsonl, line {expected[0] + 1}" in message
    assert f"Last good checkpoint: {tmp_path / 'checkpoint-4'}" in message
    listed = json.loads((tmp_path / "failed-batch-5-0.json").read_text())
    assert (listed["update"], listed["sentences"]) == (5, expected)
    assert listed["where"] == [f"{text / 'train.jsonl'}, line {index + 1}" for index in expected]
    for name, weight in run.model.state_dict().items():
        assert torch.equal(weight, before_failure[name]), name


def test_a_failure_names_the_sentences_of_a_stream(text, tmp_path):
    trainer, batch = trainer_and_batch(text, tmp_path, streaming=True, max_steps=2, shuffle_buffer=30)
    trainer._micro_batches = [batch["index"].tolist()]
    message = trainer._describe_failure("the loss is nan")
    where = json.loads((tmp_path / "failed-batch-1-0.json").read_text())["where"]
    assert f"({'; '.join(where[:3])}; ...)" in message
    lines = (text / "train.jsonl").read_text().splitlines()
    for place, ids in zip(where, batch["input_ids"], strict=True):
        file, line = place.split(", line ")
        assert file == str(text / "train.jsonl")
        read = json.loads(lines[int(line) - 1])["translation"]["en"]
        assert trainer.processing_class.decode(ids, skip_special_tokens=True) == read


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(OSError(errno.ENOSPC, "No space left on device"), marks=pytest.mark.slow),  # 3 seconds
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed: No space left"),
        pytest.param(
            SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
            marks=pytest.mark.slow,  # 3 seconds
        ),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_disk_that_fills_up_costs_nothing_but_that_checkpoint(error, text, tmp_path, monkeypatch):
    save = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "no", "max_steps": 6}
    torch_save, calls = torch.save, []

    def full(state, path, **kwargs):
        calls.append(path)
        if len(calls) > 4:
            raise error
        return torch_save(state, path, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"update 4: the checkpoint could not be written \(.*No space left") as raised:
        pretrain(arguments(text, tmp_path / "full", **save))
    checkpoint = tmp_path / "full" / "checkpoint-2"
    assert f"Last good checkpoint: {checkpoint}" in str(raised.value)
    assert list_checkpoints(tmp_path / "full") == [checkpoint]
    assert find_damage(checkpoint) is None
    assert not (tmp_path / "full" / ".writing").exists()
    monkeypatch.setattr(torch, "save", torch_save)
    resumed = pretrain(arguments(text, tmp_path / "full", **save, resume_from_checkpoint="last"))
    whole = pretrain(arguments(text, tmp_path / "whole", **save))
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


def test_too_small_a_disk_is_found_before_training(text, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(OSError, match=r"GB left, but 4 checkpoints of .* GB need"):
        prepare(arguments(text, tmp_path))


def test_evaluation_without_a_set_is_refused(text, tmp_path):
    trainer, _ = trainer_and_batch(text, tmp_path)
    trainer.eval_dataset = None
    with pytest.raises(ValueError, match="nothing to evaluate on"):
        trainer.evaluate()


def test_each_corpus_and_line_of_a_failure_is_named(text, tmp_path):
    trainer, batch = trainer_and_batch(text, tmp_path)
    index = int(batch["index"][0])
    row = trainer.train_dataset.rows[index]
    lines = (text / "train.jsonl").read_text().splitlines()
    assert json.loads(lines[row["line"] - 1])["translation"]["en"] == row["source"]
    assert trainer.train_dataset.where(index) == f"{text / 'train.jsonl'}, line {row['line']}"


def test_tensorboard_gets_the_log(text, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = {"report_to": "tensorboard", "max_steps": 2, "eval_strategy": "no"}
    pretrain(arguments(text, tmp_path, **options))
    (folder,) = {path.parent for path in tmp_path.rglob("events.out.tfevents*")}
    events = EventAccumulator(str(folder)).Reload()
    assert {"train/loss", "train/nll", "train/perplexity", "train/padding"} <= set(events.Tags()["scalars"])


def test_scores_under_bf16_are_those_of_the_saved_weights(text, tmp_path):
    result = pretrain(arguments(text, tmp_path, bf16=True, max_steps=3))
    model = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path)
    rows = [json.loads(line)["translation"] for line in (text / "val.jsonl").read_text().splitlines()]
    encode = result.tokenizer
    data = [{"input_ids": encode(row["en"])["input_ids"], "labels": encode(row["de"])["input_ids"]} for row in rows]
    assert result.metrics["final_loss"] == label_likelihood(model, data).nll_per_token


@pytest.mark.parametrize("name", ["compute_metrics", "preprocess_logits_for_metrics", "compute_loss_func"])
def test_what_the_trainer_would_pass_by_is_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` has no effect in VanillaTransformerTrainer: "):
        VanillaTransformerTrainer(**{name: lambda *args: None})


def test_a_trainer_by_itself_clears_what_a_killed_one_left(text, tmp_path):
    """`prepare` is not called again where somebody trains with the Trainer alone."""
    args = arguments(text, tmp_path, max_steps=1, save_strategy="steps", save_steps=1, eval_strategy="no")
    trainer = _trainer(prepare(args), args)
    (writing_folder(tmp_path) / "checkpoint-7").mkdir(parents=True)
    trainer.train()
    assert steps_of(tmp_path) == [1]
    assert not writing_folder(tmp_path).exists()


class Trial(dict):
    """Stands for optuna's trial: values by name, and which trial it is."""


def test_trials_of_a_search_have_a_folder_each(text, tmp_path, monkeypatch):
    """As optuna drives them: the trainer is told which trial it is, and the values to try."""
    monkeypatch.setattr("transformers.integrations.hp_params", lambda trial: trial.params)  # optuna need not be there
    args = arguments(text, tmp_path, max_steps=2, save_strategy="steps", save_steps=1, eval_strategy="no")
    run = prepare(args)
    trainer = _trainer(run, args)
    trainer.model_init = lambda trial: VanillaTransformerForConditionalGeneration(run.model.config)
    trainer.hp_search_backend, trainer.hp_name = HPSearchBackend.OPTUNA, None
    trainer.hp_space = dict
    for number, rate in enumerate((0.1, 0.2)):
        trial = Trial(learning_rate=rate)
        trial.number, trial.params = number, dict(trial)
        trainer.train(trial=trial)
        assert trainer.optimizer.defaults["lr"] == rate
    for number in (0, 1):
        assert steps_of(tmp_path / f"run-{number}") == [1, 2]
    assert list_checkpoints(tmp_path) == []


def steps_of(folder):
    checkpoints = list_checkpoints(folder)
    assert all(find_damage(checkpoint) is None for checkpoint in checkpoints)
    return [int(checkpoint.name.partition("-")[2]) for checkpoint in checkpoints]


def test_a_second_training_of_one_trainer_starts_its_moving_average_anew(text, tmp_path):
    options = {"final_weights": "ema", "ema_decay": 0.5, "max_steps": 2, "eval_strategy": "no", "save_strategy": "no"}
    args = arguments(text, tmp_path, **options)
    trainer = _trainer(prepare(args), args)
    trainer.train()
    first = trainer.moving_average
    trainer.train()
    assert trainer.moving_average is not first
    assert trainer.moving_average.updates == 2


def with_losses(monkeypatch, *losses):
    """Has evaluations find these losses, one after the other."""
    found = iter(losses)
    monkeypatch.setattr(VanillaTransformerTrainer, "scores", lambda self, *args, **kwargs: {"loss": next(found)})


def test_the_best_of_evaluations_between_checkpoints_is_saved_and_is_the_model_in_the_end(text, tmp_path, monkeypatch):
    steps = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 4}
    with_losses(monkeypatch, 1.0, 2.0, 3.0, 4.0, 5.0)
    result = pretrain(arguments(text, tmp_path / "best", **steps, max_steps=8, final_weights="best"))
    assert result.metrics["final_weights"] == "best loss, update 2"
    assert steps_of(tmp_path / "best") == [2, 4, 8]
    then = pretrain(arguments(text, tmp_path / "then", max_steps=2, eval_strategy="no", validation_data=[]))
    for name, weight in then.model.state_dict().items():
        assert torch.equal(weight, result.model.state_dict()[name]), name


@pytest.mark.parametrize(("broken", "said"), [("model.safetensors", "has 1 bytes"), ("", "no such folder")])
def test_a_best_checkpoint_that_is_damaged_is_named_and_not_loaded(broken, said, text, tmp_path, monkeypatch, capsys):
    def scores(self, *args, **kwargs):
        if self.state.global_step == 2:
            best = tmp_path / "checkpoint-1"
            (best / broken).write_bytes(b"x") if broken else shutil.rmtree(best)
        return {"loss": float(self.state.global_step)}

    monkeypatch.setattr(VanillaTransformerTrainer, "scores", scores)
    steps = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    assert main(flags(options(text, tmp_path, **steps, final_weights="best"))) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert f"{tmp_path / 'checkpoint-1'}, the best, cannot be loaded: " in line
    assert said in line
    assert "--resume_from_checkpoint last --final_weights last" in line
    monkeypatch.undo()
    resumed = {**steps, "resume_from_checkpoint": "last", "final_weights": "last"}
    assert pretrain(arguments(text, tmp_path, **resumed)).metrics["final_weights"] == "last update"


def test_the_last_checkpoint_stays_where_one_is_kept_and_another_is_the_best(text, tmp_path, monkeypatch):
    steps = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    with_losses(monkeypatch, 1.0, 2.0, 3.0, 3.0, 3.0, 3.0)
    averaged = {"final_weights": "average", "average_last": 1, "save_total_limit": 1}
    result = pretrain(arguments(text, tmp_path, **steps, **averaged, max_steps=6))
    assert steps_of(tmp_path) == [2, 6]
    for name, weight in load_file(tmp_path / "checkpoint-6" / "model.safetensors").items():
        assert torch.equal(weight, result.model.state_dict()[name]), name


def test_the_log_of_a_run_that_saves_the_best_is_whole_when_it_is_resumed(text, tmp_path, monkeypatch):
    steps = {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "best", "logging_steps": 4}
    with_losses(monkeypatch, 3.0, 2.0, 3.0, 2.0)
    pretrain(arguments(text, tmp_path / "whole", **steps, max_steps=6))
    pretrain(arguments(text, tmp_path / "resumed", **steps, max_steps=3))
    pretrain(arguments(text, tmp_path / "resumed", **steps, max_steps=6, resume_from_checkpoint="last"))
    assert_same_end(tmp_path / "whole", tmp_path / "resumed")


def test_a_resumed_run_is_not_evaluated_at_its_start_once_more(text, tmp_path, monkeypatch):
    """The evaluation would find what the last one found, which is no better, and use up patience."""
    steps = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    values = {**steps, "eval_on_start": True, "early_stopping_patience": 1}
    with_losses(monkeypatch, 9.0, 3.0, 2.0, 1.0)
    pretrain(arguments(text, tmp_path, **values, max_steps=2))
    args = arguments(text, tmp_path, **values, max_steps=3, resume_from_checkpoint="last")
    found = [(entry["step"], entry["eval_loss"]) for entry in pretrain(args).history if "eval_loss" in entry]
    assert found == [(0, 9.0), (1, 3.0), (2, 2.0), (3, 1.0)]
    assert args.eval_on_start
