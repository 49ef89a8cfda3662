"""A run that learns from trained models: their share of the loss, the same when resumed, and misfits by name."""

import json
import shutil

import pytest
import torch
from torch.nn import functional as F
from training_runs import SHAPE, arguments, flags, options, write_text

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.data.tokenization import save_tokenizer
from hf_vanilla_transformer.training import parse_arguments, prepare, train
from hf_vanilla_transformer.training.checkpoints import list_checkpoints
from hf_vanilla_transformer.training.run import _trainer


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def tokenizer(text):
    rows = [json.loads(line)["translation"] for line in (text / "train.jsonl").read_text().splitlines()]
    texts = [side for row in rows for side in row.values()]
    return train_tokenizer(texts=texts, vocab_size=300, min_frequency=1)


def saved(folder, tokenizer, seed, **changes):
    torch.manual_seed(seed)
    model = VanillaTransformerForConditionalGeneration(
        VanillaTransformerConfig(vocab_size=len(tokenizer), **{**SHAPE, **changes})
    )
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return model.eval()


@pytest.fixture(scope="module")
def teachers(tmp_path_factory, tokenizer):
    """Folders of two teachers, one of another width, and their models."""
    folder = tmp_path_factory.mktemp("teachers")
    models = [saved(folder / "one", tokenizer, 1), saved(folder / "two", tokenizer, 2, d_model=24, norm_position="pre")]
    return [str(folder / "one"), str(folder / "two")], models


@pytest.mark.parametrize("r_drop", [0.0, 1.0])
def test_the_share_of_the_teachers_is_their_mean_predictions_without_dropout(r_drop, text, teachers, tmp_path):
    folders, models = teachers
    overrides = [f"{name}={value}" for name, value in {**SHAPE, "dropout": 0.0}.items()]
    args = arguments(text, tmp_path, distill_from=folders, distill_share=0.4, r_drop=r_drop, config_overrides=overrides)
    trainer = _trainer(prepare(args), args)
    batch = next(iter(trainer.get_train_dataloader()))
    batch.pop("index")
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, dict(batch))
    labels, model = batch["labels"], trainer.model
    is_label = labels != -100
    with torch.no_grad():
        logits = model.eval()(**batch).logits[is_label]
        q = sum(teacher(**batch).logits.softmax(-1)[is_label] for teacher in models) / 2
    hard = F.cross_entropy(logits, labels[is_label], label_smoothing=model.config.label_smoothing)
    torch.testing.assert_close(loss, 0.6 * hard + 0.4 * F.cross_entropy(logits, q))
    loss.backward()
    assert all(weight.grad is None for teacher in trainer.teachers.models for weight in teacher.parameters())
    assert not any(teacher.training for teacher in trainer.teachers.models)


def test_validation_knows_no_teachers(text, teachers, tmp_path):
    losses = []
    for name, more in (("with", {"distill_from": teachers[0]}), ("without", {})):
        args = arguments(
            text, tmp_path / name, max_steps=1, learning_rate=0.0, tokenizer_name_or_path=teachers[0][0], **more
        )
        losses.append(train(prepare(args), args).metrics["final_loss"])
    assert losses[0] == losses[1]


def test_a_resumed_run_equals_a_whole_one_and_refuses_a_teacher_that_has_changed(text, teachers, tokenizer, tmp_path):
    folder = tmp_path / "teacher"
    saved(folder, tokenizer, 3)
    more = {
        "distill_from": [str(folder)],
        "save_strategy": "steps",
        "save_steps": 2,
        "max_steps": 4,
        "bpe_dropout": 0.2,
    }
    args = arguments(text, tmp_path / "whole", **more)
    whole = train(prepare(args), args)
    args = arguments(text, tmp_path / "resumed", **more)
    train(prepare(args), args)
    *_, last = list_checkpoints(tmp_path / "resumed")
    for path in (tmp_path / "resumed").glob("*.*"):
        if path.is_file():
            path.unlink()
    shutil.rmtree(last)
    decoding = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**decoding, "num_beams": 7}))  # as `tune --save`
    args = arguments(text, tmp_path / "resumed", **more, resume_from_checkpoint="last")
    resumed = train(prepare(args), args)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    saved(folder, tokenizer, 4)
    shutil.rmtree(list_checkpoints(tmp_path / "resumed")[-1])
    with pytest.raises(ValueError, match="distill_from was"):
        prepare(arguments(text, tmp_path / "resumed", **more, resume_from_checkpoint="last"))


