"""A translation model that begins with trained stacks: the same numbers, the rest new, and all else refused by name."""

import pytest
import torch
from training_runs import SHAPE, arguments

from hf_vanilla_transformer import (
    VanillaTransformerConfig,
    VanillaTransformerDecoderConfig,
    VanillaTransformerEncoderConfig,
    VanillaTransformerForCausalLM,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerForMaskedLM,
)
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.training.model_setup import build_model
from hf_vanilla_transformer.training.tokenizer_setup import prepare_tokenizer

KINDS = {
    "encoder": (VanillaTransformerEncoderConfig, VanillaTransformerForMaskedLM),
    "decoder": (VanillaTransformerDecoderConfig, VanillaTransformerForCausalLM),
    "whole": (VanillaTransformerConfig, VanillaTransformerForConditionalGeneration),
}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=["red dog RED DOG"], vocab_size=265, min_frequency=1)


@pytest.fixture
def saved(tmp_path, tokenizer):
    """Saves a model whose weights are all drawn, those of norms too."""

    def save(kind, name=None, tokenizer=tokenizer, **changes):
        config_class, model_class = KINDS[kind]
        shape = {name: value for name, value in SHAPE.items() if name not in config_class.fixed_fields}
        torch.manual_seed(sum(map(ord, name or kind)))
        model = model_class(config_class(vocab_size=len(tokenizer), **{**shape, **changes}))
        for weight in model.parameters():
            torch.nn.init.normal_(weight)
        folder = tmp_path / (name or kind)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder, model.state_dict()

    return save


def built(tokenizer, tmp_path, overrides=(), **options):
    torch.manual_seed(0)
    shape = [f"{name}={value}" for name, value in SHAPE.items()]
    options = {name: str(value) for name, value in options.items()}
    args = arguments(tmp_path, tmp_path / "run", config_overrides=[*shape, *overrides], **options)
    return build_model(args, tokenizer)[0].state_dict()


def test_the_encoder_of_a_masked_language_model_is_taken_and_the_decoder_is_new(
    saved, tokenizer, tmp_path, package_log
):
    folder, theirs = saved("encoder")
    new, made = built(tokenizer, tmp_path), built(tokenizer, tmp_path, init_encoder_from=folder)
    shared = theirs["model.encoder.embed_tokens.weight"]  # one matrix for all three (§3.4)
    for name, weight in made.items():
        if name.startswith("model.encoder."):
            assert torch.equal(weight, theirs[name]), name
        elif name in ("lm_head.weight", "model.decoder.embed_tokens.weight"):
            assert torch.equal(weight, shared)
        else:
            assert torch.equal(weight, new[name]), name
    taken = {name: weight for name, weight in theirs.items() if name.startswith("model.encoder.")}
    count = sum(weight.numel() for weight in taken.values())
    assert f"init_encoder_from={folder}: {len(taken)} weights taken, {count:,} numbers" in package_log.messages


def test_the_decoder_of_a_language_model_is_taken_but_its_attention_to_the_encoder_is_new(
    saved, tokenizer, tmp_path, package_log
):
    folder, theirs = saved("decoder")
    new, made = built(tokenizer, tmp_path), built(tokenizer, tmp_path, init_decoder_from=folder)
    fresh = []
    for name, weight in made.items():
        if name.startswith("model.decoder.") and "cross_attention" not in name:
            assert torch.equal(weight, theirs[name.replace("decoder.", "", 1)]), name
        elif "embed_tokens" in name or name.startswith("lm_head"):
            assert torch.equal(weight, theirs["lm_head.weight"])
        else:
            assert torch.equal(weight, new[name]), name
            fresh += [weight] if "cross_attention" in name else []
    count = sum(weight.numel() for weight in fresh)
    assert f"; {len(fresh)} of its part stay new, {count:,} numbers, such as model.decoder.layers.0.cross_att" in (
        package_log.text
    )


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_stack_alone_fits_a_model_whose_attention_between_stacks_is_linear(saved, tokenizer, tmp_path, part):
    """Which the stack says nothing of; a decoder that has one is another."""
    linear = ["cross_attention=linear", "feature_map=relu"]
    folder, theirs = saved(part)
    made = built(tokenizer, tmp_path, linear, **{f"init_{part}_from": folder})
    name = "model.{}layers.0.self_attention.q_proj.weight"
    own = name.format("encoder." if part == "encoder" else "")
    assert torch.equal(made[name.format(f"{part}.")], theirs[own])
    whole, _ = saved("whole")
    with pytest.raises(ValueError, match="cross_attention is 'softmax' there, and 'linear' here; feature_map is None"):
        built(tokenizer, tmp_path, linear, init_decoder_from=whole)


