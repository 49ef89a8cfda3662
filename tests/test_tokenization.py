"""The tokenizer: nothing is lost, text is no control token, added tokens are one each, and errors name their cause."""

import gzip
import json
import logging
import os
import pickle
import random
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from commanding import run
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from hf_vanilla_transformer import VanillaTransformerConfig
from hf_vanilla_transformer.commands.train_tokenizer import main
from hf_vanilla_transformer.data import TextFormat, train_tokenizer
from hf_vanilla_transformer.data.tokenization import (
    SPECIAL_TOKENS,
    save_tokenizer,
    sentinel_ids,
    tokenizer_statistics,
)
from hf_vanilla_transformer.tokenization_ids import text_to_ids

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "train_tokenizer.py"

SENTENCES = [
    "A man in an orange hat starring at something.",
    "A Boston Terrier is running on lush green grass in front of a white fence.",
    "A girl in karate uniform breaking a stick with a front kick.",
    "Five people wearing winter jackets and helmets stand in the snow.",
    "People are fixing the roof of a house, aren't they?",
    "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt.",
    "Ein Boston Terrier läuft über saftig-grünes Gras vor einem weißen Zaun.",
    "Ein Mädchen in einem Karateanzug bricht ein Brett mit einem Tritt.",
    "Fünf Leute in Winterjacken und mit Helmen stehen im Schnee.",
    "Leute reparieren das Dach eines Hauses.",
    "Un homme avec un chapeau orange regardant quelque chose.",
    "Cinq personnes vêtues de vestes d'hiver sont debout dans la neige.",
    "Люди ремонтируют крышу дома, а пять человек стоят на снегу.",
    "Ένας άντρας με πορτοκαλί καπέλο κοιτάζει κάτι.",
    "一个戴着橙色帽子的男人盯着什么东西。人们在修房顶。",
    "帽子をかぶった男の人が何かを見つめています。",
    "أشخاص يصلحون سقف المنزل.",
    "लोग घर की छत ठीक कर रहे हैं।",
    "Wow 👍🏽 — 3 × 4 = 12, tag #one ##two <b>bold</b> & more…",
    "The end of a sentence is </s>, its beginning <s>, filler <pad>, the rest <unk>.",
]
CORPUS = SENTENCES * 3

AWKWARD = [
    "",
    " ",
    "   leading, trailing   ",
    "two  spaces , and . spaces ' before punctuation ! ? n't 's",
    "\n\r\n\t\x0b\x0c\x1c\x85\xa0\u2028\u2029\u3000",
    "\x00\x01\x7f\x80\x9f nul and control",
    "👩\u200d👩\u200d👧\u200d👦🏳️\u200d🌈🇩🇪",
    "e\u0301 is not é, ﬁ is not fi, Å is not Å, ｆｕｌｌ",
    "Z\u0351\u036b\u0343\u036a\u0302a\u0489l\u0321g\u0322o",
    "\ufeff\ufffe\uffff\ufffd\U0010ffff\ue000",
    "ĠĊĉ ▁ ## ##ing Ã¤",  # what byte-level BPE, sentencepiece and WordPiece write inside their tokens
    "İıßẞΣσς",
    "</s>",
    "<s><pad></s><unk>",
    " </s> </s>  <pad>\n<unk><unk>",
    "a</s>b",
    "<</s>><s</s>><pa</s>d>",
    "</S> <PAD>",
    "x" * 3000,
]

# Text that is mostly the special tokens, their pieces and what may stand around them.
TEXT_WITH_SPECIAL_TOKENS = st.lists(
    st.one_of(
        st.sampled_from([*SPECIAL_TOKENS, "<sentinel_0>", " ", "\n", "<", ">", "/", "s", "Ġ", "##"]),
        st.text(max_size=3),
    ),
    max_size=8,
).map("".join)
bounded = settings(max_examples=150)


@pytest.fixture(scope="session")
def bpe():
    return train_tokenizer(texts=CORPUS, vocab_size=500)


@pytest.fixture(scope="session")
def wordpiece():
    return train_tokenizer(texts=CORPUS, vocab_size=700, model="wordpiece")


@pytest.fixture(scope="session")
def saved(bpe, wordpiece, tmp_path_factory):
    """A folder with the folders `bpe` and `wordpiece`."""
    folder = tmp_path_factory.mktemp("saved")
    for name, tokenizer in (("bpe", bpe), ("wordpiece", wordpiece)):
        save_tokenizer(tokenizer, folder / name)
    return folder


@pytest.fixture(scope="session")
def loaded(saved):
    return AutoTokenizer.from_pretrained(saved / "bpe")


@pytest.fixture(scope="session", params=["trained", "loaded"])
def lossless(request, bpe, loaded):
    return {"trained": bpe, "loaded": loaded}[request.param]


@pytest.fixture(
    scope="session",
    params=["bpe", "bpe_loaded", "wordpiece", "wordpiece_loaded", "bpe_lowercase", "wordpiece_lowercase"],
)
def any_tokenizer(request, saved):
    model, _, variant = request.param.partition("_")
    if variant == "loaded":
        return AutoTokenizer.from_pretrained(saved / model)
    if variant == "lowercase":
        return train_tokenizer(texts=CORPUS, vocab_size=700, model=model, lowercase=True)
    return request.getfixturevalue(model)


def ids_of(tokenizer, text):
    (ids,) = text_to_ids(tokenizer, [text])
    return ids


def decoded(tokenizer, text):
    return tokenizer.decode(ids_of(tokenizer, text), skip_special_tokens=True)


