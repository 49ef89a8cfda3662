"""Frames and patches as source: the projection, the shortened mask everywhere, and the contract of transformers."""

import io
import itertools
import os
import re
import subprocess
import sys

import checkpointing
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from parity import randomise
from test_remote_code import PACKAGE_IS_MISSING
from torch.export import Dim, export
from torch.nn import functional as F
from transformers import (
    AutomaticSpeechRecognitionPipeline,
    AutoModel,
    AutoModelForSeq2SeqLM,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Speech2TextFeatureExtractor,
)

from hf_vanilla_transformer import (
    TranslationPipeline,
    VanillaTransformerConfig,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerModel,
)
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.decoding_beam_search import gnmt_length_penalty
from hf_vanilla_transformer.decoding_incremental import IncrementalDecoder, can_share_rows
from hf_vanilla_transformer.encoder import Encoder
from hf_vanilla_transformer.inference import load_translator
from hf_vanilla_transformer.interop.torch_export import exported_programs
from hf_vanilla_transformer.lab.run_plan import plan_run
from hf_vanilla_transformer.publishing import save_self_contained
from hf_vanilla_transformer.source_inputs import FrameEncoder, PatchEncoder, cut_patches, stacked_frames
from hf_vanilla_transformer.translation_scoring import forced_log_probs

VOCAB_SIZE, START, PAD, EOS = 7, 0, 1, 2
FRAMES = {"source_kind": "frames", "source_width": 3, "source_stride": 2}
PATCHES = {"source_kind": "patches", "source_width": 2, "source_stride": 4}
KINDS = pytest.mark.parametrize("kind", [FRAMES, PATCHES], ids=["frames", "patches"])


def build(kind, cls=VanillaTransformerForConditionalGeneration, **fields):
    shape = {"d_model": 16, "num_heads": 2, "d_ff": 24, "num_encoder_layers": 1, "num_decoder_layers": 1}
    model = cls(VanillaTransformerConfig(**{"vocab_size": VOCAB_SIZE, **shape, **kind, **fields})).eval()
    randomise(model, seed=0)
    return model


def source(kind, rows=3, seed=0):
    """Sources of several lengths, with numbers in their padding that nobody may read."""
    generator = torch.Generator().manual_seed(seed)
    if kind is PATCHES:  # 2 x 3 patches, all of them there
        return {"pixel_values": torch.randn(rows, 2, 8, 12, generator=generator)}
    features, mask = torch.randn(rows, 9, 3, generator=generator), torch.ones(rows, 9, dtype=torch.long)
    for row in range(1, rows):
        mask[row, 9 - 3 * row :] = 0
    return {"input_features": features.masked_fill(mask.unsqueeze(-1) == 0, torch.nan), "attention_mask": mask}


def row_of(inputs, row):
    """One source, without its padding."""
    if "attention_mask" not in inputs:
        return {name: each[row : row + 1] for name, each in inputs.items()}
    length = int(inputs["attention_mask"][row].sum())
    return {name: each[row : row + 1, :length] for name, each in inputs.items()}


def targets(rows=3, length=4, seed=1):
    ids = torch.randint(3, VOCAB_SIZE, (rows, length), generator=torch.Generator().manual_seed(seed))
    ids[:, 0] = START
    return ids


# Precision


@KINDS
def test_under_autocast_the_stack_adds_up_in_the_precision_of_its_weights_as_with_tokens(kind):
    encoder, seen = build(kind, norm_position="pre").get_encoder(), []
    encoder.layers[0].register_forward_hook(lambda module, inputs, output: seen.append((inputs[0].dtype, output.dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        encoder(**source(kind))
    assert seen == [(torch.float32, torch.float32)]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"norm_position": "pre"},
        {"position_encoding": "alibi"},
        {"position_encoding": "t5_relative"},
        {"attention_pattern": "local", "attention_window": 2},
    ],
    ids=lambda fields: "-".join(map(str, fields.values())) or "paper",
)
def test_padded_frames_are_decoded_and_learned_from_under_autocast(fields):
    model, inputs = build(FRAMES, **fields), source(FRAMES)
    many = {"input_features": torch.randn(2, 200, 3), "attention_mask": torch.ones(2, 200, dtype=torch.long)}
    many["attention_mask"][1, 150:] = 0
    expected = model(**inputs, labels=targets()).loss
    for beams in (1, 2):
        with torch.autocast("cpu", torch.bfloat16):
            decoded = model.generate(**inputs, num_beams=beams, max_new_tokens=4)
        assert decoded.shape[0] == 3
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**inputs, labels=targets()).loss
        learned = model.train()(**many, labels=targets(2, 70)).loss
    torch.testing.assert_close(loss.float(), expected, rtol=0.03, atol=0)
    learned.backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())


