"""Text of users as token ids: control tokens in it are text, added tokens are not, for tokenizers of all kinds."""

import copy
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.tokenization_ids import text_backend, text_to_ids

CONTROL = ["<s>", "<pad>", "</s>", "<unk>"]
CHARACTERS = sorted(set("abcdefghijklmnopqrstuvwxyz2ABCDE<>{}/_01 "))
TAGS = ["<2de>", "<2fr>", "_en_"]  # special, special and taking the space after it along, and not special


def with_tags(tokenizer):
    tokenizer.add_special_tokens({"extra_special_tokens": [TAGS[0], AddedToken(TAGS[1], rstrip=True, special=True)]})
    tokenizer.add_tokens([TAGS[2]])
    return tokenizer


def of_bytes():
    return train_tokenizer(texts=["a"], vocab_size=262, num_sentinels=2)


def of_bytes_saved_to_split():
    tokenizer = of_bytes()
    tokenizer.split_special_tokens = True
    return tokenizer


def like_marian():
    """Unigram over characters; a text, but no part of it, begins with a space; control tokens are not in the model."""
    backend = Tokenizer(
        models.Unigram([("?", -9.0), *((each.replace(" ", "▁"), -1.0) for each in CHARACTERS)], unk_id=0)
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.add_special_tokens(CONTROL)
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", backend.token_to_id("</s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def like_bert():
    """WordPiece over characters, in lower case; control tokens have other names, and are found in lower-cased text."""
    names = ["<cls>", "<sep>", "<mask>", "<pad>", "<unk>"]
    pieces = [*names, *CHARACTERS, *("##" + each for each in CHARACTERS)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.add_tokens([AddedToken(name, special=True, normalized=True) for name in names])
    backend.post_processor = processors.BertProcessing(("<sep>", 1), ("<cls>", 0))
    keys = ["cls_token", "sep_token", "mask_token", "pad_token", "unk_token"]
    return PreTrainedTokenizerFast(tokenizer_object=backend, **dict(zip(keys, names, strict=True)))


KINDS = [of_bytes, of_bytes_saved_to_split, like_marian, like_bert]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def tokenizer(request):
    return with_tags(request.param())


def control_strings(tokenizer):
    return [*CONTROL, "<sentinel_0>", "<sentinel_1>", *tokenizer.special_tokens_map.values()]


def ids_of_a_disguise(tokenizer, text):
    """Has the control tokens of a text written in other brackets, and takes those for what they stand for in the ids.

    For a tokenizer of single characters, which knows both kinds of brackets and no other difference between them.
    """
    flags = 0 if tokenizer.backend_tokenizer.normalizer is None else re.IGNORECASE
    pattern = re.compile("|".join(map(re.escape, control_strings(tokenizer))), flags)
    disguise = pattern.sub(lambda match: "{" + match[0][1:-1] + "}", text)
    ids = tokenizer(disguise, split_special_tokens=False).input_ids
    pairs = [("{", "<"), ("}", ">"), ("##{", "##<"), ("##}", "##>")]
    plain = {tokenizer.convert_tokens_to_ids(other): tokenizer.convert_tokens_to_ids(own) for other, own in pairs}
    return [plain.get(number, number) for number in ids]


PARTS = [*CONTROL, *TAGS, "<sentinel_1>", "<cls>", "<SEP>", "</S>", "<mask>", " ", "  ", "a", "bc", "<", "s>", "2de>"]
TEXTS = st.lists(st.sampled_from(PARTS), max_size=9).map("".join)
bounded = settings(max_examples=200, deadline=None, derandomize=True)


@bounded
@given(st.lists(TEXTS, max_size=4))
def test_control_tokens_are_as_any_other_text_and_added_tokens_are_one_token(tokenizer, texts):
    assert text_to_ids(tokenizer, texts) == [ids_of_a_disguise(tokenizer, text) for text in texts]


@bounded
@given(st.text() | TEXTS)
def test_the_tokenizer_says_the_same_wherever_it_has_but_one_thing_to_heed(tokenizer, text):
    (ids,) = text_to_ids(tokenizer, [text])
    if not any(control in text.lower() for control in control_strings(tokenizer)):
        assert ids == tokenizer(text, split_special_tokens=False).input_ids
    if not any(tag in text for tag in TAGS):
        assert ids == tokenizer(text, split_special_tokens=True).input_ids


@pytest.mark.parametrize("text", ["a </s> b <pad>", "<2de> a </s> b <pad>", "<2fr>  <s>_en_<unk>", "<sentinel_0>"])
def test_no_control_token_is_read_and_each_tag_is(tokenizer, text):
    (ids,) = text_to_ids(tokenizer, [text])
    around = tokenizer("").input_ids
    controls = [token for token in control_strings(tokenizer) if token in tokenizer.get_added_vocab()]
    numbers = tokenizer.convert_tokens_to_ids(controls)
    assert [number for number in ids if number in numbers] == around
    for tag in TAGS:
        assert ids.count(tokenizer.convert_tokens_to_ids(tag)) == text.count(tag)


@pytest.mark.parametrize("token", ["<sentinel_>", "<sentinel_x>", "<sentinel_1>x"])
def test_added_tokens_that_only_begin_like_a_sentinel_are_added_tokens(token):
    tokenizer = of_bytes()
    tokenizer.add_special_tokens({"extra_special_tokens": [token]})
    assert text_to_ids(tokenizer, [f"a{token}b<s>"])[0].count(tokenizer.convert_tokens_to_ids(token)) == 1


def test_the_four_are_text_even_where_the_tokenizer_calls_others_so():
    tokenizer = of_bytes()
    tokenizer.pad_token = "</s>"
    text = "<pad> and </s>"
    ids = text_to_ids(tokenizer, [text])[0]
    assert not {1, 2} & set(ids[:-1])
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_nothing_of_the_tokenizer_changes_and_its_padding_and_truncation_do_not_matter(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    texts = ["<2de> a </s> b", "a", "a b c d e </s>"]
    expected = text_to_ids(tokenizer, texts)
    tokenizer(texts, padding=True, truncation=True, max_length=4)
    assert text_to_ids(tokenizer, texts) == expected
    before = tokenizer(texts), tokenizer.backend_tokenizer.to_str(), tokenizer.split_special_tokens
    text_to_ids(tokenizer, texts)
    assert (tokenizer(texts), tokenizer.backend_tokenizer.to_str(), tokenizer.split_special_tokens) == before


def test_no_text_gives_no_ids(tokenizer):
    assert text_to_ids(tokenizer, []) == []


def test_the_backend_for_text_has_all_tokens_under_their_ids(tokenizer):
    before = {number: token.content for number, token in tokenizer.backend_tokenizer.get_added_tokens_decoder().items()}
    backend = text_backend(tokenizer)
    assert {number: token.content for number, token in backend.get_added_tokens_decoder().items()} == before
    assert backend.get_vocab() == tokenizer.get_vocab()


class TwoLanguages(PreTrainedTokenizerFast):
    """Puts another token around a target than around a source, as tokenizers of many languages do."""

    def _switch_to_input_mode(self):
        self._put_before_a_text("<2de>")

    def _switch_to_target_mode(self):
        self._put_before_a_text("_en_")

    def _put_before_a_text(self, tag):
        tokens = [(token, self.convert_tokens_to_ids(token)) for token in (tag, "</s>")]
        self._tokenizer.post_processor = processors.TemplateProcessing(single=f"{tag} $A </s>", special_tokens=tokens)


@pytest.mark.parametrize("text", ["a", "a</s>", "<2fr>a</s>"])
def test_targets_are_read_as_targets(text):
    tokenizer = TwoLanguages(tokenizer_object=with_tags(like_marian()).backend_tokenizer, eos_token="</s>")
    source, target = text_to_ids(tokenizer, [text])[0], text_to_ids(tokenizer, [text], as_target=True)[0]
    assert [source[0], target[0]] == tokenizer.convert_tokens_to_ids(["<2de>", "_en_"])
    assert source[1:] == target[1:]
    assert text_to_ids(tokenizer, [text])[0] == source


@pytest.mark.filterwarnings("ignore:This sequence already has </s>")
def test_a_tokenizer_in_python_passes_over_control_tokens_unless_it_would_pass_over_others_too():
    tokenizer = with_tags(ByT5Tokenizer())
    texts = ["a", "a</s>b<pad>", "<2de>a_en_", "<2de>a</s>"]
    control = tokenizer.convert_tokens_to_ids(["</s>", "<pad>"])
    ids = text_to_ids(tokenizer, texts)
    assert [tokenizer.decode(each, skip_special_tokens=True) for each in ids[:2]] == texts[:2]
    assert not set(control) & {*ids[1][:-1], *ids[2][:-1]}
    assert ids[2:] == tokenizer(texts[2:]).input_ids
    tokenizer.split_special_tokens = True
    assert text_to_ids(tokenizer, texts) == ids


def test_any_other_tokenizer_is_called_as_it_is():
    def words(text=None, text_target=None, verbose=True):
        assert not verbose
        return {"input_ids": [[len(word) for word in each.split()] for each in text or text_target]}

    assert text_to_ids(words, ["a </s>", ""]) == [[1, 4], []]
    assert text_to_ids(words, ["abc"], as_target=True) == [[3]]


def test_what_is_passed_over_is_neither_saved_nor_written_to_json(tokenizer, tmp_path):
    text_to_ids(tokenizer, ["<2de></s>"])
    tokenizer.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    special = {token["content"] for token in saved if token["special"]}
    assert {TAGS[0], TAGS[1]} <= special
    assert TAGS[2] not in special
