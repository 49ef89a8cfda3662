"""Marian folders in: weights against MarianMTModel, tokenizers against MarianTokenizer, both at random."""

import json
import random
import warnings

import pytest
import sentencepiece
import torch
from parity import random_lengths
from safetensors.torch import load_file, save_file
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

from hf_vanilla_transformer import VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.interop import load_marian, load_marian_tokenizers

V, SOURCE_V = 24, 31
EOS, PAD = 0, V - 1
B, S, T = 5, 11, 9
TOLERANCE = 1e-6

SHAPES = {
    "opus": {"scale_embedding": True, "activation_function": "swish"},
    "separate vocabularies": {
        "scale_embedding": True,
        "activation_function": "swish",
        "vocab_size": SOURCE_V,
        "decoder_vocab_size": V,
        "share_encoder_decoder_embeddings": False,
    },
    "separate vocabularies of equal size": {"scale_embedding": True, "share_encoder_decoder_embeddings": False},
    "unscaled": {"activation_function": "gelu", "decoder_layers": 2},
    "untied": {"tie_word_embeddings": False, "share_encoder_decoder_embeddings": False, "activation_function": "relu"},
}


@torch.no_grad()
def marian(folder, seed=0, logits_bias=True, **options):
    """A random MarianMTModel and the folder it was saved in; nothing is left at a value that could go unnoticed."""
    torch.manual_seed(seed)
    config = MarianConfig(
        **{
            "vocab_size": V, "d_model": 16, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "pad_token_id": PAD,
            "eos_token_id": EOS, "forced_eos_token_id": EOS, "decoder_start_token_id": PAD,
            "max_position_embeddings": 64, **options,
        }
    )  # fmt: skip
    model = MarianMTModel(config).eval()
    for name, parameter in model.named_parameters():
        if "embed_positions" not in name:
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.dim() == 1 else 0.25))
            if name.endswith("layer_norm.weight"):
                parameter.add_(1)
    if logits_bias:
        model.final_logits_bias.normal_()
    model.generation_config.bad_words_ids = [[PAD]]
    model.generation_config.max_length = None
    model.save_pretrained(folder)
    return model


def batch(source_vocabulary=V, seed=0):
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(1, PAD, (B, S), generator=generator)
    if source_vocabulary > V:  # ids that only the source has
        source[:, ::2] += source_vocabulary - V - 1
    source[source == PAD] = 1
    for row, length in enumerate(random_lengths(B, S, generator)):
        source[row, length - 1], source[row, length:] = EOS, PAD
    target = torch.randint(1, PAD, (B, T), generator=generator)
    target[:, 0] = PAD
    return {"input_ids": source, "attention_mask": source.ne(PAD).long(), "decoder_input_ids": target}


@pytest.mark.parametrize(("logits_bias", "seed"), [(True, 0), (False, 1)])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_logits_and_generated_ids_are_those_of_marian_also_after_saving(shape, logits_bias, seed, tmp_path):
    theirs = marian(tmp_path / "marian", seed, logits_bias, **SHAPES[shape])
    ours = load_marian(tmp_path / "marian")
    assert ours.config.final_logits_bias is logits_bias
    ours.save_pretrained(tmp_path / "ours")
    loaded = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    inputs = batch(theirs.config.vocab_size, seed)
    expected = theirs(**inputs).logits
    for model in (ours, loaded):
        torch.testing.assert_close(model(**inputs).logits, expected, rtol=TOLERANCE, atol=TOLERANCE)
    del inputs["decoder_input_ids"]
    # Without repeats: a random model says one word for ever, whatever the search does.
    for options in ({}, {"no_repeat_ngram_size": 1}, {"num_beams": 4, "no_repeat_ngram_size": 1, "min_new_tokens": 6}):
        options = {**options, "max_new_tokens": 14}
        expected_ids = theirs.generate(**inputs, **options)
        assert expected_ids.unique().numel() > 3 or not options.get("no_repeat_ngram_size")
        for model in (ours, loaded):
            assert torch.equal(model.generate(**inputs, **options), expected_ids)


def test_the_loss_has_the_bias_in_it_and_equals_marians(tmp_path):
    theirs = marian(tmp_path, **SHAPES["opus"])
    ours = load_marian(tmp_path).train()
    for module in ours.modules():
        module.p = 0.0 if hasattr(module, "p") else None
    inputs = batch()
    labels = inputs.pop("decoder_input_ids").clone()
    labels[:, 0], labels[1, 5:] = 1, -100
    output = ours(**inputs, labels=labels)
    torch.testing.assert_close(output.nll_loss, theirs(**inputs, labels=labels).loss, rtol=1e-6, atol=1e-6)
    output.loss.backward()
    assert ours.lm_head.bias.grad.abs().min() > 0