def test_without_a_tokenizer_the_run_takes_that_of_its_first_teacher(text, teachers, tokenizer, tmp_path):
    run = prepare(arguments(text, tmp_path, distill_from=teachers[0]))
    assert run.text.tokenizer.get_vocab() == tokenizer.get_vocab()


def test_a_teacher_of_another_vocabulary_is_refused_by_name(text, teachers, tmp_path):
    other = train_tokenizer(texts=["something else"], vocab_size=280, min_frequency=1)
    saved(tmp_path / "other", other, 5)
    args = arguments(text, tmp_path / "run", distill_from=[*teachers[0], str(tmp_path / "other")])
    with pytest.raises(ValueError, match=r"distill_from=.*other has another vocabulary"):
        prepare(args)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distill_share": 0.0}, "distill_share=0.0 is not a number above 0 and up to 1"),
        ({"distill_share": 1.5}, "distill_share=1.5 is not a number above 0 and up to 1"),
        ({"objective": "masked_lm"}, "distill_from=runs/any is for models with two stacks; masked_lm trains a Van"),
        (
            {"source_units": "characters", "target_units": "words"},
            "has no effect on the tokenizer of runs/any, which is trained",
        ),
    ],
)
def test_what_does_not_go_with_teachers_is_refused(changes, message, text, tmp_path):
    with pytest.raises(ValueError, match=message):
        arguments(text, tmp_path, distill_from=["runs/any"], **changes)


def test_a_teacher_with_other_spare_rows_is_refused_and_one_with_the_same_taken(text, teachers, tokenizer, tmp_path):
    rows = len(tokenizer) + 3
    folder = tmp_path / "spare"
    model = saved(folder, tokenizer, 6)
    model.resize_token_embeddings(rows)
    model.save_pretrained(folder)
    args = arguments(text, tmp_path / "run", distill_from=[str(folder)])
    with pytest.raises(ValueError, match=f"predicts {rows} tokens, spare ones included, and the model of the run"):
        prepare(args)
    overrides = [f"{name}={value}" for name, value in {**SHAPE, "vocab_size": rows}.items()]
    prepare(arguments(text, tmp_path / "run", distill_from=[str(folder)], config_overrides=overrides))


def test_no_text_is_longer_than_a_teacher_has_positions(text, tokenizer, tmp_path):
    saved(tmp_path / "short", tokenizer, 7, position_encoding="learned", num_learned_positions=9)
    run = prepare(arguments(text, tmp_path / "run", distill_from=[str(tmp_path / "short")]))
    lengths = [len(each[side]) for each in run.text.train_set.rows for side in ("input_ids", "labels")]
    assert max(lengths) <= 9
    assert len(lengths) < 160


def test_a_model_of_another_class_does_not_learn_from_teachers(text, teachers, tmp_path):
    name = "hf_vanilla_transformer.lab.recurrent:RecurrentForConditionalGeneration"
    args = arguments(
        text, tmp_path, distill_from=teachers[0], model_class=name, preset="recurrent", config_overrides=[]
    )
    with pytest.raises(ValueError, match=r"is for VanillaTransformerForConditionalGeneration and its subclasses"):
        prepare(args)


def test_a_share_without_teachers_is_refused(text, tmp_path):
    words = flags({**options(text, tmp_path), "distill_share": 0.5})
    with pytest.raises(ValueError, match="distill_share has no effect without distill_from"):
        parse_arguments(words)