# The projection


def test_frames_are_projected_as_a_convolution_does():
    encoder = build(FRAMES).double().get_encoder()
    frames = torch.randn(2, 8, 3, dtype=torch.float64)
    weight = encoder.embed_frames.weight.unflatten(1, (2, 3)).transpose(1, 2)  # (D, W, k)
    projected = F.conv1d(frames.transpose(1, 2), weight, encoder.embed_frames.bias, stride=2).transpose(1, 2)
    torch.testing.assert_close(encoder(frames)[0], encoder(inputs_embeds=projected)[0], rtol=0, atol=1e-12)


def test_patches_are_projected_as_a_convolution_does_row_by_row():
    encoder = build(PATCHES).double().get_encoder()
    pixels = torch.randn(2, 2, 8, 12, dtype=torch.float64)
    weight = encoder.embed_patches.weight.view(16, 2, 4, 4)
    projected = F.conv2d(pixels, weight, encoder.embed_patches.bias, stride=4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(encoder(pixels)[0], encoder(inputs_embeds=projected)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("frames", "stride"), [*itertools.product([1, 2, 5, 6, 7], [1, 2, 3])])
def test_the_mask_is_shortened_as_the_frames_are(frames, stride):
    config = VanillaTransformerConfig(source_kind="frames", source_width=1, source_stride=stride)
    values = torch.arange(1.0, frames + 1).repeat(frames, 1).unsqueeze(-1)
    mask = torch.arange(frames) <= torch.arange(frames)[:, None]  # row r has r + 1 frames
    stacked, shortened = stacked_frames(config, values, mask)
    for row in range(frames):
        groups = [list(range(at, min(at + stride, row + 1))) for at in range(0, frames, stride)]
        assert shortened[row].tolist() == [bool(group) for group in groups]
        expected = [[n + 1 for n in group] + [0] * (stride - len(group)) for group in groups]
        assert stacked[row].tolist() == expected
    assert stacked_frames(config, values, None)[1] is None


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_groups_are_those_of_the_frames_without_padding_wherever_it_is(stride):
    config = VanillaTransformerConfig(source_kind="frames", source_width=2, source_stride=stride)
    frames = torch.randn(64, 6, 2, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([*itertools.product([0, 1], repeat=6)])  # every mask
    given = config, frames.masked_fill(mask.unsqueeze(-1) == 0, torch.nan), mask
    stacked, shortened = stacked_frames(*given)
    assert shortened.dtype == mask.dtype
    without_values = stacked_frames(config, *(each.to("meta") for each in given[1:]))  # as a graph has them
    assert [each.shape for each in without_values] == [stacked.shape, shortened.shape]
    for row, is_frame in enumerate(mask.bool()):
        alone, _ = stacked_frames(config, frames[row : row + 1, is_frame], None)
        assert torch.equal(stacked[row, : alone.shape[1]], alone[0])
        assert not stacked[row, alone.shape[1] :].any()
        assert shortened[row].tolist() == [int(at < alone.shape[1]) for at in range(shortened.shape[1])]


@torch.no_grad()
def test_frames_padded_on_the_left_are_as_alone():
    model, ids = build(FRAMES, cls=VanillaTransformerModel), targets()
    inputs = source(FRAMES)  # of 9, 6 and 3 frames, so groups of 2 do not line up with the places
    left = {"input_features": inputs["input_features"].clone(), "attention_mask": inputs["attention_mask"].flip(1)}
    for row in range(1, 3):
        left["input_features"][row] = inputs["input_features"][row].roll(3 * row, dims=0)
    together = model(**left, decoder_input_ids=ids).last_hidden_state
    for row in range(3):
        alone = model(**row_of(inputs, row), decoder_input_ids=ids[row : row + 1]).last_hidden_state
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-5)


# The shortened mask everywhere


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"position_encoding": "rotary", "norm_position": "pre"},
        {"position_encoding": "learned", "num_learned_positions": 8},
        {"position_encoding": "alibi", "attention_pattern": "local", "attention_window": 1},
    ],
    ids=["paper", "rotary", "learned", "alibi_local"],
)
@torch.no_grad()
def test_a_padded_batch_equals_its_examples(fields):
    model, inputs, ids = build(FRAMES, **fields), source(FRAMES), targets()
    labels = ids.roll(-1, dims=1)
    together = model(**inputs, decoder_input_ids=ids).logits
    scores = forced_log_probs(model, inputs["input_features"], inputs["attention_mask"], labels)
    options = {"num_beams": 3, "max_new_tokens": 5, "return_dict_in_generate": True}
    found = model.generate(**inputs, **options)
    for row in range(3):
        alone = row_of(inputs, row)
        logits = model(**alone, decoder_input_ids=ids[row : row + 1]).logits
        torch.testing.assert_close(together[row : row + 1], logits, rtol=0, atol=1e-5)
        score = forced_log_probs(model, alone["input_features"], None, labels[row : row + 1])
        torch.testing.assert_close(scores[row : row + 1], score, rtol=0, atol=1e-5)
        one = model.generate(**alone, **options)
        torch.testing.assert_close(found.sequences_scores[row], one.sequences_scores[0], rtol=0, atol=1e-5)
        length = one.sequences.shape[1]
        assert torch.equal(found.sequences[row, :length], one.sequences[0])