# --- Byte-level BPE loses nothing.


@pytest.mark.parametrize("text", AWKWARD + SENTENCES)
def test_bpe_decodes_awkward_text_to_itself(lossless, text):
    assert decoded(lossless, text) == text


@bounded
@given(st.one_of(st.text(), TEXT_WITH_SPECIAL_TOKENS))
def test_bpe_decodes_any_text_to_itself(lossless, text):
    assert decoded(lossless, text) == text


@settings(bounded, max_examples=60)
@given(st.lists(st.one_of(st.text(), TEXT_WITH_SPECIAL_TOKENS), min_size=1, max_size=5))
def test_bpe_decodes_padded_batches_of_any_text_to_themselves(lossless, texts):
    batch = lossless(texts, text_target=texts, padding=True, split_special_tokens=True)
    assert lossless.batch_decode(batch.input_ids, skip_special_tokens=True) == texts
    assert lossless.batch_decode(batch.labels, skip_special_tokens=True) == texts


@pytest.mark.slow  # 4 seconds
def test_bpe_decodes_every_character_to_itself(bpe):
    characters = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    pieces = [characters[start : start + 4096] for start in range(0, len(characters), 4096)]
    assert bpe.batch_decode(bpe(pieces).input_ids, skip_special_tokens=True) == pieces


def test_260_tokens_are_enough_for_any_text():
    tokenizer = train_tokenizer(texts=["abc"], vocab_size=260)
    assert len(tokenizer) == 260
    for text in AWKWARD:
        assert len(ids_of(tokenizer, text)) == len(text.encode("utf-8")) + 1  # a token a byte, and </s>
        assert decoded(tokenizer, text) == text


def test_lowercase_changes_case_and_nothing_else():
    text = "  Über ALLEN  Gipfeln,ist Ruh\t</S> <PAD>!"
    lower = train_tokenizer(texts=CORPUS, vocab_size=400, lowercase=True)
    assert decoded(lower, text) == text.lower()


def test_text_is_not_lowercased_unless_asked(bpe, wordpiece):
    for tokenizer in (bpe, wordpiece):
        assert decoded(tokenizer, "Ein Mann ein mann") == "Ein Mann ein mann"


# --- Special tokens.


def test_special_tokens_have_the_ids_of_the_model_config(any_tokenizer):
    config = VanillaTransformerConfig()
    assert any_tokenizer.convert_tokens_to_ids(["<s>", "<pad>", "</s>", "<unk>"]) == [0, 1, 2, 3]
    assert (any_tokenizer.bos_token, any_tokenizer.pad_token) == ("<s>", "<pad>")
    assert (any_tokenizer.eos_token, any_tokenizer.unk_token) == ("</s>", "<unk>")
    assert sorted(any_tokenizer.all_special_ids) == [0, 1, 2, 3]
    assert any_tokenizer.bos_token_id == config.bos_token_id == config.decoder_start_token_id
    assert any_tokenizer.pad_token_id == config.pad_token_id
    assert any_tokenizer.eos_token_id == config.eos_token_id


def test_nothing_but_the_four_is_special(any_tokenizer):
    assert sorted(any_tokenizer.get_added_vocab()) == sorted(SPECIAL_TOKENS)
    assert sorted(any_tokenizer.get_vocab().values()) == list(range(len(any_tokenizer)))
    assert any_tokenizer.vocab_size == len(any_tokenizer)


@bounded
@given(TEXT_WITH_SPECIAL_TOKENS)
def test_text_like_a_special_token_is_text(any_tokenizer, text):
    # WordPiece says <unk> to characters it does not know; the next test has only those it knows.
    forbidden = {0, 1, 2, 3} if type(any_tokenizer.backend_tokenizer.model).__name__ == "BPE" else {0, 1, 2}
    encodings = [
        ids_of(any_tokenizer, text),
        text_to_ids(any_tokenizer, ["x", text], as_target=True)[1],
        any_tokenizer.encode(text, split_special_tokens=True),
        any_tokenizer(text, split_special_tokens=True).input_ids,
        any_tokenizer([text, "x"], split_special_tokens=True).input_ids[0],
        any_tokenizer(text_target=text, split_special_tokens=True).input_ids,
        any_tokenizer(["x"], text_target=[text], split_special_tokens=True).labels[0],
    ]
    for ids in encodings:
        assert ids[-1] == 2
        assert not forbidden & set(ids[:-1])
    assert all(ids == encodings[0] for ids in encodings)


@pytest.mark.parametrize("special", SPECIAL_TOKENS)
@pytest.mark.parametrize("around", ["{}", " {} ", "a{}b", "{0}{0}", "A dog {} runs.", "<{}>"])
def test_each_special_token_in_a_text_is_spelled_out(any_tokenizer, special, around):
    # The training text has all the characters of these, so no word of WordPiece is unknown either.
    text = around.format(special)
    ids = ids_of(any_tokenizer, text)
    assert ids[-1] == 2
    assert min(ids[:-1]) > 3
    assert special in re.sub(r"(?<=\W) | (?=\W)", "", decoded(any_tokenizer, text))


@pytest.mark.parametrize("model", ["bpe", "wordpiece"])
def test_no_token_is_learned_that_spells_a_special_one(model):
    # Nothing else to learn from, and room for every merge there is.
    texts = [text for special in SPECIAL_TOKENS for text in (special, f" {special}", special * 3, f"x{special}x")]
    tokenizer = train_tokenizer(texts=texts * 20, vocab_size=1000, model=model)
    for text in texts:
        assert not {0, 1, 2, 3} & set(ids_of(tokenizer, text)[:-1])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"].get("merges", [])
    assert model == "wordpiece" or merges
    assert not {"".join(merge) for merge in merges} & set(SPECIAL_TOKENS)


