"""§5.1: pieces of words, learned from text: the backends of byte-level BPE and of WordPiece."""

from collections.abc import Callable, Iterator

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers.utils import logging

from ..tokenization_ids import UNK

logger = logging.get_logger(__name__)

_CONTINUATION = "##"
_LONGEST_WORDPIECE_WORD = 100  # characters

# Reads the training text from its beginning, and may be called again.
TrainingText = Callable[[], Iterator[str]]


def train_bpe(
    corpus: TrainingText,
    vocab_size: int,
    special_tokens: list[str | AddedToken],
    lowercase: bool,
    min_frequency: int,
    show_progress: bool,
    leading_space: bool = False,
) -> Tokenizer:
    """Learns byte-level BPE (Sennrich et al., 2016, over the bytes of UTF-8).

    Args:
        corpus: the training text.
        vocab_size: tokens to learn, with the special ones.
        special_tokens: the first tokens.
        lowercase: whether to lower-case all text.
        min_frequency: how often two tokens must meet to become one.
        show_progress: whether to show progress bars.
        leading_space: whether every text begins with a space, which decoding takes away, so that its first word is the
            token that it is elsewhere.

    Returns:
        The backend.

    Raises:
        ValueError: `vocab_size` has no room for the bytes and the special tokens.
    """
    bytes_as_characters = pre_tokenizers.ByteLevel.alphabet()
    _require_room(vocab_size, len(special_tokens), len(bytes_as_characters), "the 256 bytes")
    backend = Tokenizer(models.BPE())
    if lowercase:
        backend.normalizer = normalizers.Lowercase()
    if leading_space:
        space = normalizers.Prepend(" ")
        backend.normalizer = normalizers.Sequence([backend.normalizer, space]) if lowercase else space
    # The regex parts letters from signs before anything is merged, so no merge can spell a special token, which has
    # both. One that did would get the id of the special token.
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    if leading_space:
        backend.decoder = decoders.Sequence([backend.decoder, decoders.Strip(" ", left=1, right=0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=special_tokens,
        initial_alphabet=bytes_as_characters,
        show_progress=show_progress,
    )
    backend.train_from_iterator(corpus(), trainer)
    return backend


def train_wordpiece(
    corpus: TrainingText,
    vocab_size: int,
    special_tokens: list[str | AddedToken],
    lowercase: bool,
    min_frequency: int,
    show_progress: bool,
) -> Tokenizer:
    """Learns WordPiece, as BERT has it.

    Args:
        corpus: the training text, which is read twice.
        vocab_size: as of `train_bpe`, and so are the others.
        special_tokens: likewise.
        lowercase: likewise.
        min_frequency: likewise.
        show_progress: likewise.

    Returns:
        The backend.

    Raises:
        ValueError: `vocab_size` has no room for the alphabet and the special tokens.
    """
    # Makes a word of each punctuation mark, so that no word can spell a special token, or begin with "##".
    splitter = pre_tokenizers.BertPreTokenizer()
    normalizer = normalizers.Lowercase() if lowercase else None

    characters: set[str] = set()
    for text in corpus():
        characters.update(text)
    if normalizer is not None:
        characters = {lower for character in characters for lower in normalizer.normalize_str(character)}
    alphabet = sorted(character for character in characters if splitter.pre_tokenize_str(character))
    inside_words = [character for character in alphabet if len(splitter.pre_tokenize_str(f"a{character}a")) == 1]
    _require_room(
        vocab_size,
        len(special_tokens),
        len(alphabet) + len(inside_words),
        f"{len(alphabet)} characters, {len(inside_words)} of them in a second form inside words,",
    )

    def backend_of(model: models.WordPiece) -> Tokenizer:
        backend = Tokenizer(model)
        if normalizer is not None:
            backend.normalizer = normalizer
        backend.pre_tokenizer = splitter
        backend.decoder = decoders.WordPiece(prefix=_CONTINUATION, cleanup=False)
        return backend

    # The trainer numbers "##" tokens in an order that changes from run to run, and breaks ties by number. Those that
    # are given as special tokens keep their order; the vocabulary then goes to a tokenizer where they are not special.
    # That also gives every letter both forms, the inner one too where the training text has it only first.
    learner = backend_of(models.WordPiece(unk_token=UNK))
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[*special_tokens, *(_CONTINUATION + character for character in inside_words)],
        continuing_subword_prefix=_CONTINUATION,
        show_progress=show_progress,
    )
    learner.train_from_iterator(corpus(), trainer)
    model = models.WordPiece(
        learner.get_vocab(),
        unk_token=UNK,
        max_input_chars_per_word=_LONGEST_WORDPIECE_WORD,
        continuing_subword_prefix=_CONTINUATION,
    )
    backend = backend_of(model)
    backend.add_special_tokens(special_tokens)
    return backend


TRAINERS = {"bpe": train_bpe, "wordpiece": train_wordpiece}


def _require_room(vocab_size: int, num_special: int, num_others: int, others: str) -> None:
    if vocab_size < num_special + num_others:
        raise ValueError(
            f"`vocab_size`={vocab_size} is too small: {others} and the {num_special} special tokens need "
            f"at least {num_special + num_others}"
        )


def warn_if_smaller(backend: Tokenizer, vocab_size: int, min_frequency: int) -> None:
    """Warns of a vocabulary for which the training text was too short.

    Args:
        backend: what was learned.
        vocab_size: how many tokens were asked for.
        min_frequency: how often two tokens had to meet.
    """
    if (learned := backend.get_vocab_size()) < vocab_size:
        logger.warning(
            f"the vocabulary has {learned} tokens instead of the {vocab_size} asked for: "
            f"no other pair of tokens meets at least {min_frequency} times in the training text"
        )


__all__ = ["TRAINERS", "TrainingText", "train_bpe", "train_wordpiece", "warn_if_smaller"]