@torch.no_grad()
def test_a_mask_of_patches_makes_a_wide_batch_equal_to_a_narrow_image():
    model, narrow = build(PATCHES), torch.randn(1, 2, 8, 8)
    wide = F.pad(narrow, (0, 4), value=5.0)
    mask = torch.tensor([[1, 1, 0, 1, 1, 0]])  # row by row
    ids = targets(rows=1)
    expected = model(pixel_values=narrow, decoder_input_ids=ids).logits
    found = model(pixel_values=wide, attention_mask=mask, decoder_input_ids=ids).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(model(pixel_values=wide, decoder_input_ids=ids).logits, expected, atol=1e-3)


@KINDS
@torch.no_grad()
def test_encoder_outputs_stand_in_for_the_source_with_their_own_mask(kind):
    model, inputs, ids = build(kind), source(kind), targets()
    expected = model(**inputs, decoder_input_ids=ids).logits
    encoded = model.get_encoder()(**inputs)
    assert encoded.last_hidden_state.shape == (3, 5 if kind is FRAMES else 6, 16)
    plain = model.get_encoder()(**inputs, return_dict=False)
    for outputs in (encoded, plain):
        assert torch.equal(model(encoder_outputs=outputs, decoder_input_ids=ids).logits, expected)
        # generate() hands over the mask of the input as well
        beside = {"encoder_outputs": outputs, "attention_mask": inputs.get("attention_mask")}
        assert torch.equal(model(**beside, decoder_input_ids=ids).logits, expected)
    assert torch.equal(model.generate(encoder_outputs=encoded), model.generate(**inputs))
    embedded = torch.randn(2, 4, 16), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    given = {"inputs_embeds": embedded[0], "attention_mask": embedded[1]}
    together = model(**given, decoder_input_ids=ids[:2]).logits
    alone = model(inputs_embeds=embedded[0][1:, :2], decoder_input_ids=ids[1:2]).logits
    torch.testing.assert_close(together[1:], alone, rtol=0, atol=1e-5)


# generate()