def test_source_and_target_end_with_the_end_token(any_tokenizer):
    for text in ("", "A man.", "Ein Mann."):
        assert any_tokenizer(text).input_ids.count(2) == 1
        assert any_tokenizer(text).input_ids[-1] == 2
        assert any_tokenizer(text_target=text).input_ids == any_tokenizer(text).input_ids
    assert any_tokenizer("").input_ids == [2]
    pair = any_tokenizer("A man.", "Ein Mann.").input_ids
    assert pair == any_tokenizer("A man.").input_ids + any_tokenizer("Ein Mann.").input_ids


def test_the_end_token_survives_truncation(any_tokenizer):
    ids = any_tokenizer(SENTENCES[0], truncation=True, max_length=5).input_ids
    assert ids == any_tokenizer(SENTENCES[0]).input_ids[:4] + [2]


def test_the_model_gets_ids_and_mask_and_padding_on_the_right(any_tokenizer):
    batch = any_tokenizer(["A man.", "A man in a hat."], padding=True)
    assert sorted(batch) == ["attention_mask", "input_ids"]
    short = any_tokenizer("A man.").input_ids
    missing = len(batch.input_ids[1]) - len(short)
    assert missing > 0
    assert batch.input_ids[0] == short + [1] * missing
    assert batch.attention_mask == [[1] * len(short) + [0] * missing, [1] * len(batch.input_ids[1])]


def test_there_is_no_longest_input_unless_one_is_given(bpe, loaded, tmp_path):
    assert min(bpe.model_max_length, loaded.model_max_length) > 10**9
    train_tokenizer(texts=CORPUS, vocab_size=300, model_max_length=7, output_dir=tmp_path)
    assert len(AutoTokenizer.from_pretrained(tmp_path)(SENTENCES[0], truncation=True).input_ids) == 7


# --- Sentinels.


@pytest.fixture(
    scope="module", params=["bpe", "bpe_loaded", "bpe_saved_by_transformers", "wordpiece", "wordpiece_loaded"]
)
def with_sentinels(request, tmp_path_factory):
    model, _, variant = request.param.partition("_")
    tokenizer = train_tokenizer(texts=CORPUS, vocab_size=700, model=model, num_sentinels=30)
    if not variant:
        return tokenizer
    folder = tmp_path_factory.mktemp(request.param)
    (save_tokenizer if variant == "loaded" else type(tokenizer).save_pretrained)(tokenizer, folder)
    return AutoTokenizer.from_pretrained(folder)


def test_sentinels_come_after_the_four_and_count_in_the_vocabulary(with_sentinels):
    assert sentinel_ids(with_sentinels) == list(range(4, 34))
    assert with_sentinels.convert_ids_to_tokens([4, 5, 33]) == ["<sentinel_0>", "<sentinel_1>", "<sentinel_29>"]
    assert with_sentinels.convert_tokens_to_ids(["<s>", "<pad>", "</s>", "<unk>"]) == [0, 1, 2, 3]
    assert len(with_sentinels) == 700
    assert sorted(with_sentinels.get_vocab().values()) == list(range(700))
    assert sorted(with_sentinels.all_special_ids) == list(range(34))
    assert len(with_sentinels.get_added_vocab()) == 34


def test_sentinels_are_decoded_unless_special_tokens_are_skipped(with_sentinels):
    man, hat = (with_sentinels.encode(word, add_special_tokens=False) for word in ("man", "hat"))
    ids = [4, *man, 5, *hat, 2]
    assert with_sentinels.decode(ids).replace(" ", "") == "<sentinel_0>man<sentinel_1>hat</s>"
    assert with_sentinels.decode(ids, skip_special_tokens=True).replace(" ", "") == "manhat"


@pytest.mark.parametrize("text", ["<sentinel_0>", "a <sentinel_29>b", "<sentinel_1></s><sentinel_1>", "<sentinel_100>"])
def test_text_like_a_sentinel_is_text(with_sentinels, text):
    lossless = type(with_sentinels.backend_tokenizer.model).__name__ == "BPE"
    for ids in (ids_of(with_sentinels, text), text_to_ids(with_sentinels, [text], as_target=True)[0]):
        assert not set(range(34)) - {3} & set(ids[:-1])
        assert not lossless or with_sentinels.decode(ids, skip_special_tokens=True) == text


def test_sentinels_change_nothing_else(bpe):
    more = train_tokenizer(texts=CORPUS, vocab_size=500 + 20, num_sentinels=20)
    for text in SENTENCES + AWKWARD:
        assert more.tokenize(text, split_special_tokens=True) == bpe.tokenize(text, split_special_tokens=True)
        assert decoded(more, text) == text


def test_a_tokenizer_without_sentinels_has_no_sentinel_ids(any_tokenizer):
    assert sentinel_ids(any_tokenizer) == []


def test_words_that_look_like_sentinels_are_none():
    tokenizer = train_tokenizer(texts=["sentinel <sentinel_0>"] * 20, vocab_size=400)
    assert sentinel_ids(tokenizer) == []


@pytest.mark.parametrize("model", ["bpe", "wordpiece"])
def test_sentinels_need_room_in_the_vocabulary(model):
    with pytest.raises(ValueError, match=r"`vocab_size`=(\d+) .* 24 special tokens need at least \d+$") as refusal:
        train_tokenizer(texts=["ab"], vocab_size=24, model=model, num_sentinels=20)
    needed = int(str(refusal.value).split()[-1])
    assert len(train_tokenizer(texts=["ab"], vocab_size=needed, model=model, num_sentinels=20)) == needed