def test_ids_and_the_generation_config_stay_marians(tmp_path):
    marian(tmp_path, **SHAPES["opus"])
    ours = load_marian(tmp_path)
    assert (ours.config.pad_token_id, ours.config.eos_token_id, ours.config.decoder_start_token_id) == (PAD, EOS, PAD)
    assert ours.config.bos_token_id is None
    assert ours.generation_config.bad_words_ids == [[PAD]]
    assert ours.generation_config.forced_eos_token_id == EOS


def test_old_folders_with_pickled_tensors_and_beams_in_the_config(tmp_path):
    """As the public ones of 2020: every tied copy and the table of positions are stored, and the beams of the search
    stand among the fields of the model."""
    theirs = marian(tmp_path, **SHAPES["opus"])
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "generation_config.json").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    config.update(num_beams=6, bad_words_ids=[[PAD]])
    (tmp_path / "config.json").write_text(json.dumps(config))
    ours, inputs = load_marian(tmp_path), batch()
    torch.testing.assert_close(ours(**inputs).logits, theirs(**inputs).logits, rtol=TOLERANCE, atol=TOLERANCE)
    assert (ours.generation_config.num_beams, ours.generation_config.bad_words_ids) == (6, [[PAD]])


def test_what_does_not_fit_is_refused_with_names_and_shapes(tmp_path):
    marian(tmp_path, **SHAPES["opus"])
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.encoder.layers.0.fc1.weight"] = torch.zeros(24, 15)
    del tensors["model.decoder.layers.1.encoder_attn.k_proj.bias"]
    tensors["model.encoder.layernorm_embedding.weight"] = torch.zeros(16)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="does not fit") as refusal:
        load_marian(tmp_path)
    message = str(refusal.value)
    assert (
        "model.encoder.layers.0.fc1.weight is (24, 15), our model.encoder.layers.0.feed_forward.fc1.weight (24, 16)"
        in message
    )
    assert "missing: model.decoder.layers.1.encoder_attn.k_proj.bias" in message
    assert "no place for: model.encoder.layernorm_embedding.weight (16,)" in message
    assert len(message.splitlines()) == 1


def test_sides_of_different_heads_are_refused(tmp_path):
    marian(tmp_path, decoder_attention_heads=2)
    with pytest.raises(ValueError, match="encoder_attention_heads=4 differs from decoder_attention_heads=2"):
        load_marian(tmp_path)


# Tokenizers

WORDS = [
    "the", "a", "dog", "cat", "runs", "sleeps", "quickly", "übers", "große", "grass", "watches", "children", "playing",
    "outside", "house", "straße",
]  # fmt: skip


def sentences(seed, count=400, words=WORDS):
    draw = random.Random(seed)
    return [" ".join(draw.choices(words, k=draw.randint(1, 9))) + draw.choice(".!?") for _ in range(count)]


def train(folder, name, texts, model_type, vocab_size):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(folder / name),
        vocab_size=vocab_size,
        model_type=model_type,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / f"{name}.model").rename(folder / f"{name}.spm")
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{name}.spm"))
    return [processor.id_to_piece(number) for number in range(3, processor.get_piece_size())]


