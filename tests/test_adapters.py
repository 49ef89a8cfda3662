"""Adapters in a run of training: what is saved is what was measured, whatever the adapters are of."""

import json
import shutil

import pytest
import torch
from peft import AutoPeftModelForSeq2SeqLM
from safetensors.torch import load_file, save_file
from training_runs import arguments, assert_equal, without_clock, write_text
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.evaluation import label_likelihood
from hf_vanilla_transformer.training import prepare, pretrain, train
from hf_vanilla_transformer.training.adapters import add_adapters, merge_adapters
from hf_vanilla_transformer.training.checkpoints import list_checkpoints
from hf_vanilla_transformer.training.resuming import RunIdentity
from hf_vanilla_transformer.training.run import _trainer

SMALL = {"vocab_size": 40, "d_model": 16, "num_heads": 2, "d_ff": 24, "num_encoder_layers": 2, "num_decoder_layers": 2}
BATCH = {
    "input_ids": torch.tensor([[5, 6, 7, 2], [8, 9, 39, 2]]),
    "attention_mask": torch.ones(2, 4, dtype=torch.long),
    "labels": torch.tensor([[9, 8, 2], [38, 5, 2]]),
}
TAGS = ("<2de>", "<2en>")
LORA = {"lora_rank": 2, "learning_rate": 0.05}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def base(text, tmp_path_factory):
    """The folder of a short run."""
    output_dir = tmp_path_factory.mktemp("base")
    pretrain(arguments(text, output_dir, max_steps=6, eval_strategy="no"))
    return output_dir


def small_model(**fields):
    return VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**SMALL, dropout=0.0, **fields))


def learn(model, steps=20):
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        model.train()(**BATCH).loss.backward()
        optimizer.step()
    return model.eval()


def learning_parts(model):
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize(
    "modules",
    [["q_proj", "embed_tokens"], ["q_proj", "lm_head"], ["embed_tokens", "lm_head"], ["model.decoder.embed_tokens"]],
    ids=" ".join,
)
@pytest.mark.parametrize("tied", [True, False])
def test_the_merged_model_is_the_one_that_was_measured_also_where_embeddings_are_tied(modules, tied, tmp_path):
    model = learn(add_adapters(small_model(tie_word_embeddings=tied), 4, modules))
    inputs = {name: tensor for name, tensor in BATCH.items() if name != "labels"}
    with torch.no_grad():
        logits = model(**BATCH).logits
    translation = model.generate(**inputs, max_new_tokens=6)
    merged = merge_adapters(model)
    merged.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    assert loaded.config.tie_word_embeddings is False
    for each in (merged, loaded):
        with torch.no_grad():
            torch.testing.assert_close(each(**BATCH).logits, logits, rtol=0, atol=1e-5)
        assert torch.equal(each.generate(**inputs, max_new_tokens=6), translation)


def test_adapters_of_other_parts_leave_embeddings_tied(tmp_path):
    merged = merge_adapters(learn(add_adapters(small_model(), 4, ["q_proj", "fc1"])))
    merged.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert loaded.config.tie_word_embeddings is True
    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
    assert loaded.model.decoder.embed_tokens.weight is loaded.get_input_embeddings().weight


@pytest.mark.parametrize("tied", [True, False])
def test_rows_of_new_tokens_learn_alone_and_are_merged_into_every_embedding(tied, tmp_path):
    model = small_model(tie_word_embeddings=tied)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters(remove_duplicate=False)}
    adapted = learn(add_adapters(model, 4, ["q_proj"], new_rows=[38, 39]))
    with torch.no_grad():
        logits = adapted(**BATCH).logits
    merged = merge_adapters(adapted)
    merged.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**BATCH).logits, logits, rtol=0, atol=1e-5)
    assert loaded.config.tie_word_embeddings is tied
    changed = {"model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"}
    for name, weight in loaded.named_parameters(remove_duplicate=False):
        if name in changed:
            assert torch.equal(weight[:38], before[name][:38])
            assert not torch.equal(weight[38:], before[name][38:])
            if tied:
                assert weight is loaded.lm_head.weight
        else:
            assert torch.equal(weight, before[name]) == ("q_proj" not in name), name