def test_a_negative_number_of_sentinels_is_refused():
    with pytest.raises(ValueError, match="`num_sentinels`=-1 is negative"):
        train_tokenizer(texts=CORPUS, num_sentinels=-1)


def test_saved_sentinels_have_the_name_that_transformers_4_reads(tmp_path):
    # There, "extra_special_tokens" has to be a dictionary, and a list ends in an error.
    train_tokenizer(texts=CORPUS, vocab_size=300, num_sentinels=2, output_dir=tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["additional_special_tokens"] == ["<sentinel_0>", "<sentinel_1>"]
    assert "extra_special_tokens" not in config


# --- Tokens that a user adds.

TAG, NAME = "<2de>", "<berlin>"  # special, and not


@pytest.fixture(scope="module", params=["bpe", "wordpiece", "sentinels", "bpe_lowercase", "split_when_saved"])
def with_tags(request, tmp_path_factory):
    """A tokenizer with an added token of each kind; and itself saved in two ways, and loaded."""
    options = {"sentinels": {"num_sentinels": 3}, "wordpiece": {"model": "wordpiece"}}.get(request.param, {})
    tokenizer = train_tokenizer(texts=CORPUS, vocab_size=700, lowercase="lower" in request.param, **options)
    if request.param == "split_when_saved":  # as was the default once
        folder = tmp_path_factory.mktemp("old")
        save_tokenizer(tokenizer, folder)
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        (folder / "tokenizer_config.json").write_text(json.dumps({**config, "split_special_tokens": True}))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer.split_special_tokens
    assert tokenizer.add_special_tokens({"extra_special_tokens": [TAG]}) == tokenizer.add_tokens([NAME]) == 1
    tokenizers = [tokenizer]
    for name, save in (("ours", save_tokenizer), ("theirs", type(tokenizer).save_pretrained)):
        folder = tmp_path_factory.mktemp(name)
        save(tokenizer, folder)
        tokenizers.append(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
    return tokenizers


def test_added_tokens_are_one_token_each_before_and_after_saving(with_tags, request):
    tag, name = with_tags[0].convert_tokens_to_ids([TAG, NAME])
    assert sorted((tag, name)) == [len(with_tags[0]) - 2, len(with_tags[0]) - 1]
    text = f"{TAG} ein Mann{NAME} {TAG}"
    for tokenizer in with_tags:
        assert tokenizer.convert_tokens_to_ids([TAG, NAME]) == [tag, name]
        calls = [ids_of(tokenizer, text)]
        if request.node.callspec.params["with_tags"] != "split_when_saved":
            calls += [tokenizer(text).input_ids, tokenizer.encode(text), tokenizer(text_target=[text]).input_ids[0]]
        for ids in calls:
            assert ids[0] == ids[-2] == tag
            assert (ids.count(tag), ids.count(name), ids.count(2)) == (2, 1, 1)


def test_added_tokens_are_decoded_as_their_kind_says(with_tags):
    for tokenizer in with_tags:
        ids = ids_of(tokenizer, f"{TAG}ein mann{NAME}")
        assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == f"einmann{NAME}"
        assert tokenizer.decode(ids).replace(" ", "") == f"{TAG}einmann{NAME}</s>"


@settings(bounded, max_examples=50)
@given(TEXT_WITH_SPECIAL_TOKENS, TEXT_WITH_SPECIAL_TOKENS)
def test_what_stands_beside_added_tokens_is_text(with_tags, first, second):
    tag, name = with_tags[0].convert_tokens_to_ids([TAG, NAME])
    for tokenizer in with_tags:
        # Added tokens part a text, and no merge crosses them.
        parts = tokenizer([first, second], add_special_tokens=False, split_special_tokens=True).input_ids
        assert ids_of(tokenizer, f"{TAG}{first}{NAME}{second}") == [tag, *parts[0], name, *parts[1], 2]


def test_a_plain_call_reads_control_tokens_as_is_usual_and_the_option_turns_that_off(with_tags, request):
    text = f"{TAG} a </s> b <pad>"
    for tokenizer in with_tags:
        tag = tokenizer.convert_tokens_to_ids(TAG)
        assert not {1, 2, tag} & set(tokenizer(text, split_special_tokens=True).input_ids[:-1])
        ids = tokenizer(text, split_special_tokens=False).input_ids
        assert (ids[0], ids.count(2), ids.count(1)) == (tag, 2, 1)
        if request.node.callspec.params["with_tags"] != "split_when_saved":
            assert tokenizer(text).input_ids == ids


# --- WordPiece loses what its documentation says, and no more.


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A  man\tin \n a hat", "A man in a hat"),  # runs of whitespace, and its kind
        (" a man ", "a man"),
        ("A man.", "A man ."),  # what touched what
        ("A man .", "A man ."),
        ("aren't", "aren ' t"),
        ("##two", "# # two"),
        ("läuft 👍🏽 über", "läuft 👍🏽 über"),
        ("Q", "<unk>"),  # a character that the corpus has not
        ("a manQ runs", "a <unk> runs"),  # the word goes, its neighbours stay
        ("a " + "a" * 100 + " b", "a " + "a" * 100 + " b"),
        ("a " + "a" * 101 + " b", "a <unk> b"),
    ],
)
def test_wordpiece_loses_what_is_documented(wordpiece, text, words):
    assert not any("Q" in sentence for sentence in CORPUS)
    ids = wordpiece.encode(text, add_special_tokens=False)
    assert wordpiece.decode(ids) == words
    assert wordpiece.decode(ids, skip_special_tokens=True).split() == words.replace("<unk>", "").split()


