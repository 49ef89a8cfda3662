"""Scores of the trainer: of one set or several, of predictions, and the same for any number of processes."""

import math
from types import SimpleNamespace

import pytest
import torch
from sacrebleu.metrics import BLEU
from training_runs import arguments, write_text

from hf_vanilla_transformer.evaluation import PhoneErrorRate, WordErrorRate
from hf_vanilla_transformer.inference import Translation
from hf_vanilla_transformer.training import prepare
from hf_vanilla_transformer.training.run import _trainer
from hf_vanilla_transformer.training.validation import ValidationScores, validation_scores


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def trainer(text, tmp_path_factory):
    return _trainer(prepare(arguments(text, tmp_path_factory.mktemp("run"))), arguments(text, text / "run"))


def test_the_loss_is_the_mean_over_tokens_whatever_the_batches(trainer):
    rows, model = trainer.eval_dataset, trainer.model.eval()
    nll = tokens = 0.0
    with torch.no_grad():
        for row in rows:
            labels = torch.tensor([row["labels"]])
            logits = model(
                input_ids=torch.tensor([row["input_ids"]]), attention_mask=torch.ones(1, len(row["input_ids"])),
                labels=labels, return_logits=True,
            ).logits  # fmt: skip
            nll -= float(logits.double().log_softmax(-1).gather(-1, labels[..., None]).sum())
            tokens += labels.numel()
    for batch_tokens in (1, 37, 4096):
        metrics = validation_scores(model, trainer.processing_class, rows, batch_tokens, translations=False).metrics
        assert metrics == {"loss": pytest.approx(nll / tokens), "perplexity": pytest.approx(math.exp(nll / tokens))}


def test_each_of_two_processes_does_a_part_and_both_have_the_whole(trainer, monkeypatch):
    whole = trainer.scores(trainer.eval_dataset)
    parts = {}

    def gather_for(part):
        def gather(items):
            # What this process has, and what the other one had at the same call.
            parts.setdefault(part, []).append(items)
            other = parts.get(1 - part, [])
            number = len(parts[part]) - 1
            return [*items, *(other[number] if number < len(other) else [])]

        return gather

    found = {}
    for part in (0, 1, 0):
        parts.pop(part, None)
        monkeypatch.setattr("hf_vanilla_transformer.training.validation.gather_object", gather_for(part))
        try:
            found[part] = validation_scores(
                trainer.model, trainer.processing_class, trainer.eval_dataset, 4096, (part, 2), num_beams=2
            ).metrics
        except KeyError:
            assert part == 0, "the first time, the other part is not there yet"
    assert found[0] == pytest.approx(whole)
    assert found[1] == pytest.approx(whole)


@pytest.mark.parametrize(("zero_stage", "share"), [(None, (1, 2)), (2, (1, 2)), (3, (0, 1))])
def test_processes_that_divide_a_model_call_it_alike(trainer, monkeypatch, zero_stage, share):
    """DeepSpeed's ZeRO-3 gathers weights at each call, as FSDP: with other batches, one process waits for ever."""
    plugin = None if zero_stage is None else SimpleNamespace(zero_stage=zero_stage)
    accelerator = SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=plugin), unwrap_model=lambda model: model)
    asked = []

    def scores(model, tokenizer, dataset, batch_tokens, share, **options):
        asked.append(share)
        return ValidationScores({"loss": 1.0})

    monkeypatch.setattr(trainer, "accelerator", accelerator)
    for name, value in (("process_index", 1), ("world_size", 2)):
        monkeypatch.setattr(type(trainer.args), name, value)
    monkeypatch.setattr("hf_vanilla_transformer.training.validation.validation_scores", scores)
    trainer.scores(trainer.eval_dataset)
    assert asked == [share]


def test_a_set_without_rows_is_refused(trainer):
    nothing = trainer.eval_dataset.select([])
    for ask in (trainer.evaluate, trainer.predict, trainer.scores):
        with pytest.raises(ValueError, match="the set has no rows"):
            ask(nothing)


