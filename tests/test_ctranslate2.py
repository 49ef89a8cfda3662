"""CTranslate2 out: translations and scores of the exported model are ours, in every shape that it has."""

import pytest
import torch
from parity import randomise

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.data.tokenization import train_tokenizer
from hf_vanilla_transformer.interop import export_ctranslate2
from hf_vanilla_transformer.lab.ablations import AblatedTransformer, AblatedTransformerConfig

ctranslate2 = pytest.importorskip("ctranslate2")

PAD, EOS = 1, 2
TEXTS = ["a dog runs", "the cat sleeps on the mat", "birds", "two men and a dog watch the birds", "a man sleeps"]

SHAPES = {
    "paper": {},
    "pre-norm, biases, swish": {"norm_position": "pre", "attention_bias": True, "activation_function": "swish"},
    "post-norm, norms at the ends": {"final_norm": True, "attention_bias": True, "final_logits_bias": True},
    "pre-norm, no norms at the ends": {"norm_position": "pre", "final_norm": False, "activation_function": "gelu"},
    "as Marian": {
        "sinusoid_layout": "concatenated", "attention_bias": True, "layer_norm_eps": 1e-5, "final_logits_bias": True,
        "activation_function": "silu", "decoder_start_token_id": PAD,
    },
    "as fairseq": {
        "sinusoid_layout": "concatenated_tensor2tensor", "position_offset": 2, "attention_bias": True,
        "decoder_start_token_id": EOS, "tie_word_embeddings": False,
    },
    "learned, unscaled": {"position_encoding": "learned", "max_position_embeddings": 40, "scale_embeddings": False},
    "no positions": {"position_encoding": "none"},
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=TEXTS * 3, vocab_size=300)


def random_model(tokenizer, **shape):
    config = VanillaTransformerConfig(
        **{
            "vocab_size": len(tokenizer) + 3, "d_model": 16, "num_heads": 4, "d_ff": 24, "num_encoder_layers": 2,
            "num_decoder_layers": 3, **shape,
        }
    )  # fmt: skip
    model = VanillaTransformerForConditionalGeneration(config).eval()
    randomise(model, seed=5)
    return model


def sources(tokenizer):
    ids = [tokenizer(text).input_ids for text in TEXTS]
    return ids, [tokenizer.convert_ids_to_tokens(row) for row in ids]


def generated(model, ids, **options):
    """For each hypothesis its ids without the first and from `</s>` on, and its score."""
    batch = torch.nn.utils.rnn.pad_sequence(list(map(torch.tensor, ids)), batch_first=True, padding_value=PAD)
    outputs = model.generate(
        batch, attention_mask=batch.ne(PAD).long(), max_new_tokens=12, return_dict_in_generate=True, **options
    )
    rows = [row[1:] for row in outputs.sequences.tolist()]
    rows = [row[: row.index(EOS)] if EOS in row else row for row in rows]
    return rows, getattr(outputs, "sequences_scores", None)