@bounded
@given(st.text(sorted({character for text in SENTENCES for character in text} - set(" ")), min_size=1, max_size=100))
def test_wordpiece_knows_every_word_of_known_characters(wordpiece, word):
    # Also with characters in places where the corpus never had them.
    ids = wordpiece.encode(word, add_special_tokens=False)
    assert 3 not in ids
    assert wordpiece.decode(ids).replace(" ", "") == word


# --- Saving and loading.


def test_saved_files_name_a_class_that_transformers_4_has(saved):
    for model in ("bpe", "wordpiece"):
        config = json.loads((saved / model / "tokenizer_config.json").read_text(encoding="utf-8"))
        assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
        assert config["model_input_names"] == ["input_ids", "attention_mask"]  # 4 would add token types
        assert "auto_map" not in config
        assert sorted(path.name for path in (saved / model).iterdir()) == ["tokenizer.json", "tokenizer_config.json"]


@pytest.mark.parametrize("model", ["bpe", "wordpiece"])
def test_a_tokenizer_is_the_same_after_saving_loading_copying_and_saving_again(request, saved, model, tmp_path):
    trained = request.getfixturevalue(model)
    once = AutoTokenizer.from_pretrained(saved / model, trust_remote_code=False)
    once.save_pretrained(tmp_path)
    twice = AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=False)
    for other in (once, twice, pickle.loads(pickle.dumps(once))):
        assert other.get_vocab() == trained.get_vocab()
        assert other(AWKWARD, text_target=AWKWARD) == trained(AWKWARD, text_target=AWKWARD)
        assert [other.decode(ids) for ids in other(AWKWARD).input_ids] == [
            trained.decode(ids) for ids in trained(AWKWARD).input_ids
        ]


def test_output_dir_saves_the_tokenizer_that_is_returned(tmp_path):
    tokenizer = train_tokenizer(texts=CORPUS, vocab_size=300, output_dir=tmp_path / "new" / "folder")
    save_tokenizer(tokenizer, tmp_path / "again")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "new" / "folder" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


FRESH = """
import json, sys
sys.modules["hf_vanilla_transformer"] = None  # importing it fails from here on
from transformers import AutoTokenizer
texts = json.load(sys.stdin)
result = {}
for name in ("bpe", "wordpiece", "with_model_config"):
    tokenizer = AutoTokenizer.from_pretrained(f"{sys.argv[1]}/{name}", trust_remote_code=False)
    batch = tokenizer(texts, text_target=texts, split_special_tokens=True)
    result[name] = [batch.input_ids, batch.labels,
                    [tokenizer.encode(text, split_special_tokens=True) for text in texts],
                    tokenizer.batch_decode(batch.input_ids, skip_special_tokens=True)]
json.dump(result, sys.stdout)
"""


@pytest.mark.slow  # 4 seconds: another interpreter
def test_loads_in_a_fresh_interpreter_without_the_package(bpe, wordpiece, saved, tmp_path):
    for name in ("bpe", "wordpiece"):
        (tmp_path / name).symlink_to(saved / name)
    save_tokenizer(bpe, tmp_path / "with_model_config")  # as it stands beside a model that is unknown there
    VanillaTransformerConfig.from_preset("tiny", vocab_size=len(bpe)).save_pretrained(tmp_path / "with_model_config")
    output = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path)],
        input=json.dumps(AWKWARD),
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        timeout=300,
    )
    assert output.returncode == 0, output.stderr
    result = json.loads(output.stdout)
    for name, tokenizer in (("bpe", bpe), ("wordpiece", wordpiece), ("with_model_config", bpe)):
        ids = text_to_ids(tokenizer, AWKWARD)
        assert result[name][:3] == [ids, ids, ids]
    assert result["bpe"][3] == result["with_model_config"][3] == AWKWARD


# --- Training text, and what is wrong with it.


def test_files_gzip_and_texts_train_the_same_tokenizer(tmp_path):
    half = len(CORPUS) // 2
    (tmp_path / "one.txt").write_text("\n".join(CORPUS[:half]), encoding="utf-8")
    (tmp_path / "two").write_bytes(gzip.compress("\r\n".join(CORPUS[half:]).encode()))  # no .gz in its name
    files = [str(tmp_path / "one.txt"), tmp_path / "two"]
    for model, vocab_size in (("bpe", 400), ("wordpiece", 650)):
        options = {"vocab_size": vocab_size, "model": model}
        from_files = train_tokenizer(files=files, **options).backend_tokenizer.to_str()
        from_generator = train_tokenizer(texts=(text for text in CORPUS), **options).backend_tokenizer.to_str()
        assert from_files == from_generator == train_tokenizer(texts=CORPUS, **options).backend_tokenizer.to_str()


def test_one_path_is_one_file(tmp_path):
    path = tmp_path / "text"
    path.write_text("\n".join(CORPUS), encoding="utf-8")
    expected = train_tokenizer(texts=CORPUS, vocab_size=300).get_vocab()
    assert train_tokenizer(files=path, vocab_size=300).get_vocab() == expected
    assert train_tokenizer(files=str(path), vocab_size=300).get_vocab() == expected