def best_of_all(model, inputs, limit):
    """The sequence of the greatest score among all that end with `</s>`, or at the limit."""
    found = []
    for length in range(1, limit + 1):
        ends = range(VOCAB_SIZE) if length == limit else [EOS]
        bodies = itertools.product([token for token in range(VOCAB_SIZE) if token != EOS], repeat=length - 1)
        labels = torch.tensor([[*body, end] for body in bodies for end in ends])
        repeated = {name: each.expand(len(labels), *each.shape[1:]) for name, each in inputs.items()}
        ids = torch.cat([torch.full_like(labels[:, :1], START), labels[:, :-1]], dim=1)
        log_probs = model(**repeated, decoder_input_ids=ids, use_cache=False).logits.log_softmax(-1)
        sums = log_probs.gather(-1, labels.unsqueeze(-1)).squeeze(-1).sum(1)
        found += zip((sums / gnmt_length_penalty(length, 0.6)).tolist(), labels.tolist(), strict=True)
    return max(found)


@KINDS
@torch.no_grad()
def test_a_beam_wide_enough_finds_the_best_cached_and_uncached(kind, monkeypatch):
    model, inputs = build(kind), source(kind, rows=2)
    best = [best_of_all(model, row_of(inputs, row), 3) for row in range(2)]
    assert can_share_rows(model.get_decoder())
    made, build_steps = [], IncrementalDecoder.__init__

    def watched(self, *args):
        made.append(args[3])
        build_steps(self, *args)

    monkeypatch.setattr(IncrementalDecoder, "__init__", watched)
    for options in ({}, {"use_cache": False}, {"cache_implementation": "static"}, {"output_attentions": True}):
        output = model.generate(**inputs, **options, num_beams=50, max_new_tokens=3, return_dict_in_generate=True)
        for row, (score, tokens) in enumerate(best):
            assert output.sequences_scores[row].item() == pytest.approx(score, abs=1e-5)
            assert output.sequences[row, 1 : 1 + len(tokens)].tolist() == tokens
    assert len(made) == 1, "the fast decoder serves the first call, and only that"
    assert made[0] is None if kind is PATCHES else made[0].shape == (2, 5)