def test_frozen_parts_get_no_adapter():
    model = add_adapters(small_model(), 4, ["q_proj"], frozen=["model.encoder", "model.decoder.layers.1"])
    names = learning_parts(model)
    assert names
    assert all("model.decoder.layers.0." in name and "lora_" in name for name in names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modules": ["q_proj", "qproj"]}, "the model has no 'qproj'"),
        ({"modules": ["feed_forward"]}, r"lora_modules: model.\w+.layers.\d.feed_forward is a FeedForward"),
        ({"modules": ["q_proj"], "frozen": ["model"]}, "has all of lora_modules=q_proj: nothing is left"),
        (
            {"modules": ["embed_tokens"], "new_rows": [39]},
            "embed_tokens .*would get an adapter, and rows of",
        ),
    ],
)
def test_what_cannot_be_adapted_is_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as raised:
        add_adapters(small_model(), 4, **arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("r_drop", [0.0, 2.5])
@pytest.mark.parametrize("modules", [["q_proj"], ["embed_tokens", "lm_head"]], ids=" ".join)
def test_the_loss_of_adapters_that_learned_nothing_is_that_of_the_model(r_drop, modules, text, base, tmp_path):
    """Label smoothing, R-Drop's two dropouts and the divergence: equal, and a gradient for adapters alone."""
    losses = []
    for lora in ({}, {"lora_rank": 2, "lora_modules": modules}):
        args = arguments(text, tmp_path, model_name_or_path=str(base), r_drop=r_drop, max_steps=1, **lora)
        trainer = _trainer(prepare(args), args)
        batch = next(iter(trainer.get_train_dataloader()))
        batch.pop("index")
        torch.manual_seed(1)
        losses.append(trainer.compute_loss(trainer.model.train(), batch))
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)
    losses[1].backward()
    with_gradient = {name for name, weight in trainer.model.named_parameters() if weight.grad is not None}
    assert with_gradient == learning_parts(trainer.model)
    assert all("lora_" in name for name in with_gradient)


# Whole runs


def test_a_run_with_adapters_of_embeddings_reports_the_loss_of_the_saved_model(text, base, tmp_path):
    options = {"model_name_or_path": str(base), "lora_modules": ["q_proj", "embed_tokens"], "max_steps": 8, **LORA}
    result = pretrain(arguments(text, tmp_path, **options))
    scored = prepare(arguments(text, tmp_path / "again", model_name_or_path=str(tmp_path), max_steps=1))
    loss = label_likelihood(scored.model.eval(), scored.text.validation_set).nll_per_token
    assert loss == pytest.approx(result.metrics["final_loss"], rel=1e-5)