@pytest.mark.parametrize("model", ["bpe", "wordpiece"])
def test_the_same_text_gives_the_same_bytes_however_often(model):
    # The order in which the text comes must not matter either, as words are counted before any is cut.
    vocab_size = 450 if model == "bpe" else 600
    shuffled = CORPUS.copy()
    files = set()
    for seed in range(6):
        random.Random(seed).shuffle(shuffled)
        files.add(train_tokenizer(texts=shuffled, vocab_size=vocab_size, model=model).backend_tokenizer.to_str())
    assert len(files) == 1


@pytest.mark.parametrize(("model", "asked"), [("bpe", 20_000), ("wordpiece", 20_000)])
def test_a_corpus_too_small_for_the_vocabulary_gives_less_and_says_so(model, asked, caplog):
    with caplog.at_level(logging.WARNING):
        tokenizer = train_tokenizer(texts=CORPUS, vocab_size=asked, model=model)
    assert 300 < len(tokenizer) < asked
    (record,) = [record for record in caplog.records if record.name.startswith("hf_vanilla_transformer")]
    assert str(asked) in record.getMessage()
    assert str(len(tokenizer)) in record.getMessage()


def test_a_corpus_that_fills_the_vocabulary_raises_no_warning(caplog):
    with caplog.at_level(logging.WARNING):
        tokenizer = train_tokenizer(texts=CORPUS, vocab_size=300)
    assert len(tokenizer) == 300
    assert not caplog.records


def test_pairs_are_merged_only_as_often_as_min_frequency_asks():
    texts = ["abab", "abab", "cdcd"]  # a-b meets 4 times, c-d twice
    vocabulary = train_tokenizer(texts=texts, vocab_size=300, min_frequency=3).get_vocab()
    assert "ab" in vocabulary
    assert "cd" not in vocabulary
    assert "cd" in train_tokenizer(texts=texts, vocab_size=300, min_frequency=2).get_vocab()


@pytest.mark.parametrize("vocab_size", [259, 4, 0, -1])
def test_a_vocabulary_without_room_for_the_bytes_is_refused(vocab_size):
    with pytest.raises(ValueError, match=rf"`vocab_size`={vocab_size} .* at least 260$"):
        train_tokenizer(texts=CORPUS, vocab_size=vocab_size)


@pytest.mark.parametrize("lowercase", [False, True])
def test_a_vocabulary_without_room_for_the_alphabet_is_refused_with_what_it_needs(lowercase):
    texts = ["Aa bB, a.b?", "ab"]
    # Letters stand first or inside a word, punctuation is always a word of its own.
    needed = 4 + (2 * 2 if lowercase else 2 * 4) + 3
    with pytest.raises(ValueError, match=rf"`vocab_size`={needed - 1} .* at least {needed}$"):
        train_tokenizer(texts=texts, vocab_size=needed - 1, model="wordpiece", lowercase=lowercase)
    assert len(train_tokenizer(texts=texts, vocab_size=needed, model="wordpiece", lowercase=lowercase)) == needed


@pytest.mark.parametrize("model", ["bpe", "wordpiece"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"bad: the file is empty"),
        (b"\xef\xbb\xbf", r"bad: the file is empty"),
        (gzip.compress(b"", mtime=0), r"bad: the file is empty"),
        (b"\n  \n\t\r\n", r"bad: all of its 3 lines are blank"),
        (b"fine\n\xff\n", r"bad, line 2: not UTF-8 at byte 0"),
        (b"fine\nfine\n\x00\n", r"bad, line 3: .*binary file"),
        (gzip.compress(b"fine\n" * 100, mtime=0)[:-9], r"bad, after line \d+: damaged or truncated gzip"),
    ],
)
def test_unusable_files_are_named(tmp_path, model, content, message):
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text("\n".join(CORPUS), encoding="utf-8")
    bad.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        train_tokenizer(files=[good, bad], vocab_size=700, model=model)


