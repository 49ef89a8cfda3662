"""What is recorded of attention: against Equation 1 by hand, masks against weights, tokens against the text."""

import codecs

import pytest
import torch
from test_pair_scores import build
from transformers import MarianConfig, MarianMTModel

from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.inference import translate_with_details
from hf_vanilla_transformer.lab.attention_maps import attention_maps, recorded_masks, token_labels
from hf_vanilla_transformer.lab.heads import KINDS

SENTENCE = "a b c c b a"


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=["a b c", "A B C"], vocab_size=264, tags=["<2de>"])


@pytest.fixture(scope="module")
def model(tokenizer):
    return build(tokenizer, num_encoder_layers=2, num_decoder_layers=3)


@pytest.fixture(scope="module")
def maps(model, tokenizer):
    return attention_maps(model, tokenizer, SENTENCE, target="A B C b \U0001f600")


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_of_each_layer_and_head_and_rows_sum_to_one(maps, kind):
    rows, columns = maps.axes(kind)
    layers = 2 if kind == "encoder" else 3
    assert maps.weights[kind].shape == (layers, 2, len(rows), len(columns))
    torch.testing.assert_close(maps.weights[kind].sum(-1), torch.ones(layers, 2, len(rows)))


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_attended_to_has_no_weight_and_all_else_has_some(maps, kind):
    has_weight = (maps.weights[kind] > 0).all(dim=1).all(dim=0)
    assert torch.equal(has_weight, maps.may_attend(kind))
    assert maps.may_attend(kind).all() == (kind != "decoder")


def test_the_first_layer_of_the_encoder_is_equation_1(maps, model, tokenizer):
    attention = model.model.encoder.layers[0].self_attention
    ids = torch.tensor(tokenizer(SENTENCE)["input_ids"])
    positions = torch.arange(len(ids))
    with torch.no_grad():
        inputs = model.model.encoder.embed_positions(model.get_input_embeddings()(ids)[None], positions[None])[0]
        query, key = (inputs.double() @ each.weight.double().T for each in (attention.q_proj, attention.k_proj))
    for head in range(2):
        part = slice(8 * head, 8 * head + 8)
        expected = (query[:, part] @ key[:, part].T / 8**0.5).softmax(-1)
        torch.testing.assert_close(maps.weights["encoder"][0, head].double(), expected, rtol=0, atol=1e-6)


def test_the_decoder_predicts_one_token_further_than_it_reads(maps):
    assert maps.read[0] == "<s>"
    assert maps.read[1:] == maps.predicted[:-1]
    assert (maps.source[-1], maps.predicted[-1]) == ("</s>", "</s>")
    assert maps.axes("decoder") == (maps.predicted, maps.read)
    assert maps.axes("cross") == (maps.predicted, maps.source)
    assert (maps.sentence, maps.translation) == (SENTENCE, "A B C b \U0001f600")


def test_without_a_target_it_is_the_models_own_translation_and_its_alignment(model, tokenizer):
    options = {"num_beams": 2, "max_new_tokens": 6}
    maps = attention_maps(model, tokenizer, SENTENCE, **options)
    ((translation,),) = translate_with_details(model, tokenizer, [SENTENCE], **options)
    assert maps.translation == translation.text
    special = {"<s>", "<pad>", "</s>"}
    sources = [place for place, token in enumerate(maps.source) if token not in special]
    targets = [place for place, token in enumerate(maps.predicted) if token not in special]
    best = maps.alignment()[targets][:, sources].argmax(-1).tolist()
    assert [(place, index) for index, place in enumerate(best)] == list(translation.alignment)


def test_the_alignment_is_the_mean_over_the_heads_of_the_chosen_layer(maps):
    for layer in (1, 2, 3):
        torch.testing.assert_close(maps.alignment(layer), maps.weights["cross"][layer - 1].mean(0))
    assert torch.equal(maps.alignment(), maps.alignment(2))  # second-to-last
    assert not torch.allclose(maps.alignment(1), maps.alignment(3))
    for layer in (0, 4):
        with pytest.raises(ValueError, match=f"no decoder layer {layer}; this model has layers 1 to 3"):
            maps.alignment(layer)


def test_a_tag_is_a_source_token(model, tokenizer):
    assert attention_maps(model, tokenizer, "a", target="A", tag="2de").source[0] == "<2de>"