def test_new_tokens_learn_beside_adapters_and_the_adapter_loads_by_itself(text, base, tmp_path):
    """The two tags begin next to each other, and end as different rows, in all three places."""
    rows = [json.loads(line)["translation"] for line in (text / "train.jsonl").read_text().splitlines()]
    tagged = [{"en": f"{tag} {row['en']}", "de": row["de" if tag == "<2de>" else "en"]} for row in rows for tag in TAGS]
    for name in ("train", "val"):
        lines = "".join(json.dumps({"translation": row}) + "\n" for row in tagged)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    output_dir = tmp_path / "run"
    options = {"model_name_or_path": str(base), "new_tokens": list(TAGS), "max_steps": 8, **LORA}
    args = arguments(tmp_path, output_dir, **options)
    run = prepare(args)
    first, second = (int(each) for each in run.text.tokenizer.convert_tokens_to_ids(list(TAGS)))
    original = VanillaTransformerForConditionalGeneration.from_pretrained(base)
    assert (first, second) == (original.config.vocab_size, original.config.vocab_size + 1)
    wrapped = run.model.get_input_embeddings()
    start = wrapped(torch.tensor([[first, second]])).detach()[0]
    assert not torch.equal(start[0], start[1])
    train(run, args)

    merged = AutoModelForSeq2SeqLM.from_pretrained(output_dir).eval()
    matrix = merged.get_input_embeddings().weight
    assert merged.lm_head.weight is merged.model.decoder.embed_tokens.weight is matrix
    assert torch.equal(matrix[:first], original.get_input_embeddings().weight)
    assert (matrix[first] * 4 - start[0]).norm() > 0.1  # sqrt(d_model)
    assert (matrix[first] - matrix[second]).norm() > 0.1

    tokenizer = AutoTokenizer.from_pretrained(output_dir / "adapter")
    adapter = AutoPeftModelForSeq2SeqLM.from_pretrained(output_dir / "adapter").eval()
    inputs = tokenizer([f"{tag} red dog" for tag in TAGS], return_tensors="pt")
    labels = tokenizer(["DOG RED"] * 2, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = merged(**inputs, labels=labels).logits
        torch.testing.assert_close(adapter(**inputs, labels=labels).logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [pytest.param({}, marks=pytest.mark.slow), {"new_tokens": ["<2de>"]}],  # 3 seconds
    ids=["plain", "new tokens"],
)
def test_a_resumed_run_with_adapters_ends_as_a_whole_one(changes, text, base, tmp_path):
    steps = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2, **changes}
    options = {"model_name_or_path": str(base), **LORA, **steps, "lr_scheduler_type": "constant_with_warmup"}
    pretrain(arguments(text, tmp_path / "whole", **options, max_steps=6))
    pretrain(arguments(text, tmp_path / "stopped", **options, max_steps=4))
    pretrain(arguments(text, tmp_path / "stopped", **options, max_steps=6, resume_from_checkpoint="last"))
    ends = [list_checkpoints(tmp_path / name)[-1] for name in ("whole", "stopped")]
    assert [end.name for end in ends] == ["checkpoint-6"] * 2
    for name in ("adapter_model.safetensors", "../model.safetensors", "../adapter/adapter_model.safetensors"):
        assert_equal(*(load_file(end / name) for end in ends))
    for name in ("optimizer.pt", "scheduler.pt"):
        assert_equal(*(torch.load(end / name, weights_only=True) for end in ends))
    logs = [json.loads((end / "trainer_state.json").read_text())["log_history"] for end in ends]
    assert without_clock(logs[0]) == without_clock(logs[1])


def test_an_adapter_is_not_taken_for_a_model(text, base, tmp_path):
    options = {"model_name_or_path": str(base), "max_steps": 1, "eval_strategy": "no", **LORA}
    pretrain(arguments(text, tmp_path, **options))
    for folder in (tmp_path / "adapter", list_checkpoints(tmp_path)[-1]):
        with pytest.raises(ValueError, match="is an adapter without its model; go on with.*resume_from_checkpoint$"):
            prepare(arguments(text, tmp_path / "more", **{**options, "model_name_or_path": str(folder)}))


def test_adapters_are_not_resumed_on_a_model_that_has_changed(text, base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "base")
    args = arguments(text, tmp_path / "run", model_name_or_path=str(folder), **LORA)
    RunIdentity.of(args).write(tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"num_beams": 7}))  # as `tune --save`
    RunIdentity.of(args).resumed_from(tmp_path)
    weights = load_file(folder / "model.safetensors")
    save_file({name: weight + 1 for name, weight in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="the model of model_name_or_path was '"):
        RunIdentity.of(args).resumed_from(tmp_path)


def test_a_run_is_not_resumed_with_other_adapters(text, base, tmp_path):
    options = {"model_name_or_path": str(base), "max_steps": 1, "eval_strategy": "no", **LORA}
    pretrain(arguments(text, tmp_path, **options))
    resumed = {**options, "resume_from_checkpoint": "last"}
    for changes, message in (
        ({"lora_rank": 0}, "has adapters, and this run has no lora_rank"),
        ({"lora_rank": 3}, "another lora_rank .r 2, now 3."),
        (
            {"lora_modules": ["q_proj"]},
            r"another lora_modules .target_modules \['q_proj', 'v_proj'\], now \['q_proj'\]",
        ),
        ({"frozen_modules": ["model.encoder.layers"]}, "another frozen_modules"),
    ):
        with pytest.raises(ValueError, match=message) as raised:
            prepare(arguments(text, tmp_path, **{**resumed, **changes}))
        assert "\n" not in str(raised.value)
    plain = {"model_name_or_path": str(base), "max_steps": 1, "eval_strategy": "no"}
    pretrain(arguments(text, tmp_path / "plain", **plain))
    with pytest.raises(ValueError, match="has no adapters, and this run has lora_rank"):
        prepare(arguments(text, tmp_path / "plain", **plain, **LORA, resume_from_checkpoint="last"))