@pytest.mark.parametrize("shape", SHAPES)
def test_greedy_and_beam_search_give_our_ids(shape, tokenizer, tmp_path):
    model = random_model(tokenizer, **SHAPES[shape])
    export_ctranslate2(model, tokenizer, tmp_path, max_positions=32)
    translator = ctranslate2.Translator(str(tmp_path), intra_threads=1)
    ids, tokens = sources(tokenizer)
    vocabulary = dict(tokenizer.get_vocab())  # tokens that the tokenizer lacks can be generated too
    vocabulary |= {f"<unused {number}>": number for number in range(len(tokenizer), model.config.vocab_size)}
    for ours, theirs in (
        ({"num_beams": 1}, {"beam_size": 1}),
        ({"num_beams": 4, "length_penalty": 0.6, "early_stopping": True}, {"beam_size": 4, "length_penalty": 0.6}),
        ({"num_beams": 3, "length_penalty": 1.0, "early_stopping": True}, {"beam_size": 3, "length_penalty": 1.0}),
    ):
        limits = {"min_decoding_length": 0, "max_decoding_length": 12}
        results = translator.translate_batch(tokens, return_scores=True, **limits, **theirs)
        actual = [[vocabulary[token] for token in result.hypotheses[0]] for result in results]
        expected, scores = generated(model, ids, **ours)
        assert actual == expected
        if scores is not None:
            torch.testing.assert_close(torch.tensor([r.scores[0] for r in results]), scores, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_forced_log_probabilities_are_ours(shape, tokenizer, tmp_path):
    """Every token of a given target scored: unlike a search, this cannot agree by chance."""
    model = random_model(tokenizer, **SHAPES[shape])
    export_ctranslate2(model, tokenizer, tmp_path, max_positions=32)
    translator = ctranslate2.Translator(str(tmp_path), intra_threads=1)
    ids, tokens = sources(tokenizer)
    scored = translator.score_batch(tokens, [row[:-1] for row in tokens[::-1]])
    for source, target, result in zip(ids, ids[::-1], scored, strict=True):
        logits = model(input_ids=torch.tensor([source]), labels=torch.tensor([target])).logits[0]
        expected = logits.log_softmax(-1).gather(-1, torch.tensor(target)[:, None]).squeeze(-1)
        torch.testing.assert_close(torch.tensor(result.log_probs), expected, rtol=0, atol=2e-5)


def test_int8_is_near(tokenizer, tmp_path):
    model = random_model(tokenizer)
    scores = {}
    for quantization in ("float32", "int8"):
        export_ctranslate2(model, tokenizer, tmp_path / quantization, quantization, max_positions=32)
        translator = ctranslate2.Translator(str(tmp_path / quantization), intra_threads=1)
        _, tokens = sources(tokenizer)
        results = translator.score_batch(tokens, [row[:-1] for row in tokens[::-1]])
        scores[quantization] = torch.tensor([score for result in results for score in result.log_probs])
    difference = (scores["int8"] - scores["float32"]).abs().max()
    assert 0 < difference < 0.5
    sizes = {name: (tmp_path / name / "model.bin").stat().st_size for name in scores}
    assert sizes["int8"] < 0.7 * sizes["float32"]


def test_two_vocabularies(tokenizer, tmp_path):
    target = train_tokenizer(texts=["zwei Hunde", "ein Vogel schläft"] * 3, vocab_size=275)
    model = random_model(tokenizer, source_vocab_size=len(tokenizer), vocab_size=len(target))
    with pytest.raises(ValueError, match="target_tokenizer"):
        export_ctranslate2(model, tokenizer, tmp_path)
    export_ctranslate2(model, tokenizer, tmp_path, target_tokenizer=target)
    translator = ctranslate2.Translator(str(tmp_path), intra_threads=1)
    ids, tokens = sources(tokenizer)
    results = translator.translate_batch(tokens, beam_size=1, max_decoding_length=12)
    actual = [target.convert_tokens_to_ids(result.hypotheses[0]) for result in results]
    assert actual == generated(model, ids, num_beams=1)[0]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"d_k": 5}, "`d_k`=5"),
        ({"activation_function": "mish"}, "`activation_function`='mish'"),
        ({"decoder_start_token_id": None}, "`decoder_start_token_id`"),
        ({"norm": "rms_norm"}, "`norm`='rms_norm'"),
        ({"norm_position": "sandwich"}, "`norm_position`='sandwich'"),
        ({"feed_forward": "gated"}, "`feed_forward`='gated'"),
        ({"num_key_value_heads": 1}, "`num_key_value_heads`=1"),
        ({"position_encoding": "rotary"}, "`position_encoding`='rotary'"),
        ({"attention_pattern": "local", "attention_window": 4}, "`attention_pattern`='local'"),
        ({"embedding_norm": True}, "`embedding_norm`=True"),
        ({"attention": "linear"}, "`attention`='linear'"),
        ({"cross_attention": "linear"}, "`cross_attention`='linear'"),
        ({"source_kind": "frames", "source_width": 2}, "`source_kind`='frames'"),
    ],
)
def test_what_ctranslate2_has_not_is_refused(shape, message, tokenizer, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_ctranslate2(random_model(tokenizer, **shape), tokenizer, tmp_path)


def test_a_model_that_computes_something_else_is_refused(tokenizer, tmp_path):
    config = AblatedTransformerConfig.from_preset("tiny", vocab_size=len(tokenizer))
    with pytest.raises(ValueError, match="kind ablated_transformer"):
        export_ctranslate2(AblatedTransformer(config), tokenizer, tmp_path)


def test_an_unknown_quantization_is_refused(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="allowed: float32, int8"):
        export_ctranslate2(random_model(tokenizer), tokenizer, tmp_path, quantization="int4")
