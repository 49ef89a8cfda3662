"""What holds for every sentence, batch and padding, whatever the weights: causality, masks, batches, accumulation."""

import copy
import functools
import itertools
import logging
from typing import Any

import pytest
import torch
import variants
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import assert_near, random_lengths, randomise
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.encoder import derive_attention_mask

V = 20
START, PAD, EOS = 0, 1, 2
FIRST_WORD = 4
LONGEST = 24


@functools.cache
def build_model(
    position_encoding: str = "sinusoidal",
    norm_position: str = "post",
    attention: str = "sdpa",
    label_smoothing: float = 0.1,
    dtype: torch.dtype = torch.float64,
) -> VanillaTransformerForConditionalGeneration:
    """A small model with random weights throughout; cached, so no test may change it."""
    fields: dict[str, Any] = {"norm_position": norm_position, "position_encoding": position_encoding}
    if position_encoding == "learned":
        fields["max_position_embeddings"] = LONGEST
    if position_encoding in variants.VARIANTS:  # a variant is named by itself
        fields = dict(variants.VARIANTS[position_encoding])
    config = VanillaTransformerConfig(
        vocab_size=V,
        d_model=16,
        num_heads=4,
        d_k=fields.pop("d_k", 6),
        d_v=fields.pop("d_v", 3),
        d_ff=24,
        num_encoder_layers=2,
        num_decoder_layers=2,
        dropout=0.0,
        label_smoothing=label_smoothing,
        attention_bias=True,
        **fields,
    )
    config._attn_implementation = attention
    model = VanillaTransformerForConditionalGeneration(config)
    randomise(model, seed=0)
    return model.to(dtype).eval()


VARIANTS = list(itertools.product(["sinusoidal", "learned", "none"], ["post", "pre"], ["eager", "sdpa"]))
IN_EAGER = {name for name, fields in variants.VARIANTS.items() if fields.get("position_encoding") == "shaw_relative"}
VARIANTS += [(name, "-", "eager" if name in IN_EAGER else "sdpa") for name in variants.VARIANTS]
QUICK = {"rotary", "t5_grouped", "many"}  # the others take two minutes together, and hold what these do
every_variant = pytest.mark.parametrize(
    "variant",
    [
        pytest.param(each, marks=pytest.mark.slow if each[0] in variants.VARIANTS and each[0] not in QUICK else ())
        for each in VARIANTS
    ],
    ids="-".join,
)
seeds = st.integers(0, 2**31)
# A hidden position has a weight of exactly zero, so that what is edited there cannot even change the rounding. Batches
# of other shapes may be summed in another order; there float64 leaves no room above 1e-12.
some_examples = settings(max_examples=5)


def random_sentences(count: int, longest: int, generator: torch.Generator) -> list[torch.Tensor]:
    """Words, without any special token, of random lengths; the first sentence is the longest."""
    return [
        torch.randint(FIRST_WORD, V, (length,), generator=generator)
        for length in random_lengths(count, longest, generator)
    ]


def pad(sentences: list[torch.Tensor], side: str, more: int = 0, value: int = PAD) -> torch.Tensor:
    """A batch (B, longest + `more`), padded on the given side."""
    padded = pad_sequence(sentences, batch_first=True, padding_value=value, padding_side=side)
    return nn.functional.pad(padded, (more, 0) if side == "left" else (0, more), value=value)


def mask_of(sentences: list[torch.Tensor], side: str, more: int = 0) -> torch.Tensor:
    return pad([torch.ones_like(sentence) for sentence in sentences], side, more, value=0)