def test_paths_without_a_file_are_refused_before_any_file_is_read(tmp_path):
    bad = tmp_path / "bad"
    bad.write_bytes(b"\xff")
    with pytest.raises(FileNotFoundError, match="missing"):
        train_tokenizer(files=[bad, tmp_path / "missing"])
    with pytest.raises(IsADirectoryError, match=re.escape(tmp_path.name)):
        train_tokenizer(files=[bad, tmp_path])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_instead_of_read_to_its_end(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: not a regular file"):
        train_tokenizer(files=tmp_path / "pipe")


@pytest.mark.parametrize("sources", [{}, {"files": ["a"], "texts": ["a"]}])
def test_exactly_one_source_of_text_is_asked_for(sources):
    with pytest.raises(ValueError, match=r"`files` or as `texts`"):
        train_tokenizer(**sources)


def test_no_files_and_no_texts_are_refused():
    with pytest.raises(ValueError, match=r"`files` has no file"):
        train_tokenizer(files=[])
    with pytest.raises(ValueError, match=r"`texts`.*: 0 strings"):
        train_tokenizer(texts=iter([]))
    with pytest.raises(ValueError, match=r"`texts`.*: 2 strings, none with a visible character"):
        train_tokenizer(texts=["", " \n"])


@pytest.mark.parametrize("model", ["bpe", "wordpiece"])
def test_texts_that_are_no_text_are_named_by_their_number(model):
    with pytest.raises(TypeError, match=r"item 3: expected a string, got int"):
        train_tokenizer(texts=["a", "b", 3], model=model)
    with pytest.raises(ValueError, match=r"item 2: a lone surrogate.* at position 1"):
        train_tokenizer(texts=["a", "b\ud800"], model=model)
    with pytest.raises(TypeError, match="one string"):
        train_tokenizer(texts="abc", model=model)


def test_an_error_of_the_iterator_comes_through():
    def texts():
        yield "a"
        raise ConnectionError("the stream broke")

    with pytest.raises(ConnectionError, match="the stream broke"):
        train_tokenizer(texts=texts())


def test_an_unknown_model_is_refused_with_those_allowed():
    with pytest.raises(ValueError, match=r"'unigram' is not known; allowed: 'bpe', 'wordpiece'"):
        train_tokenizer(texts=CORPUS, model="unigram")


def test_an_output_dir_that_is_a_file_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("precious")

    def texts():
        pytest.fail("the text was read")
        yield ""

    with pytest.raises(NotADirectoryError, match="file"):
        train_tokenizer(texts=texts(), output_dir=tmp_path / "file")


# --- Statistics and the script.


def test_statistics_are_those_of_the_whole_text_when_the_sample_holds_it(bpe, tmp_path):
    (tmp_path / "one").write_text("\n".join(SENTENCES) + "\n\n  \n", encoding="utf-8")
    (tmp_path / "two").write_bytes(gzip.compress(b"a man\n"))
    statistics = tokenizer_statistics(bpe, [tmp_path / "one", tmp_path / "two"])
    texts = [*SENTENCES, "a man"]
    tokens = sum(len(bpe.tokenize(text, split_special_tokens=True)) for text in texts)
    assert (statistics.files, statistics.lines) == (2, len(texts) + 2)
    assert statistics.sampled_lines == len(texts)
    assert statistics.tokens_per_line == tokens / len(texts)
    assert statistics.tokens_per_word == tokens / sum(len(text.split()) for text in texts)


def test_statistics_sample_every_line_alike(tmp_path):
    # Line n has n words of one token each, so the mean of a fair sample of 400 from 1..2000 is near 1000.5; its
    # standard deviation is 2000 / sqrt(12 * 400) * sqrt(1 - 400 / 2000) = 26.
    tokenizer = train_tokenizer(texts=["a a"], vocab_size=270)
    path = tmp_path / "text"
    path.write_text("".join("a " * n + "\n" for n in range(1, 2001)))
    statistics = tokenizer_statistics(tokenizer, path, sample_size=400)
    words_per_line = statistics.tokens_per_line / statistics.tokens_per_word
    assert (statistics.lines, statistics.sampled_lines) == (2000, 400)
    assert abs(words_per_line - 1000.5) < 4 * 26
    assert statistics == tokenizer_statistics(tokenizer, path, sample_size=400)


def run_script(*arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )


@pytest.mark.slow  # 4 seconds: another interpreter
def test_script_trains_a_tokenizer_that_its_summary_describes(tmp_path):
    (tmp_path / "en").write_text("\n".join(SENTENCES[:10] * 3) + "\n", encoding="utf-8")
    (tmp_path / "xx.gz").write_bytes(gzip.compress(("\n".join(SENTENCES[10:] * 3) + "\n").encode()))
    files = [tmp_path / "en", tmp_path / "xx.gz"]
    folder = tmp_path / "tokenizer"
    output = run_script(
        "--files", *files, "--vocab_size", 300, "--lowercase", "--num_sentinels", 7, "--mask_token",
        "--output_dir", folder,
    )  # fmt: skip
    assert output.returncode == 0, output.stderr
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == 300
    assert tokenizer.mask_token_id == 4
    assert sentinel_ids(tokenizer) == list(range(5, 12))
    assert decoded(tokenizer, "Ein  HUND </s>") == "ein  hund </s>"
    statistics = tokenizer_statistics(tokenizer, files)
    for fact in (
        "Vocabulary: 300 tokens",
        f"{len(CORPUS)} lines in 2 file",
        f"{statistics.tokens_per_word:.2f} tokens per word",
        f"{statistics.tokens_per_line:.1f} per line",
        f"AutoTokenizer.from_pretrained({str(folder)!r})",
    ):
        assert fact in output.stdout


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"fine\nb\xe4d\n", ["--vocab_size", "300"], "text, line 2: not UTF-8 at byte 1"),
        (b"fine\n", ["--vocab_size", "3", "--model", "wordpiece"], "`vocab_size`=3"),
        (b"fine\n", ["--model", "unigram"], "allowed: 'bpe', 'wordpiece'"),
        (None, [], "No such file or directory"),
    ],
)
def test_script_ends_in_one_line_for_bad_data(tmp_path, monkeypatch, capsys, content, options, message):
    path = tmp_path / "text"
    if content is not None:
        path.write_bytes(content)
    arguments = ["--files", str(path), "--output_dir", str(tmp_path / "out"), *options]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    with pytest.raises(SystemExit) as exit_status:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert exit_status.value.code == 2
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert line.startswith("train_tokenizer.py: error: ")
    assert message in line
    assert not output.out
    assert not (tmp_path / "out").exists()


