"""BPE-dropout: the ways to cut a word have the probabilities of the definition, and nothing else changes."""

import copy
import itertools
import json
import pickle
import time
from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hf_vanilla_transformer.data import bpe_dropout, train_tokenizer
from hf_vanilla_transformer.data.bpe_dropout import BpeDropout
from hf_vanilla_transformer.tokenization_ids import text_to_ids

TEXTS = [
    "A Boston Terrier is running on lush green grass in front of a white fence.",
    "Five people wearing winter jackets and helmets stand in the snow, with snowmobiles in the background.",
    "Ein Boston Terrier läuft über saftig-grünes Gras vor einem weißen Zaun.",
    "Fünf Leute in Winterjacken und mit Helmen stehen im Schnee, mit Schneemobilen im Hintergrund.",
    "People are fixing the roof of a house, aren't they? </s> <unk> Люди ремонтируют крышу.",
]
AWKWARD = [
    "",
    " ",
    "\n\t  x ",
    "</s>",
    "a</s>b<pad>",
    "x" * 500,
    "ab" * 300,
    "👩\u200d👩 ﬁ Å 人们在修房顶" * 9,
    "\x00\ufffd",
]
bounded = settings(max_examples=100)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=TEXTS * 5, vocab_size=600)


@pytest.fixture(scope="module")
def with_tag(tokenizer):
    other = copy.deepcopy(tokenizer)
    other.add_special_tokens({"extra_special_tokens": ["<2de>"]})
    return other


def word_tokenizer(merges, **options):
    """A tokenizer of characters and the given merges, whose words are what stands between spaces."""
    letters = sorted({letter for merge in merges for part in merge for letter in part} | set("abcdxyz"))
    vocabulary = dict.fromkeys(["<s>", "<pad>", "</s>", "<unk>", *letters, *("".join(merge) for merge in merges)])
    vocabulary = {token: number for number, token in enumerate(vocabulary)}
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", **options))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")