def test_several_sets_are_told_apart_by_name(trainer):
    rows = trainer.eval_dataset
    sets = {"all": rows, "some": rows.select(range(2))}
    metrics = trainer.evaluate(sets)
    assert metrics["eval_all_loss"] == pytest.approx(trainer.evaluate(rows)["eval_loss"])
    assert metrics["eval_some_bleu"] == pytest.approx(trainer.evaluate(sets["some"])["eval_bleu"])


def test_predictions_are_token_ids_of_the_translations_that_are_scored(trainer):
    rows, tokenizer = trainer.eval_dataset, trainer.processing_class
    found = trainer.predict(rows)
    assert found.predictions.shape[0] == found.label_ids.shape[0] == len(rows)
    texts = tokenizer.batch_decode(found.predictions, skip_special_tokens=True)
    expected = BLEU().corpus_score(texts, [rows["target"]]).score
    assert found.metrics["test_bleu"] == pytest.approx(expected)
    assert found.metrics["test_loss"] == pytest.approx(trainer.evaluate(rows)["eval_loss"])
    for row, labels in zip(rows, found.label_ids):
        assert labels[labels != -100].tolist() == row["labels"]
    with pytest.raises(ValueError, match="no source and no target"):
        trainer.predict(rows.remove_columns(["source", "target"]))


def test_pronunciations_are_scored_by_error_rates_and_those_asked_for_only(trainer, monkeypatch):
    rows, tokenizer = trainer.eval_dataset, trainer.processing_class
    monkeypatch.setattr(trainer.args, "validation_metrics", ["wer", "per"])
    found = trainer.predict(rows)
    texts = tokenizer.batch_decode(found.predictions, skip_special_tokens=True)
    metrics = trainer.evaluate(rows)
    assert [name for name in metrics if name.startswith("eval")] == [
        f"eval_{name}" for name in ("loss", "perplexity", "wer", "per", "runtime")
    ]
    for name, metric in {"wer": WordErrorRate(), "per": PhoneErrorRate()}.items():
        assert metrics[f"eval_{name}"] == pytest.approx(metric.corpus_score(texts, [rows["target"]]).score)
        assert trainer.score_signatures[name] == str(metric.get_signature())


def test_section_6_1_the_length_penalty_of_the_arguments_counts_unless_a_call_says_another(trainer, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "hf_vanilla_transformer.training.validation.translate_with_details",
        lambda model, tokenizer, sources, **options: seen.append(options) or [[Translation("a")] for _ in sources],
    )
    for given, call in [
        (None, {}),
        (1.4, {}),
        (1.4, {"gnmt_length_penalty": 0.2}),
        (1.4, {"length_penalty": 2.0}),
        (0.0, {"num_beams": 5}),
    ]:
        monkeypatch.setattr(trainer.args, "gnmt_length_penalty", given)
        trainer.scores(trainer.eval_dataset, **call)
    names = ("num_beams", "gnmt_length_penalty", "length_penalty")
    assert [tuple(options.get(name, "-") for name in names) for options in seen] == [
        (2, "-", "-"),
        (2, 1.4, "-"),
        (2, 0.2, "-"),
        (2, "-", 2.0),
        (5, 0.0, "-"),
    ]


def test_without_metrics_of_translations_nothing_is_translated(trainer, monkeypatch):
    expected = trainer.scores(trainer.eval_dataset)
    monkeypatch.setattr(trainer.args, "validation_metrics", [])
    predicted = trainer.predict(trainer.eval_dataset).predictions
    monkeypatch.setattr("hf_vanilla_transformer.training.validation.translate_with_details", None)
    found = trainer.scores(trainer.eval_dataset)
    assert found == {name: pytest.approx(expected[name]) for name in ("loss", "perplexity")}
    assert len(predicted) == len(trainer.eval_dataset)  # those are wanted for themselves


def test_the_mode_of_every_part_is_left_as_it_was(trainer):
    trainer.model.train()
    trainer.model.model.encoder.eval()
    before = [part.training for part in trainer.model.modules()]
    trainer.scores(trainer.eval_dataset, translations=False)
    assert [part.training for part in trainer.model.modules()] == before