def test_of_a_whole_model_either_stack_is_taken_attention_between_them_included(saved, tokenizer, tmp_path):
    folder, theirs = saved("whole")
    made = built(tokenizer, tmp_path, init_encoder_from=folder, init_decoder_from=folder)
    assert all(torch.equal(weight, theirs[name]) for name, weight in made.items())


def test_two_models_share_one_matrix_or_keep_theirs(saved, tokenizer, tmp_path, package_log):
    (encoder, first), (decoder, second) = saved("encoder"), saved("decoder")
    both = {"init_encoder_from": encoder, "init_decoder_from": decoder}
    one = built(tokenizer, tmp_path, **both)
    assert torch.equal(one["model.encoder.embed_tokens.weight"], second["model.embed_tokens.weight"])
    assert f"the embedding of init_encoder_from={encoder} is not taken" in package_log.text
    two = built(tokenizer, tmp_path, ["tie_word_embeddings=false"], **both)
    assert torch.equal(two["model.encoder.embed_tokens.weight"], first["model.encoder.embed_tokens.weight"])
    assert torch.equal(two["model.decoder.embed_tokens.weight"], second["model.embed_tokens.weight"])
    assert torch.equal(two["lm_head.weight"], second["lm_head.weight"])
    untied, _ = saved("decoder", "untied", tie_word_embeddings=False)
    with pytest.raises(ValueError, match="has an embedding and a projection of its own, and the new model has one mat"):
        built(tokenizer, tmp_path, init_decoder_from=untied)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("encoder", {"norm_position": "pre"}, "norm_position is 'pre' there, and 'post' here"),
        ("encoder", {"d_ff": 8}, "d_ff is 8 there, and 32 here"),
        ("encoder", {"num_encoder_layers": 2}, "num_encoder_layers is 2 there, and 1 here"),
        ("encoder", {"type_vocab_size": 2}, "type_vocab_size is 2 there"),
        ("decoder", {"position_encoding": "rotary"}, "position_encoding is 'rotary' there, and 'sinusoidal' here"),
        ("decoder", {"final_logits_bias": True}, "final_logits_bias is True there, and False here"),
    ],
)
def test_what_is_of_another_shape_is_refused_by_the_field(saved, tokenizer, tmp_path, kind, changes, message):
    folder, _ = saved(kind, **changes)
    with pytest.raises(ValueError, match=rf"^init_{kind}_from=.* has another shape: .*{message}"):
        built(tokenizer, tmp_path, **{f"init_{kind}_from": folder})


def test_models_without_the_part_and_with_another_vocabulary_are_refused(saved, tokenizer, tmp_path):
    encoder, _ = saved("encoder")
    with pytest.raises(ValueError, match="is a vanilla_transformer_encoder model, which has no decoder"):
        built(tokenizer, tmp_path, init_decoder_from=encoder)
    decoder, _ = saved("decoder")
    with pytest.raises(ValueError, match="is a vanilla_transformer_decoder model, which has no encoder"):
        built(tokenizer, tmp_path, init_encoder_from=decoder)
    other = train_tokenizer(texts=["two cats TWO CATS"], vocab_size=265, min_frequency=1)
    foreign, _ = saved("encoder", "foreign", tokenizer=other)
    with pytest.raises(ValueError, match="was trained with another vocabulary than that of the run"):
        built(tokenizer, tmp_path, init_encoder_from=foreign)


def test_the_tokenizer_is_that_of_the_stack(saved, tokenizer, tmp_path):
    folder, _ = saved("decoder")
    args = arguments(tmp_path, tmp_path / "run", init_decoder_from=str(folder))
    assert prepare_tokenizer(args, [], None, [], [], None).get_vocab() == tokenizer.get_vocab()