def tokenizer_folder(folder, model_type, two_models, codes=(">>fra<<", ">>deu<<"), leave_out=0):
    pieces = train(folder, "source", sentences(1, words=WORDS[:11]), model_type, 60)
    if two_models:
        pieces += train(folder, "target", sentences(2, words=WORDS[5:] + ["ñandú"]), model_type, 70)
    else:
        (folder / "target.spm").write_bytes((folder / "source.spm").read_bytes())
    unique = list(dict.fromkeys(pieces))[: len(set(pieces)) - leave_out]
    random.Random(3).shuffle(unique)  # Marian's ids have nothing to do with SentencePiece's
    vocabulary = ["</s>", "<unk>", *codes, *unique, "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(vocabulary)}))
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


def reference(folder, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a normaliser of punctuation is not there; it would not be used either
        return MarianTokenizer.from_pretrained(folder, **options)


TEXTS = [
    *sentences(5),
    "", " ", "  two  spaces ", "the\tdog", "ＦＵＬＬ width ﬁ ²", "zzz unknown qqq", "ñandú übers große", "日本 the dog",
    ">>fra<< the dog runs", ">>deu<<the dog", "the dog\u2581runs",
    "a\ue000b dog", "\U0001f600 dog \U0001f600\U0001f600",
    "e\u0301 cafe\u0301",
]  # fmt: skip


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
@pytest.mark.parametrize("two_models", [True, False])
def test_tokenizers_cut_and_number_as_marians_and_decode_to_its_text(model_type, two_models, tmp_path):
    folder = tokenizer_folder(tmp_path, model_type, two_models)
    expected = reference(folder)
    source, target = load_marian_tokenizers(folder)
    assert (source is target) is not two_models
    for text in TEXTS:
        assert source(text).input_ids == expected(text).input_ids, text
        assert target(text).input_ids == expected(text_target=text).input_ids, text
    draw = random.Random(7)
    for _ in range(200):
        ids = [draw.randrange(len(expected)) for _ in range(draw.randint(1, 12))]
        text = expected.decode(ids, skip_special_tokens=True)
        for tokenizer in (source, target):
            assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text
    for name in ("eos_token_id", "pad_token_id", "unk_token_id"):
        assert getattr(source, name) == getattr(expected, name)


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_a_saved_tokenizer_is_the_same(model_type, tmp_path):
    from transformers import AutoTokenizer

    source, _ = load_marian_tokenizers(tokenizer_folder(tmp_path, model_type, two_models=True))
    source.save_pretrained(tmp_path / "saved")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert [loaded(text).input_ids for text in TEXTS] == [source(text).input_ids for text in TEXTS]
    assert loaded.decode(range(40)) == source.decode(range(40))


def test_separate_vocabularies_have_two_tokenizers(tmp_path):
    folder = tokenizer_folder(tmp_path, "unigram", two_models=True)
    ids = json.loads((folder / "vocab.json").read_text())
    turned = dict(zip(ids, reversed(ids.values()), strict=True))
    (folder / "target_vocab.json").write_text(json.dumps(turned))
    (folder / "tokenizer_config.json").write_text(json.dumps({"separate_vocabs": True}))
    expected = reference(folder)
    source, target = load_marian_tokenizers(folder)
    for text in TEXTS[:20]:
        assert source(text).input_ids == expected(text).input_ids
        labels = target(text).input_ids
        assert labels[:-1] == expected(text_target=text).input_ids[:-1]
        assert target.decode(labels, skip_special_tokens=True) == text


def test_pieces_that_the_vocabulary_lacks_are_counted(tmp_path, caplog):
    folder = tokenizer_folder(tmp_path, "unigram", two_models=False, leave_out=3)
    tokenizer, _ = load_marian_tokenizers(folder)
    assert "3 pieces are not in the vocabulary" in caplog.text
    assert max(max(tokenizer(text).input_ids) for text in TEXTS) < len(tokenizer)


def test_bpe_with_pieces_that_the_vocabulary_lacks_is_refused(tmp_path):
    folder = tokenizer_folder(tmp_path, "bpe", two_models=False, leave_out=3)
    with pytest.raises(ValueError, match="3 pieces are not in the vocabulary"):
        load_marian_tokenizers(folder)


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_real_text_is_cut_and_decoded_as_by_marian(model_type, multi30k, tmp_path):
    """4,000 pieces of each language, learned from 5,000 sentences; 1,014 others are compared."""
    text = {
        (part, side): (multi30k / f"{part}.{side}").read_text().splitlines()
        for part in ("train", "val")
        for side in ("en", "de")
    }
    pieces = train(tmp_path, "source", text["train", "en"][:5000], model_type, 4000)
    pieces += train(tmp_path, "target", text["train", "de"][:5000], model_type, 4000)
    vocabulary = ["</s>", "<unk>", *dict.fromkeys(pieces), "<pad>"]
    (tmp_path / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(vocabulary)}))
    expected, (source, target) = reference(tmp_path), load_marian_tokenizers(tmp_path)
    assert source(text["val", "en"]).input_ids == expected(text["val", "en"]).input_ids
    labels = expected(text_target=text["val", "de"]).input_ids
    assert target(text["val", "de"]).input_ids == labels
    decoded = expected.batch_decode(labels, skip_special_tokens=True)
    assert source.batch_decode(labels, skip_special_tokens=True) == decoded


def test_a_file_that_is_no_sentencepiece_model_is_refused(tmp_path):
    folder = tokenizer_folder(tmp_path, "bpe", two_models=False)
    (folder / "source.spm").write_bytes(b"not a model at all, but text")
    with pytest.raises(ValueError, match="source.spm: not a SentencePiece model"):
        load_marian_tokenizers(folder)