def test_what_cannot_be_looked_at_is_refused(model, tokenizer):
    with pytest.raises(ValueError, match="' ' has no visible character"):
        attention_maps(model, tokenizer, " ")
    with pytest.raises(ValueError, match="num_beams cannot be used with a given target"):
        attention_maps(model, tokenizer, "a", target="A", num_beams=2)
    short = build(tokenizer, position_encoding="learned", num_learned_positions=4)
    with pytest.raises(ValueError, match="is longer than the model has positions"):
        attention_maps(short, tokenizer, SENTENCE)
    with pytest.raises(ValueError, match="training mode"):
        attention_maps(build(tokenizer).train(), tokenizer, "a")


def test_a_target_may_be_given_as_tokens(maps, model, tokenizer):
    ids = tokenizer(text_target=maps.translation)["input_ids"]
    of_tokens = attention_maps(model, tokenizer, SENTENCE, target=ids)
    assert (of_tokens.translation, of_tokens.predicted) == (maps.translation, maps.predicted)
    assert all(torch.equal(of_tokens.weights[kind], maps.weights[kind]) for kind in KINDS)
    unfinished = attention_maps(model, tokenizer, SENTENCE, target=ids[:3])
    torch.testing.assert_close(unfinished.weights["cross"], maps.weights["cross"][:, :, :3])


def test_another_model_has_to_return_attention(tokenizer):
    shape = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 32}
    ids = {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0, "forced_eos_token_id": None}
    config = MarianConfig(vocab_size=len(tokenizer), decoder_vocab_size=len(tokenizer), **shape, **heads, **ids)
    config._attn_implementation = "sdpa"
    marian = MarianMTModel(config).eval()
    with pytest.raises(ValueError, match=r"MarianMTModel returned no encoder self-attention; .*'eager'"):
        attention_maps(marian, tokenizer, "a", target="A")
    marian.set_attn_implementation("eager")
    assert attention_maps(marian, tokenizer, "a", target="A").weights["cross"].shape[:2] == (1, 2)


def test_masks_are_those_by_which_the_model_attends(model):
    source, target = torch.tensor([[5, 6, 7, 2], [5, 2, 1, 1]]), torch.tensor([[0, 8, 9], [0, 8, 1]])
    source_mask, target_mask = source.ne(1).long(), target.ne(1).long()
    with recorded_masks(model) as masks, torch.no_grad():
        output = model(source, source_mask, target, target_mask, output_attentions=True)
    weights = {"encoder": output.encoder_attentions, "decoder": output.decoder_attentions,
               "cross": output.cross_attentions}  # fmt: skip
    for kind in KINDS:
        attended = (weights[kind][0] > 0).all(dim=1)
        assert torch.equal(masks[kind].expand_as(attended), attended)
    assert masks["encoder"][1, 0].tolist() == [True, True, False, False]
    assert masks["decoder"][1].tolist() == [[True, False, False], [True, True, False], [True, True, False]]
    model(source, source_mask, target, target_mask, output_attentions=True)
    assert sorted(masks) == sorted(KINDS)
    assert not any(module._forward_pre_hooks for module in model.modules())  # nothing of it stays


@pytest.mark.parametrize("text", ["a b c", "A  é\nü", "$x$ <b>&\t'", "\u202eabc\U0001f600"])
def test_labels_are_the_text_of_the_tokens(tokenizer, text):
    labels = token_labels(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"])
    written = "".join(labels).replace("·", " ")
    assert written.isascii()  # in this vocabulary, other characters are bytes
    assert written.isprintable()
    assert codecs.decode(written, "unicode_escape").encode("latin-1").decode() == text


def test_labels_of_bytes_special_tokens_and_other_tokenizers(tokenizer):
    bytes_of_emoji = tokenizer("\U0001f600", add_special_tokens=False)["input_ids"]
    assert token_labels(tokenizer, bytes_of_emoji) == ["\\xf0", "\\x9f", "\\x98", "\\x80"]
    assert token_labels(tokenizer, range(4)) == ["<s>", "<pad>", "</s>", "<unk>"]
    assert token_labels(tokenizer, [len(tokenizer)]) == [f"<{len(tokenizer)}>"]  # a model may have more tokens
    words = train_tokenizer(texts=["a b"], model="wordpiece", vocab_size=20, min_frequency=1)
    assert token_labels(words, words("a b", add_special_tokens=False)["input_ids"]) == ["a", "b"]