def with_dropout(tokenizer, p):
    """The backend of a tokenizer, with the dropout of `tokenizers` itself."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.model.dropout = p
    return backend


def probabilities(tokenizer, word, p):
    """The definition, by enumeration: every subset of the possible merges, in every step, with its probability."""
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    ranks = {tuple(merge): rank for rank, merge in enumerate(merges)}

    @cache
    def cuts(symbols):
        pairs = itertools.pairwise(symbols)
        possible = [(ranks[pair], place) for place, pair in enumerate(pairs) if pair in ranks]
        found = Counter()
        for is_kept in itertools.product([False, True], repeat=len(possible)):
            share = p ** is_kept.count(False) * (1 - p) ** is_kept.count(True)
            if not any(is_kept):
                found[symbols] += share
                continue
            _, place = min(itertools.compress(possible, is_kept))
            after = (*symbols[:place], symbols[place] + symbols[place + 1], *symbols[place + 2 :])
            for cut, probability in cuts(after).items():
                found[cut] += share * probability
        return found

    return cuts(tuple(word))


def assert_distributed(counts, expected, deviations=4):
    """Chi-square, rare cuts counted as one: at most so many standard deviations from the mean of its distribution."""
    assert set(counts) <= {cut for cut, probability in expected.items() if probability}
    samples = sum(counts.values())
    cells = [(counts[cut], samples * probability) for cut, probability in expected.items()]
    common = [cell for cell in cells if cell[1] >= 5]
    rest = [sum(column) for column in zip((0, 0.0), *(cell for cell in cells if cell[1] < 5))]
    if rest[1] >= 5:
        common.append(rest)
    chi_square = sum((count - mean) ** 2 / mean for count, mean in common)
    freedom = len(common) - 1
    assert freedom >= 1
    assert chi_square < freedom + deviations * ((2 * freedom) ** 0.5 + 1), (counts, expected)


def cuts_of(tokenizer, word, p, samples):
    """How often the cuts of a word come. All samples in one text would do too; this is a text each."""
    dropout, rng = BpeDropout(tokenizer, p), np.random.default_rng(0)
    return Counter(
        tuple(tokenizer.convert_ids_to_tokens(ids[:-1])) for ids in dropout.encode_batch([word] * samples, rng)
    )


# --- The probabilities.

TABLES = [
    [("a", "b")],
    [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")],
    [("a", "a"), ("aa", "a"), ("aa", "aa")],
    [("b", "c"), ("a", "b"), ("c", "d"), ("ab", "cd"), ("bc", "d"), ("a", "bcd")],
]


@pytest.mark.parametrize("merges", TABLES, ids=str)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("word", ["ab", "abc", "aaaa", "abcd", "aabcab"])
def test_cuts_have_the_probabilities_of_the_definition(merges, p, word):
    tiny = word_tokenizer(merges)
    expected = probabilities(tiny, word, p)
    assert sum(expected.values()) == pytest.approx(1)
    counts = cuts_of(tiny, word, p, 3000)
    if len(expected) == 1:
        assert set(counts) == set(expected)
    else:
        assert_distributed(counts, expected)


def test_the_probabilities_of_the_smallest_case_are_those_one_can_write_down():
    # abc with ab (first learned) and bc: ab if it is kept; bc if only it is; nothing if neither is.
    tiny = word_tokenizer([("a", "b"), ("b", "c")])
    p = 0.3
    expected = {("ab", "c"): 1 - p, ("a", "bc"): p * (1 - p), ("a", "b", "c"): p * p}
    assert_distributed(cuts_of(tiny, "abc", p, 5000), expected)


@pytest.mark.parametrize("word", ["people", "grass", "stehen", "snow"])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_cuts_of_learned_words_have_the_probabilities_of_the_definition(tokenizer, word, p):
    assert_distributed(cuts_of(tokenizer, word, p, 5000), probabilities(tokenizer, word, p))


# In these, no merge makes another one void that was learned later, so `tokenizers` keeps to the definition.
AGREEING = [
    ("abcd", [("a", "b"), ("c", "d"), ("ab", "cd")]),
    ("abcd", [("c", "d"), ("b", "cd"), ("a", "bcd")]),
    ("abxcd", [("c", "d"), ("x", "cd"), ("a", "b"), ("ab", "xcd")]),
]


@pytest.mark.parametrize(("word", "merges"), AGREEING)
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_cuts_are_distributed_as_those_of_tokenizers(word, merges, p):
    tiny = word_tokenizer(merges)
    samples = 6000
    backend = with_dropout(tiny, p)
    theirs = Counter(tuple(backend.encode(word, add_special_tokens=False).tokens) for _ in range(samples))
    expected = probabilities(tiny, word, p)
    assert len(expected) >= 3
    assert_distributed(cuts_of(tiny, word, p, samples), expected)
    # Random numbers of tokenizers have no seed: with this bound, chance fails one test in 100,000.
    assert_distributed(theirs, expected, deviations=8)


def test_where_tokenizers_is_known_to_differ_the_definition_is_followed():
    # "ab" makes "bc" void. By the definition, abc then needs two merges not left out. The queue of tokenizers still
    # has the void "bc" after a left out "ab+c", and gives "ab+c" another chance when it meets it.
    tiny, p, samples = word_tokenizer([("a", "b"), ("ab", "c"), ("b", "c")]), 0.4, 20_000
    by_definition = (1 - p) ** 2
    with_second_chance = (1 - p) * ((1 - p) + p * (1 - p) ** 2)
    assert probabilities(tiny, "abc", p)["abc",] == pytest.approx(by_definition)
    ours = cuts_of(tiny, "abc", p, samples)["abc",] / samples
    assert ours == pytest.approx(by_definition, abs=0.015)
    backend = with_dropout(tiny, p)
    theirs = sum(backend.encode("abc").tokens[0] == "abc" for _ in range(samples)) / samples
    assert any(theirs == pytest.approx(expected, abs=0.015) for expected in (by_definition, with_second_chance))


def test_cuts_of_the_words_of_a_text_are_independent():
    tiny, p = word_tokenizer([("a", "b")]), 0.5
    dropout, rng = BpeDropout(tiny, p), np.random.default_rng(0)
    counts = Counter(tuple(dropout.encode("ab ab", rng)) for _ in range(4000))
    a, b, ab = tiny.convert_tokens_to_ids(["a", "b", "ab"])
    pieces = {(ab,): 0.5, (a, b): 0.5}
    expected = {(*x, *y, 2): pieces[x] * pieces[y] for x in pieces for y in pieces}
    assert_distributed(counts, expected)


# --- The two ends.


@pytest.mark.parametrize("text", TEXTS + AWKWARD)
def test_p_0_gives_the_ids_of_the_tokenizer(tokenizer, text):
    ids = BpeDropout(tokenizer, 0).encode(text, np.random.default_rng(0))
    assert ids == tokenizer(text, split_special_tokens=True).input_ids


def test_p_0_gives_the_ids_of_the_tokenizer_on_real_text(multi30k):
    files = [multi30k / "train.en", multi30k / "train.de"]
    texts = [text for path in files for text in path.read_text("utf-8").split("\n")[:4000]]
    tokenizer = train_tokenizer(texts=texts, vocab_size=4000)
    assert BpeDropout(tokenizer, 0).encode_batch(texts, np.random.default_rng(0)) == tokenizer(texts).input_ids


@pytest.mark.parametrize("text", TEXTS + AWKWARD)
def test_p_1_gives_single_bytes(tokenizer, text):
    ids = BpeDropout(tokenizer, 1).encode(text, np.random.default_rng(0))
    assert len(ids) == len(text.encode("utf-8")) + 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_more_dropout_gives_more_tokens(tokenizer):
    lengths = []
    for p in (0, 0.1, 0.3, 0.7, 1):
        dropout, rng = BpeDropout(tokenizer, p), np.random.default_rng(0)
        lengths.append(sum(map(len, dropout.encode_batch(TEXTS * 20, rng))))
    assert lengths == sorted(set(lengths))


# --- Everything else is the tokenizer's.


@bounded
@given(st.lists(st.one_of(st.text(), st.sampled_from(TEXTS + AWKWARD)), max_size=4), st.integers(0, 2**32))
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_any_text_decodes_to_itself_and_ends_with_the_end_token_alone(tokenizer, p, texts, seed):
    for text, ids in zip(texts, BpeDropout(tokenizer, p).encode_batch(texts, np.random.default_rng(seed))):
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert ids[-1] == 2
        assert not {0, 1, 2, 3} & set(ids[:-1])


def test_merges_never_cross_the_words_of_the_tokenizer(tokenizer):
    dropout, rng = BpeDropout(tokenizer, 0.2), np.random.default_rng(0)
    for text in TEXTS * 20:
        backend = tokenizer.backend_tokenizer
        words = [len(word.encode()) for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
        tokens = [len(token.encode()) for token in tokenizer.convert_ids_to_tokens(dropout.encode(text, rng)[:-1])]
        assert set(itertools.accumulate(words)) <= set(itertools.accumulate(tokens))


def test_lower_casing_is_kept():
    lower = train_tokenizer(texts=TEXTS * 5, vocab_size=500, lowercase=True)
    ids = BpeDropout(lower, 0.3).encode(TEXTS[0], np.random.default_rng(0))
    assert lower.decode(ids, skip_special_tokens=True) == TEXTS[0].lower()


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("copied", [lambda dropout: dropout, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_added_tokens_in_a_text_stay_whole_and_control_tokens_are_text(tokenizer, split, copied):
    other = copy.deepcopy(tokenizer)
    other.split_special_tokens = split
    other.add_tokens([AddedToken("snowmobile"), AddedToken("Boston Terrier")])
    other.add_special_tokens({"extra_special_tokens": ["<2de>"]})
    texts = ["<2de>A snowmobile</s>and a Boston Terrier <unk>", "<pad><2de>", "<2de> snow", "snow"]
    whole = other.convert_tokens_to_ids(["snowmobile", "Boston Terrier", "<2de>"])
    dropout = copied(BpeDropout(other, 0))
    assert dropout.encode_batch(texts, np.random.default_rng(0)) == text_to_ids(other, texts)
    assert dropout.encode(texts[0], np.random.default_rng(0)) == text_to_ids(other, texts)[0]
    for p in (0, 0.5, 1):
        ids = copied(BpeDropout(other, p)).encode(texts[0], np.random.default_rng(0))
        assert set(whole) <= set(ids)
        assert not {0, 1, 2, 3} & set(ids[:-1])
        assert other.decode(ids, skip_special_tokens=True) == texts[0].removeprefix("<2de>")


@bounded
@given(st.lists(st.sampled_from(["<2de>", "</s>", "<pad>", "<unk>", " ", "snow", "<", "s>", "2de>"]), max_size=8))
def test_p_0_is_text_to_ids_for_control_tokens_and_added_tokens_in_any_order(with_tag, parts):
    text = "".join(parts)
    assert BpeDropout(with_tag, 0).encode(text, np.random.default_rng(0)) == text_to_ids(with_tag, [text])[0]


def test_an_added_token_that_merges_could_make_stays_whole():
    tiny = word_tokenizer([("a", "b"), ("ab", "c")])
    tiny.add_tokens(["abc"])
    (abc,) = tiny.convert_tokens_to_ids(["abc"])
    for p in (0, 0.5, 1):
        assert BpeDropout(tiny, p).encode("abc", np.random.default_rng(0)) == [abc, 2]


def test_unknown_characters_and_prefixes_inside_words_are_as_the_tokenizer_has_them():
    tiny = word_tokenizer([("a", "b")])
    assert BpeDropout(tiny, 0).encode("a?b ab", np.random.default_rng(0)) == tiny("a?b ab").input_ids
    vocabulary = {token: number for number, token in enumerate(["a", "##b", "##c", "ab", "##bc", "abc"])}
    backend = Tokenizer(models.BPE(vocabulary, [("##b", "##c"), ("a", "##bc")], continuing_subword_prefix="##"))
    prefixed = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert prefixed("abc").input_ids == [5]
    counts = Counter(
        tuple(ids) for ids in BpeDropout(prefixed, 0.5).encode_batch(["abc"] * 4000, np.random.default_rng(0))
    )
    assert_distributed(counts, {(5,): 0.25, (0, 4): 0.25, (0, 1, 2): 0.5})


def test_truncation_and_padding_of_the_tokenizer_are_left_alone(tokenizer):
    other = copy.deepcopy(tokenizer)
    other(TEXTS, padding=True, truncation=True, max_length=4)
    state = other.backend_tokenizer.to_str()
    ids = BpeDropout(other, 0).encode_batch(TEXTS, np.random.default_rng(0))
    assert ids == text_to_ids(tokenizer, TEXTS)
    assert other.backend_tokenizer.to_str() == state


# --- Seeds.


@pytest.mark.parametrize("p", [0, 0.1, 0.5, 1])
def test_a_batch_is_its_texts_one_after_the_other_and_the_past_has_no_influence(tokenizer, p):
    texts = TEXTS + AWKWARD
    first = BpeDropout(tokenizer, p)
    batch = first.encode_batch(texts, np.random.default_rng(7))
    again = first.encode_batch(texts, np.random.default_rng(7))
    rng = np.random.default_rng(7)
    singles = [BpeDropout(tokenizer, p).encode(text, rng) for text in texts]
    assert batch == again == singles
    assert (batch != first.encode_batch(texts, np.random.default_rng(8))) == (0 < p < 1)


def test_copies_and_pickles_go_on_alike(tokenizer):
    dropout = BpeDropout(tokenizer, 0.2)
    dropout.encode_batch(TEXTS, np.random.default_rng(0))
    texts = TEXTS + AWKWARD
    expected = dropout.encode_batch(texts, np.random.default_rng(1))
    for other in (copy.deepcopy(dropout), pickle.loads(pickle.dumps(dropout))):
        assert other.encode_batch(texts, np.random.default_rng(1)) == expected
    # What was remembered of the texts is not sent along to other processes.
    assert len(pickle.dumps(dropout)) == len(pickle.dumps(BpeDropout(tokenizer, 0.2)))


@bounded
@given(st.text("abcd x", max_size=60), st.integers(0, 2**32), st.sampled_from(TABLES), st.sampled_from([0, 0.1, 0.6]))
def test_long_words_are_cut_as_short_ones(text, seed, merges, p):
    dropout = BpeDropout(word_tokenizer(merges), p)
    results = []
    for longest in (0, 1000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bpe_dropout, "_LONGEST_WORD_IN_GRAPH", longest)
            results.append(copy.deepcopy(dropout).encode(text, np.random.default_rng(seed)))
    assert results[0] == results[1]


def test_a_graph_that_grows_too_large_starts_anew_and_changes_nothing(tokenizer, monkeypatch):
    unbounded = BpeDropout(tokenizer, 0.3)
    expected = unbounded.encode_batch(TEXTS * 10, np.random.default_rng(0))
    monkeypatch.setattr(bpe_dropout, "_MOST_NODES", 50)
    bounded_one = BpeDropout(tokenizer, 0.3)
    assert bounded_one.encode_batch(TEXTS * 10, np.random.default_rng(0)) == expected
    assert len(bounded_one._nodes) < 200 < len(unbounded._nodes)


def test_a_word_of_many_thousand_letters_takes_no_quadratic_time(tokenizer):
    dropout, rng = BpeDropout(tokenizer, 0.1), np.random.default_rng(0)
    text = "Schneemobilen" * 2000
    start = time.process_time()
    ids = dropout.encode(text, rng)
    assert time.process_time() - start < 5  # of this process: others may be busy; quadratic would be minutes
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


# --- What is refused.


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(tokenizer, p):
    with pytest.raises(ValueError, match=rf"`p`={p} "):
        BpeDropout(tokenizer, p)


def test_another_model_is_refused_by_its_name():
    wordpiece = train_tokenizer(texts=TEXTS * 5, vocab_size=400, model="wordpiece")
    with pytest.raises(ValueError, match="is WordPiece"):
        BpeDropout(wordpiece, 0.1)


def test_what_is_no_fast_tokenizer_is_refused_by_its_name():
    with pytest.raises(ValueError, match="object is none"):
        BpeDropout(object(), 0.1)


@pytest.mark.parametrize(("option", "value"), [("dropout", 0.5), ("ignore_merges", True)])
def test_options_that_merge_in_another_way_are_refused(option, value):
    with pytest.raises(ValueError, match=f"`{option}`={value}"):
        BpeDropout(word_tokenizer([("a", "b")], **{option: value}), 0.1)


@pytest.mark.parametrize("p", [0, 0.5, 1])
def test_tags_of_the_tokenizer_stand_in_front_of_sources_only_and_stay_whole(p):
    tokenizer = train_tokenizer(texts=["low lower lowest"] * 3, vocab_size=275, tags=["<2de>"])
    text, tag = "low lower", tokenizer.convert_tokens_to_ids("<2de>")
    plain = BpeDropout(tokenizer, p)
    tokenizer.tgt_lang = "de"
    dropout = BpeDropout(tokenizer, p)
    for seed in range(5):
        (expected,) = plain.encode_batch([text], np.random.default_rng(seed))
        assert dropout.encode(text, np.random.default_rng(seed), as_target=True) == expected
        assert plain.encode(f"<2de> {text}", np.random.default_rng(seed))[0] == tag
        source = dropout.encode(text, np.random.default_rng(seed))
        assert (source[0], source.count(tag)) == (tag, 1)
        assert tokenizer.decode(source, skip_special_tokens=True) == text
        if p in (0, 1):
            assert source == [tag, *expected]