@KINDS
@torch.no_grad()
def test_greedy_search_is_the_loop_over_whole_prefixes(kind):
    model, inputs = build(kind), source(kind)
    ids = torch.zeros(3, 1, dtype=torch.long)
    for _ in range(6):
        ids = torch.cat([ids, model(**inputs, decoder_input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    for options in ({}, {"use_cache": False}):
        found = model.generate(**inputs, **options, num_beams=1, max_new_tokens=6, eos_token_id=None)
        assert torch.equal(found, ids)


@KINDS
@torch.no_grad()
def test_embeddings_stand_in_for_the_source_in_generate(kind):
    model, inputs = build(kind), source(kind)
    encoder = model.get_encoder()
    if kind is FRAMES:
        stacked, mask = stacked_frames(model.config, inputs["input_features"], inputs["attention_mask"])
        given = {"inputs_embeds": encoder.embed_frames(stacked), "attention_mask": mask}
    else:
        given = {"inputs_embeds": encoder.embed_patches(cut_patches(model.config, inputs["pixel_values"]))}
    for options in ({}, {"num_beams": 1}, {"max_extra_tokens": 2, "eos_token_id": None}):
        assert torch.equal(model.generate(**given, **options), model.generate(**inputs, **options))
    with pytest.raises(ValueError, match=f"either `{model.main_input_name}` or `inputs_embeds`, and not both"):
        model.generate(**{**inputs, **given})


@KINDS
@torch.no_grad()
def test_the_limit_counts_positions_of_the_encoder(kind):
    model, inputs = build(kind), source(kind)
    found = model.generate(**inputs, num_beams=1, max_extra_tokens=2, eos_token_id=None, pad_token_id=PAD)
    positions = [5, 3, 2] if kind is FRAMES else [6, 6, 6]  # frames: 9, 6 and 3 of them, by twos
    assert found.shape[1] == 1 + max(positions) + 2
    if kind is FRAMES:
        assert [bool(row[1 + count + 2 :].eq(PAD).all()) for row, count in zip(found, positions)] == [True] * 3


# The contract of transformers


@KINDS
@pytest.mark.parametrize("tie", [True, False])
def test_saved_models_load_bit_equal_and_only_decoder_and_projection_share(kind, tie, tmp_path):
    model, inputs, ids = build(kind, tie_word_embeddings=tie), source(kind), targets()
    assert model.main_input_name == next(iter(inputs))
    model.save_pretrained(tmp_path)
    loaded, report = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    base = AutoModel.from_pretrained(tmp_path)
    assert not any(report.values()), report
    assert (loaded.main_input_name, base.main_input_name) == (model.main_input_name,) * 2
    assert torch.equal(loaded(**inputs, decoder_input_ids=ids).logits, model(**inputs, decoder_input_ids=ids).logits)
    hidden = model.model(**inputs, decoder_input_ids=ids).last_hidden_state
    assert torch.equal(base(**inputs, decoder_input_ids=ids).last_hidden_state, hidden)
    decoder = loaded.get_decoder().embed_tokens
    assert loaded.get_input_embeddings() is decoder
    assert (loaded.lm_head.weight is decoder.weight) is tie
    assert not any("encoder.embed_tokens" in name for name in loaded.state_dict())
    loaded.resize_token_embeddings(VOCAB_SIZE + 2)
    assert loaded(**inputs, decoder_input_ids=ids).logits.shape == (3, 4, VOCAB_SIZE + 2)
    assert (loaded.lm_head.weight is loaded.get_decoder().embed_tokens.weight) is tie
    assert torch.isfinite(loaded(**loaded.dummy_inputs).logits).all()


@KINDS
def test_gradients_reach_every_weight_and_are_the_same_with_checkpoints_and_in_eager(kind):
    inputs, labels, results = source(kind), targets(), []
    for change in (None, "checkpoints", "eager"):
        model = build(kind, dropout=0.0).train()
        if change == "checkpoints":
            checkpointing.enable(model, use_reentrant=False)
        elif change == "eager":
            model.set_attn_implementation("eager")
        model(**inputs, labels=labels).loss.backward()
        results.append({name: weight.grad for name, weight in model.named_parameters()})
    for name, gradient in results[0].items():
        assert gradient.abs().max() > 0, name
        assert torch.equal(results[1][name], gradient), name
        torch.testing.assert_close(results[2][name], gradient, rtol=1e-4, atol=1e-6)


@KINDS
def test_hidden_states_and_attentions_have_the_shortened_length(kind):
    model = build(kind, num_encoder_layers=2)
    model.set_attn_implementation("eager")
    outputs = model(**source(kind), decoder_input_ids=targets(), output_attentions=True, output_hidden_states=True)
    length = 5 if kind is FRAMES else 6
    assert [each.shape for each in outputs.encoder_hidden_states] == [(3, length, 16)] * 3
    assert outputs.cross_attentions[0].shape == (3, 2, 4, length)
    if kind is FRAMES:
        assert not outputs.cross_attentions[0][2, :, :, 2:].any()


@KINDS
def test_half_precision_reads_single_precision(kind):
    model, inputs = build(kind), source(kind)
    expected = model(**inputs, decoder_input_ids=targets()).logits
    found = model.bfloat16()(**inputs, decoder_input_ids=targets()).logits
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.15)


class Examples(torch.utils.data.Dataset):
    """Sources with a few labels."""

    def __init__(self, kind):
        self.inputs = {**source(kind), "labels": targets()}
        if kind is FRAMES:
            self.inputs["input_features"] = self.inputs["input_features"].nan_to_num()

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return {name: each[index] for name, each in self.inputs.items()}


@KINDS
def test_the_trainer_trains_and_predicts(kind, tmp_path):
    model, examples = build(kind), Examples(kind)
    arguments = Seq2SeqTrainingArguments(
        str(tmp_path), max_steps=2, per_device_train_batch_size=2, per_device_eval_batch_size=3, use_cpu=True,
        predict_with_generate=True, generation_max_length=6, report_to=[], save_strategy="no", disable_tqdm=True,
        include_for_metrics=["inputs"], learning_rate=1e-2, warmup_steps=0,
    )  # fmt: skip
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    trainer = Seq2SeqTrainer(model=model, args=arguments, train_dataset=examples, eval_dataset=examples)
    trainer.train()
    assert all(not torch.equal(before[name], weight) for name, weight in model.named_parameters())
    predicted = torch.from_numpy(trainer.predict(examples).predictions)
    inputs = {name: each for name, each in examples.inputs.items() if name != "labels"}
    expected = model.generate(**inputs, max_length=6)
    assert torch.equal(predicted[:, : expected.shape[1]], expected)


def test_the_pipeline_of_speech_decodes_what_the_model_hears():
    """transformers' own, with the features that it makes; it knows models with a decoder by a closed list of names."""
    model = build({"source_kind": "frames", "source_width": 80, "source_stride": 4}, vocab_size=262)
    tokenizer = train_tokenizer(texts=["a b c"], vocab_size=262)
    extractor = Speech2TextFeatureExtractor()
    hear = AutomaticSpeechRecognitionPipeline(model=model, tokenizer=tokenizer, feature_extractor=extractor)
    hear.type = "seq2seq"
    sounds = [torch.randn(length, generator=torch.Generator().manual_seed(length)).numpy() for length in (6400, 3200)]
    features = extractor(sounds, sampling_rate=16000, return_tensors="pt", padding=True)
    assert 0 in features["attention_mask"]
    expected = [tokenizer.decode(row, skip_special_tokens=True) for row in model.generate(**features, max_length=9)]
    heard = hear(sounds, batch_size=2, generate_kwargs={"max_length": 9})
    assert [each["text"] for each in heard] == expected


@pytest.mark.slow  # 3 seconds each
@KINDS
def test_the_whole_model_is_exported_exactly_for_other_sizes(kind):
    model, inputs = build(kind), source(kind)
    rows, target = Dim("rows", min=1, max=64), Dim("target", min=1, max=64)
    if kind is FRAMES:
        inputs["input_features"] = inputs["input_features"].nan_to_num()[:, :8]
        inputs["attention_mask"] = inputs["attention_mask"][:, :8]
        positions = Dim("positions", min=1, max=64)
        shapes = {"input_features": {0: rows, 1: 2 * positions}, "attention_mask": {0: rows, 1: 2 * positions}}
    else:
        shapes = {"pixel_values": {0: rows}}
    program = export(
        model,
        args=(),
        kwargs={**inputs, "decoder_input_ids": targets(), "use_cache": False},
        dynamic_shapes={**shapes, "decoder_input_ids": {0: rows, 1: target}, "use_cache": None},
        strict=False,
    )
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    others = {name: each[:2] for name, each in inputs.items()}
    if kind is FRAMES:
        others = {name: torch.cat([each, each[:, :4]], dim=1) for name, each in others.items()}
        others["attention_mask"] = torch.tensor([[1] * 12, [1] * 7 + [0] * 5])
    given = {**others, "decoder_input_ids": targets(rows=2, length=6), "use_cache": False}
    with torch.no_grad():
        torch.testing.assert_close(loaded(**given).logits, model(**given).logits, rtol=0, atol=1e-6)


@pytest.mark.slow  # 5 seconds: another interpreter
@KINDS
def test_a_folder_with_its_code_loads_without_the_package(kind, tmp_path):
    model, inputs = build(kind), source(kind)
    save_self_contained(model, tmp_path / "model", train_tokenizer(texts=["a"], vocab_size=260))
    expected = {"logits": model(**inputs, decoder_input_ids=targets()).logits, "ids": model.generate(**inputs)}
    torch.save({"inputs": inputs, "target": targets(), **expected}, tmp_path / "reference.pt")
    program = (
        PACKAGE_IS_MISSING
        + """
import torch
from transformers import AutoModelForSeq2SeqLM
kept = torch.load(sys.argv[2], weights_only=True)
model = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
assert torch.equal(model(**kept["inputs"], decoder_input_ids=kept["target"]).logits, kept["logits"])
assert torch.equal(model.generate(**kept["inputs"]), kept["ids"])
print("equal")
"""
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "model"), str(tmp_path / "reference.pt")],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "equal"), done.stderr