def test_command_trains_units_and_tags_and_measures_each_side_in_its_own_way(tmp_path):
    (tmp_path / "words.tsv").write_text("né\tn e ː\n가\tk a\n", encoding="utf-8")
    options = ["--files", tmp_path / "words.tsv", "--output_dir", tmp_path / "out"]
    units = ["--source_units", "nfd_characters", "--target_units", "words", "--tags", "fre", "kor"]
    done = run(main, *options, *units)
    assert done.returncode == 0, done.stderr
    # n e accent, two jamo; n e length, k a.
    assert f"{(3 + 2 + 3 + 2) / (1 + 1 + 3 + 2):.2f} tokens per word" in done.stdout
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.tokenize("<kor> 가") == ["<kor> ", "ᄀ", "ᅡ"]
    tokenizer.src_lang = "fre"
    assert tokenizer("né", text_target="n e")["input_ids"][0] == tokenizer.convert_tokens_to_ids("<fre>")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target_units", "words"], "--target_units needs --source_units"),
        (["--source_units", "words", "--lowercase"], "--model and --lowercase have no effect with --source_units"),
        (["--source_units", "words", "--target_units", "characters"], "does not say whether it is source or target"),
        (["--tags", "</s>"], "'</s>' cannot be a tag"),
    ],
)
def test_command_refuses_what_does_not_go_together(tmp_path, options, message):
    (tmp_path / "text").write_text("a b\n")
    assert message in run(main, "--files", tmp_path / "text", "--output_dir", tmp_path / "out", *options).error
    assert not (tmp_path / "out").exists()


@pytest.mark.slow  # 5 seconds: another interpreter
def test_script_has_exit_status_2_and_no_traceback_as_a_process(tmp_path):
    (tmp_path / "empty").touch()
    output = run_script("--files", tmp_path / "empty", "--output_dir", tmp_path / "out")
    assert output.returncode == 2
    assert output.stderr == f"train_tokenizer.py: error: {tmp_path / 'empty'}: the file is empty\n"


def test_script_help_says_what_each_model_loses_and_has_an_example_that_parses(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--help"])
    with pytest.raises(SystemExit) as exit_status:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert exit_status.value.code == 0
    text = capsys.readouterr().out
    for word in (
        "--files",
        "--vocab_size",
        "--model",
        "--lowercase",
        "--num_sentinels",
        "--mask_token",
        "--output_dir",
        ".gz",
        "Lost",
        "whitespace",
        "<unk>",
    ):
        assert word in text
    examples = re.findall(r"^ +vanilla-transformer train-tokenizer (.*)", text, re.MULTILINE)
    options = {option for example in examples for option in re.findall(r"--\w+", example)}
    assert options
    assert options <= set(re.findall(r"^  (--\w+)", text, re.MULTILINE))


def test_pairs_in_jsonl_and_tsv_teach_their_text_and_no_syntax(tmp_path):
    pairs = [(f"{word} one", f"{word} zwei") for word in ["dog", "cat", "bird"]] * 3
    sides = [side for pair in pairs for side in pair]
    (tmp_path / "plain").write_text("".join(f"{side}\n" for side in sides))
    rows = [json.dumps({"translation": {"en": source, "xx": target}}) for source, target in pairs]
    (tmp_path / "pairs.jsonl.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    (tmp_path / "pairs.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in pairs))
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": side}) + "\n" for side in sides))
    formats = {"pairs.jsonl.gz": TextFormat("en", "xx"), "pairs.tsv": TextFormat()}
    formats["texts.jsonl"] = TextFormat(monolingual=True)
    expected = train_tokenizer(files=tmp_path / "plain", vocab_size=290)
    for name, text_format in formats.items():
        found = train_tokenizer(files=tmp_path / name, vocab_size=290, text_format=text_format)
        assert found.backend_tokenizer.to_str() == expected.backend_tokenizer.to_str(), name
        statistics = tokenizer_statistics(found, tmp_path / name, text_format=text_format)
        assert (statistics.lines, statistics.files) == (len(sides), 1)
        assert statistics.tokens_per_word == tokenizer_statistics(expected, tmp_path / "plain").tokens_per_word
    with pytest.raises(ValueError, match=r"pairs\.jsonl\.gz, line 1: .*'de'.*Set source_lang and target_lang"):
        train_tokenizer(files=tmp_path / "pairs.jsonl.gz", vocab_size=290)


@pytest.mark.parametrize("name", ["a.json", "a.csv.gz", "a.parquet", "a.tmx"])
def test_files_whose_syntax_would_be_learned_are_refused(tmp_path, name):
    (tmp_path / name).write_text("a dog\n" * 9)
    with pytest.raises(ValueError, match=f"{name}: neither plain text.*nor .jsonl or .tsv; convert it"):
        train_tokenizer(files=tmp_path / name, vocab_size=290)


def test_real_sentences_come_back_as_they_were(multi30k, tmp_path):
    for language in ("de", "en"):
        lines = (multi30k / f"train.{language}").read_bytes().split(b"\n")[:5000]
        (tmp_path / language).write_bytes(b"\n".join(lines) + b"\n")
    tokenizer = train_tokenizer(files=[tmp_path / "de", tmp_path / "en"], vocab_size=8000)
    assert len(tokenizer) == 8000
    unseen = [
        line
        for language in ("de", "en")
        for line in (multi30k / f"val.{language}").read_text("utf-8").split("\n")[:1000]
    ]
    ids = tokenizer(unseen).input_ids
    assert len(unseen) == 2000
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == unseen
    # What a vocabulary is for: far fewer tokens than characters, and not many more than words.
    assert sum(map(len, ids)) < sum(map(len, unseen)) / 3


def test_the_command_replaces_no_tokenizer_unasked(tmp_path):
    (tmp_path / "train.en").write_text("a red dog\n" * 9)
    model = tmp_path / "model"
    model.mkdir()
    (model / "tokenizer.json").write_text("that of a model")
    options = ("--files", tmp_path / "train.en", "--vocab_size", 265, "--output_dir", model)
    assert "is not empty (it has tokenizer.json)" in run(main, *options).error
    assert (model / "tokenizer.json").read_text() == "that of a model"
    assert run(main, *options, "--overwrite").returncode == 0
    assert len(AutoTokenizer.from_pretrained(model)) == 265