def other_words(ids: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """For each token another one, special tokens included."""
    return (ids + torch.randint(1, V, ids.shape, generator=generator)) % V


@every_variant
@some_examples
@given(seed=seeds, length=st.integers(2, 9), data=st.data())
@torch.no_grad()
def test_a_future_target_token_changes_nothing_before_it(variant, seed, length, data):
    model = build_model(*variant, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(FIRST_WORD, V, (2, 6), generator=generator)
    target = torch.randint(V, (2, length), generator=generator)
    first, last = sorted(data.draw(st.tuples(st.integers(1, length - 1), st.integers(1, length - 1)), "edited span"))
    edited = target.clone()
    edited[:, first : last + 1] = other_words(target[:, first : last + 1], generator)

    logits, edited_logits = (model(input_ids=source, decoder_input_ids=ids).logits for ids in (target, edited))
    assert_near(edited_logits[:, :first], logits[:, :first], 0.0, "logits before the edit")
    changed = (edited_logits - logits).abs().amax(dim=-1) > 1e-4
    assert changed[:, first].all(), "the edited token itself must be seen"


@every_variant
@some_examples
@given(seed=seeds)
@torch.no_grad()
def test_the_ids_under_a_source_mask_change_nothing(variant, seed):
    model = build_model(*variant, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(V, (3, 7), generator=generator)
    target = torch.randint(V, (3, 5), generator=generator)
    mask = torch.rand(source.shape, generator=generator) < 0.5  # left, right, in between
    mask[:, 3] = True
    edited = torch.where(mask, source, other_words(source, generator))

    before, after = (model(input_ids=ids, attention_mask=mask, decoder_input_ids=target) for ids in (source, edited))
    assert_near(after.encoder_last_hidden_state[mask], before.encoder_last_hidden_state[mask], 0.0, "encoder output")
    assert_near(after.logits, before.logits, 0.0, "logits")


@every_variant
@some_examples
@given(seed=seeds, side=st.sampled_from(["left", "right"]))
@torch.no_grad()
def test_the_ids_under_a_target_mask_change_nothing(variant, seed, side):
    model = build_model(*variant, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(FIRST_WORD, V, (3, 6), generator=generator)
    targets = random_sentences(3, 6, generator)
    target, mask = pad(targets, side, more=2), mask_of(targets, side, more=2)
    edited = torch.where(mask.bool(), target, other_words(target, generator))

    before, after = (
        model(input_ids=source, decoder_input_ids=ids, decoder_attention_mask=mask).logits for ids in (target, edited)
    )
    assert_near(after[mask.bool()], before[mask.bool()], 0.0, "logits of the tokens")


@every_variant
@pytest.mark.parametrize("given_mask", [True, False], ids=["mask-given", "mask-derived"])
@some_examples
@given(
    seed=seeds,
    source_side=st.sampled_from(["left", "right"]),
    target_side=st.sampled_from(["left", "right"]),
    more=st.integers(0, 5),
)
@torch.no_grad()
def test_a_sentence_alone_equals_itself_in_any_batch(variant, given_mask, seed, source_side, target_side, more):
    model = build_model(*variant)
    generator = torch.Generator().manual_seed(seed)
    sources, targets = random_sentences(4, 8, generator), random_sentences(4, 7, generator)[::-1]
    target_mask = mask_of(targets, target_side, more)
    batch = model(
        input_ids=pad(sources, source_side, more),
        attention_mask=mask_of(sources, source_side, more) if given_mask else None,
        decoder_input_ids=pad(targets, target_side, more),
        # Padding on the right needs no mask: no token looks that way.
        decoder_attention_mask=target_mask if target_side == "left" else None,
    )
    source_mask = mask_of(sources, source_side, more).bool()
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        alone = model(input_ids=source[None], decoder_input_ids=target[None])
        encoded = batch.encoder_last_hidden_state[row, source_mask[row]]
        assert_near(encoded, alone.encoder_last_hidden_state[0], 1e-12, f"encoder output of sentence {row}")
        assert_near(batch.logits[row, target_mask[row].bool()], alone.logits[0], 1e-12, f"logits of sentence {row}")


@every_variant
@some_examples
@given(seed=seeds)
@torch.no_grad()
def test_left_padded_targets_decoded_step_by_step_equal_the_sentences_alone(variant, seed):
    model = build_model(*variant)
    generator = torch.Generator().manual_seed(seed)
    sources, targets = random_sentences(3, 6, generator), random_sentences(3, 6, generator)[::-1]
    target, mask = pad(targets, "left"), mask_of(targets, "left")
    cache, steps = None, []
    for end in range(1, target.shape[1] + 1):
        outputs = model(
            input_ids=pad(sources, "left"),
            attention_mask=mask_of(sources, "left"),
            decoder_input_ids=target[:, end - 1 : end],
            decoder_attention_mask=mask[:, :end],
            past_key_values=cache,
            use_cache=True,
        )
        cache = outputs.past_key_values
        steps.append(outputs.logits)
    logits = torch.cat(steps, dim=1)
    for row, (source, sentence) in enumerate(zip(sources, targets, strict=True)):
        alone = model(input_ids=source[None], decoder_input_ids=sentence[None]).logits[0]
        assert_near(logits[row, mask[row].bool()], alone, 1e-12, f"logits of sentence {row}")


@every_variant
@some_examples
@given(seed=seeds)
@torch.no_grad()
def test_permuting_the_batch_permutes_the_output(variant, seed):
    model = build_model(*variant)
    generator = torch.Generator().manual_seed(seed)
    sources, targets = random_sentences(5, 7, generator), random_sentences(5, 6, generator)
    batch = {
        "input_ids": pad(sources, "left"),
        "attention_mask": mask_of(sources, "left"),
        "decoder_input_ids": pad(targets, "right"),
    }
    order = torch.randperm(5, generator=generator)
    permuted = model(**{name: tensor[order] for name, tensor in batch.items()}).logits
    assert_near(permuted, model(**batch).logits[order], 1e-12, "logits")


# An untrained model repeats itself for ever. Forbidden to use a token twice, it wanders, and ends at some point.
WANDERING = {"no_repeat_ngram_size": 1, "suppress_tokens": [PAD], "max_new_tokens": 10, "length_penalty": 1.0}


def until_end(ids: torch.Tensor) -> list[int]:
    """What was generated, without the padding that follows the end."""
    tokens = ids.tolist()
    return tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens


def generation_batch(seed: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Four sources, and four beginnings of their targets: the start token and up to five words; one has them all."""
    generator = torch.Generator().manual_seed(seed)
    prompts = [torch.cat([torch.tensor([START]), words]) for words in random_sentences(4, 5, generator)]
    return random_sentences(4, 8, generator), prompts[::-1]


@every_variant
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_generation_from_left_padded_prompts_equals_each_sentence_alone(variant, cache, num_beams):
    if cache == "static" and "attention" in variants.VARIANTS.get(variant[0], {}):
        pytest.skip("sums have a constant size by themselves")
    model = build_model(*variant)
    sources, prompts = generation_batch(seed=VARIANTS.index(variant))
    options = {**WANDERING, "num_beams": num_beams}
    prompt_mask = mask_of(prompts, "left")
    generated = model.generate(
        pad(sources, "left"),
        attention_mask=mask_of(sources, "left"),
        decoder_input_ids=pad(prompts, "left"),
        decoder_attention_mask=prompt_mask,
        cache_implementation=cache,
        **options,
    )
    continuations = [until_end(row[prompt_mask.shape[1] :]) for row in generated]
    for source, prompt, continuation in zip(sources, prompts, continuations, strict=True):
        # In a batch each token used up so far is banned, the padding too, which is banned alone as well.
        alone = model.generate(source[None], decoder_input_ids=prompt[None], **options)[0, len(prompt) :]
        assert continuation == until_end(alone)
    assert len(set(map(tuple, continuations))) > 1, "four times the same would say little"


@pytest.mark.parametrize("num_beams", [1, 4])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_generation_derives_the_mask_that_was_left_out(attention, side, num_beams):
    model = build_model(attention=attention)
    sources = random_sentences(5, 8, torch.Generator().manual_seed(3))
    source, mask = pad(sources, side), mask_of(sources, side)
    with_mask = model.generate(source, attention_mask=mask, num_beams=num_beams, **WANDERING)
    assert torch.equal(model.generate(source, num_beams=num_beams, **WANDERING), with_mask)
    nothing_hidden = model.generate(source, attention_mask=torch.ones_like(mask), num_beams=num_beams, **WANDERING)
    assert not torch.equal(nothing_hidden, with_mask), "the mask must matter here, or the equality says nothing"


@pytest.fixture
def warnings_anew(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Collects warnings, also those that this process gave before and would not give again."""
    logging.Logger.warning_once.cache_clear()
    return caplog


def mask_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if "attention_mask" in message]


def test_a_derived_mask_is_warned_about_once(warnings_anew):
    model = build_model()
    source = pad(random_sentences(3, 5, torch.Generator().manual_seed(0)), "right", more=1)
    for _ in range(2):
        model(input_ids=source, decoder_input_ids=source)
        model.model.encoder(input_ids=source)
        model.generate(source, max_new_tokens=2)
    (warning,) = mask_warnings(warnings_anew)
    assert f"`pad_token_id`={PAD}" in warning


def test_a_given_mask_is_kept_without_a_warning_even_if_it_hides_nothing(warnings_anew):
    model = build_model()
    source = pad(random_sentences(3, 5, torch.Generator().manual_seed(0)), "right", more=1)
    mask = torch.ones_like(source)
    assert derive_attention_mask(source, mask, PAD) is mask
    model(input_ids=source, attention_mask=mask, decoder_input_ids=source)
    model.generate(source, attention_mask=mask, max_new_tokens=2)
    assert not mask_warnings(warnings_anew)


def test_no_mask_is_derived_where_there_is_no_padding(warnings_anew):
    model = build_model()
    source = torch.randint(FIRST_WORD, V, (2, 5), generator=torch.Generator().manual_seed(0))
    assert derive_attention_mask(source, None, PAD) is None
    assert derive_attention_mask(pad([source[0], source[1, :2]], "right"), None, None) is None  # no <pad> to look for
    assert derive_attention_mask(None, None, PAD) is None
    model(input_ids=source, decoder_input_ids=source)
    model.generate(source, max_new_tokens=2)
    assert not mask_warnings(warnings_anew)


def gradients(model: nn.Module, batches: list[dict[str, torch.Tensor]], num_items: int | torch.Tensor | None):
    """The gradients that add up over `batches`, and the sum of their losses."""
    model.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for batch in batches:
        loss = model(**batch, num_items_in_batch=num_items).loss
        loss.backward()
        total += loss.detach()
    return total, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def training_pairs(count: int, seed: int, without_labels: tuple[int, ...] = ()) -> list[dict[str, torch.Tensor]]:
    """Sentences of unequal lengths; some labels within the targets, and all labels of some targets, are ignored."""
    generator = torch.Generator().manual_seed(seed)
    sources, targets = random_sentences(count, 8, generator), random_sentences(count, 9, generator)[::-1]
    for index, target in enumerate(targets):
        target[torch.rand(target.shape, generator=generator) < 0.2] = -100
        target[-1] = EOS
        if index in without_labels:
            target[:] = -100
    return [{"input_ids": source, "labels": target} for source, target in zip(sources, targets, strict=True)]


def collate(pairs: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Pads only as far as these pairs need it, as training does."""
    sources = [torch.as_tensor(pair["input_ids"]) for pair in pairs]
    labels = [torch.as_tensor(pair["labels"]) for pair in pairs]
    return {
        "input_ids": pad(sources, "right"),
        "attention_mask": mask_of(sources, "right"),
        "labels": pad(labels, "right", value=-100),
    }


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    "without_labels", [(), (2, 3), (0,)], ids=["labels-everywhere", "batch-without", "row-without"]
)
@pytest.mark.parametrize("kind_of_count", [int, torch.tensor], ids=["int", "tensor"])
def test_micro_batches_add_up_to_the_gradients_of_one_big_batch(label_smoothing, without_labels, kind_of_count):
    model = copy.deepcopy(build_model(label_smoothing=label_smoothing)).train()
    pairs = training_pairs(8, seed=1, without_labels=without_labels)
    whole, parts = collate(pairs), [collate(pairs[start : start + 2]) for start in range(0, 8, 2)]
    counts = [int(part["labels"].ne(-100).sum()) for part in parts]
    assert len(set(counts)) > 1

    loss, expected = gradients(model, [whole], None)
    summed_loss, summed = gradients(model, parts, kind_of_count(sum(counts)))
    assert_near(summed_loss, loss, 1e-12, "loss")
    for name, gradient in expected.items():
        assert_near(summed[name], gradient, 1e-12, f"gradient of {name}")

    logits = model(**whole, return_logits=True).logits.flatten(0, 1)
    reference = nn.functional.cross_entropy(logits, whole["labels"].flatten(), label_smoothing=label_smoothing)
    assert_near(loss, reference, 1e-12, "loss against torch's")


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_trainer_takes_the_same_steps_with_and_without_accumulation(label_smoothing, tmp_path):
    pairs = [
        {name: ids.tolist() for name, ids in pair.items()} for pair in training_pairs(16, seed=2, without_labels=(5,))
    ]
    weights, losses = {}, {}
    for accumulation in (1, 4):
        model = copy.deepcopy(build_model(label_smoothing=label_smoothing)).float()
        arguments = Seq2SeqTrainingArguments(
            output_dir=str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=8 // accumulation,
            gradient_accumulation_steps=accumulation,
            optim="sgd",
            learning_rate=0.5,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            seed=0,
        )
        trainer = Seq2SeqTrainer(model=model, args=arguments, train_dataset=pairs, data_collator=collate)
        trainer.train()
        weights[accumulation] = {name: parameter.detach() for name, parameter in model.named_parameters()}
        losses[accumulation] = torch.tensor([log["loss"] for log in trainer.state.log_history if "loss" in log])
    start = dict(build_model(label_smoothing=label_smoothing).named_parameters())
    for name, expected in weights[1].items():
        # The trained weights are float32, and the two ways of adding up round differently.
        assert_near(weights[4][name], expected, 1e-6, name)
        assert (expected - start[name].float()).abs().max() > 1e-4 or name.endswith("k_proj.bias"), (
            f"{name} stood still"
        )
    assert losses[1].numel() == 2
    assert_near(losses[4], losses[1], 1e-6, "logged losses")
