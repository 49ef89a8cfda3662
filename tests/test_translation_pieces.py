"""Long sentences in pieces: everything is kept, everything fits, and cuts are where a reader would make them."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.inference import EnsembleForConditionalGeneration
from hf_vanilla_transformer.translation_pieces import max_source_length, source_pieces

TOKENIZER = train_tokenizer(texts=["a b c"], vocab_size=262)


def texts(pieces):
    return [TOKENIZER.decode(piece, skip_special_tokens=True) for piece in pieces]


@pytest.mark.parametrize(
    ("sentence", "limit", "expected"),
    [
        ("aa bb", 6, ["aa bb"]),  # five characters and </s>
        ("aa bb", 5, ["aa", "bb"]),
        ("a b. c d e f", 10, ["a b.", "c d e f"]),  # after a sentence, though it is not the middle
        ("a b c d. e f", 12, ["a b c d.", "e f"]),
        ("a! b? c d", 6, ["a!", "b?", "c d"]),
        ("3.5 and more", 11, ["3.5", "and more"]),  # no sentence ends within a number
        ("aaaaaaaa", 5, ["aaaa", "aaaa"]),
        ("  aaaa   bbbb  ", 6, ["aaaa", "bbbb"]),
        ("\u4e00\u3002\u4e8c", 8, ["\u4e00\u3002", "\u4e8c"]),  # no space after the full stop
    ],
)
def test_cuts_are_after_sentences_else_between_words_else_anywhere(sentence, limit, expected):
    assert texts(source_pieces(TOKENIZER, [sentence], limit)[0]) == expected


@settings(max_examples=150)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=40), max_size=4), st.integers(6, 30))
def test_every_visible_character_is_in_a_piece_and_every_piece_fits(sentences, limit):
    pieces = source_pieces(TOKENIZER, sentences, limit)
    assert len(pieces) == len(sentences)
    for sentence, parts in zip(sentences, pieces, strict=True):
        assert all(len(part) <= limit for part in parts)
        assert "".join("".join(text.split()) for text in texts(parts)) == "".join(sentence.split())
        assert bool(parts) == bool(sentence.strip())


def test_a_long_line_without_a_space_is_no_problem():
    (pieces,) = source_pieces(TOKENIZER, ["a" * 20000], 100)
    assert "".join(texts(pieces)) == "a" * 20000


def test_a_character_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match="has 5 tokens, but the model has 4 positions"):
        source_pieces(TOKENIZER, ["a \U0001f600"], 4)


TEXT_WITH_CONTROL_TOKENS = st.lists(
    st.sampled_from(["<s>", "<pad>", "</s>", "<unk>", "<", "s>", " ", "\n"]) | st.text(max_size=3), max_size=8
).map(lambda parts: "a" + "".join(parts))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(TEXT_WITH_CONTROL_TOKENS, st.none() | st.integers(20, 30))
@pytest.mark.parametrize("split", [False, True])
def test_tags_are_one_token_and_what_looks_like_a_control_token_is_text(split, text, limit):
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.split_special_tokens = split
    tokenizer.add_special_tokens({"extra_special_tokens": ["<2de>"]})
    (tag,) = tokenizer.convert_tokens_to_ids(["<2de>"])
    (pieces,) = source_pieces(tokenizer, ["<2de>" + text], limit)
    assert all(piece[0] == tag and piece.count(tag) == 1 for piece in pieces)  # which each is translated by
    assert all(piece[-1] == tokenizer.eos_token_id for piece in pieces)
    assert not any({0, 1, 2, 3} & set(piece[:-1]) for piece in pieces)
    read = [tokenizer.decode(piece, skip_special_tokens=True) for piece in pieces]
    if limit is None:
        assert read == [text]
    assert "".join("".join(read).split()) == "".join(text.split())


def model(**fields):
    shape = {"vocab_size": 9, "d_model": 8, "num_heads": 1, "d_ff": 8, "num_encoder_layers": 1}
    return VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**shape, **fields))


def test_the_limit_is_the_positions_of_the_model_and_the_least_of_an_ensemble():
    first, second, third = (
        model(position_encoding="learned", max_position_embeddings=20),
        model(),
        model(position_encoding="learned", max_position_embeddings=10),
    )
    assert max_source_length(first) == 20
    assert max_source_length(second) is None
    assert max_source_length(EnsembleForConditionalGeneration([second, first, third])) == 10