# What is refused


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({**FRAMES, "source_vocab_size": 9}, "`source_vocab_size`=9 counts nothing with `source_kind`='frames'"),
        ({"source_kind": "frames"}, "`source_width`=None is not allowed with `source_kind`='frames'"),
        ({"source_kind": "patches", "source_width": 1}, "`source_stride`=None is not allowed with `source_kind`="),
        ({**FRAMES, "source_stride": 0}, "`source_stride`=0 is not allowed with `source_kind`='frames'"),
        ({"source_width": 3}, "`source_width`=3 changes nothing with `source_kind`='tokens'"),
        ({"source_stride": 3}, "allowed: None, or `source_kind`='frames' or 'patches'"),
        ({"source_kind": "sound"}, "source_kind"),
    ],
)
def test_fields_that_do_not_go_together_are_refused_by_name(fields, message):
    with pytest.raises((ValueError, StrictDataclassError), match=re.escape(message)):
        VanillaTransformerConfig(**fields)
    assert VanillaTransformerConfig(source_kind="frames", source_width=3).source_stride == 1


def test_inputs_of_another_kind_or_shape_are_refused_by_name():
    frames, patches, text = build(FRAMES), build(PATCHES), build({})
    ids, given = targets(1), torch.zeros(1, 4, 3)
    for model, inputs, message in (
        (frames, {"input_ids": ids}, "reads `input_features` .`source_kind`., and was given `input_ids`"),
        (text, {"input_features": given}, "reads `input_ids` .*was given `input_features`"),
        (patches, {"input_features": given}, "reads `pixel_values` .*was given `input_features`"),
        (frames, {}, "either `input_features` or `inputs_embeds`"),
        (patches, {"pixel_values": given, "inputs_embeds": given}, "either `pixel_values` or `inputs_embeds`"),
        (frames, {"input_features": given.transpose(1, 2)}, "shape .1, 3, 4.*`source_width`=3"),
        (patches, {"pixel_values": torch.zeros(1, 3, 8, 8)}, "shape .1, 3, 8, 8.*`source_width`=2"),
        (patches, {"pixel_values": torch.zeros(1, 2, 8, 6)}, "8 by 6.*`source_stride`=4"),
        (frames, {"input_features": given, "attention_mask": torch.ones(1, 2)}, "`attention_mask` has the shape .1, 2"),
        (patches, {"pixel_values": torch.zeros(1, 2, 8, 8), "attention_mask": torch.ones(1, 3)}, "has .1, 4."),
    ):
        with pytest.raises(ValueError, match=message):
            model(**inputs, decoder_input_ids=ids)
    with pytest.raises(ValueError, match="Encoder needs a model that reads text.*`source_kind`='frames'"):
        Encoder(frames.config)
    with pytest.raises(NotImplementedError):
        FrameEncoder(frames.config).get_input_embeddings()
    with pytest.raises(TypeError, match="PatchEncoder.forward.. does not know `input_ids`"):
        PatchEncoder(patches.config)(input_ids=ids)
    with pytest.raises(ValueError, match="cannot be cut"):
        cut_patches(patches.config, torch.zeros(1, 2, 6, 8))


def test_what_is_for_text_refuses_other_sources_by_name(tmp_path):
    model, tokenizer = build(FRAMES, vocab_size=262), train_tokenizer(texts=["a b c"], vocab_size=262)
    with pytest.raises(ValueError, match="translation needs a model that reads text.*`source_kind`='frames'"):
        TranslationPipeline(model=model, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="export as two graphs.*`source_kind`='frames'"):
        exported_programs(model)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="translating needs a model that reads text.*`source_kind`='frames'"):
        load_translator([tmp_path], "cpu")
    with pytest.raises(ValueError, match="planning a run on text needs.*`source_kind`='frames'"):
        plan_run(None, {"config_overrides": ["source_kind=frames", "source_width=3"]})


def test_a_stack_alone_and_a_base_model_say_what_they_read():
    for kind, name in ((FRAMES, "input_features"), (PATCHES, "pixel_values"), ({}, "input_ids")):
        base = build(kind, cls=VanillaTransformerModel)
        assert base.main_input_name == base.get_encoder().main_input_name == name
        assert set(base.dummy_inputs) - {"attention_mask", "decoder_input_ids"} == {name}
        assert torch.isfinite(base(**base.dummy_inputs).last_hidden_state).all()
