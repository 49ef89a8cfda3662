"""Long sentences in pieces: everything is kept, everything fits, and cuts are where a reader would make them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.inference import EnsembleForConditionalGeneration
from hf_vanilla_transformer.source_pieces import max_source_length, source_pieces
from hf_vanilla_transformer.training import train_tokenizer

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
