"""The tokenizer of a run: which one it is, when it is trained anew, and which ones are refused."""

import copy
import json
import sys
from dataclasses import replace

import datasets
import pytest
from tokenizers import Tokenizer, models, processors
from training_runs import arguments
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hf_vanilla_transformer import VanillaTransformerTokenizer
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.data.corpora import Corpus, TextFormat
from hf_vanilla_transformer.data.fingerprints import corpus_fingerprint
from hf_vanilla_transformer.data.unit_tokenizer import train_unit_tokenizer
from hf_vanilla_transformer.tokenization_ids import text_to_ids
from hf_vanilla_transformer.training import tokenizer_setup
from hf_vanilla_transformer.training.tokenizer_setup import check_tags, check_tokenizer, prepare_tokenizer

LINES = [{"en": f"red dogs {i}", "de": f"rote Hunde {i}", "fr": f"chiens {i}", "text": f"text {i}"} for i in range(30)]


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return Corpus(path=str(tmp_path / "train.jsonl"))


@pytest.fixture
def prepare(tmp_path):
    def make(corpora, checkpoint=None, sizes=None, **changes):
        args = arguments(tmp_path, tmp_path / "run", **{"vocab_size": 280, **changes})
        text_format = TextFormat(args.source_lang, args.target_lang, args.objective != "translation")
        prints = [corpus_fingerprint(corpus) for corpus in corpora]
        return prepare_tokenizer(args, corpora, text_format, prints, sizes or [None] * len(corpora), checkpoint)

    return make


@pytest.fixture
def trained(monkeypatch):
    """What each tokenizer that is trained is trained on."""
    calls = []

    def train(texts, **options):
        texts = list(texts)
        calls.append(texts)
        return train_tokenizer(texts=texts, **options)

    monkeypatch.setattr(tokenizer_setup, "train_tokenizer", train)
    return calls


def test_all_text_is_learned_from_once_and_what_was_made_is_found_again(prepare, corpus, trained, package_log):
    first = prepare([corpus])
    assert trained == [[line[side] for line in LINES for side in ("en", "de")]]
    assert "training a tokenizer of 280 tokens on 30 lines" in package_log.text
    second = prepare([corpus], max_tokens=99, seed=5)
    assert len(trained) == 1
    assert second.get_vocab() == first.get_vocab()


@pytest.mark.parametrize(
    ("terminal", "quiet", "shown"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_bars_are_shown_where_somebody_can_see_them(prepare, corpus, monkeypatch, terminal, quiet, shown):
    options = []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(
        tokenizer_setup, "train_tokenizer", lambda **given: options.append(given) or train_tokenizer(texts=["a b"] * 9)
    )
    prepare([corpus], disable_tqdm=quiet)
    assert [given["show_progress"] for given in options] == [shown]


@pytest.mark.parametrize(
    "changes",
    [
        {"vocab_size": 290},
        {"num_sentinels": 3},
        {"target_lang": "fr"},
        {"source_lang": "de", "target_lang": "en"},
        {"objective": "span_corruption"},
        {"objective": "denoising"},
        {"streaming": True, "max_steps": 3},
    ],
)
def test_whatever_shapes_a_tokenizer_trains_it_anew(prepare, corpus, trained, changes):
    prepare([corpus])
    made = prepare([corpus], **changes)
    assert len(trained) == 2
    assert (
        made.get_vocab()
        == train_tokenizer(
            texts=trained[1],
            vocab_size=changes.get("vocab_size", 280),
            num_sentinels=changes.get("num_sentinels", 0),
            mask_token=changes.get("objective") == "denoising",
        ).get_vocab()
    )
    prepare([corpus], **changes)
    assert len(trained) == 2


def test_other_text_trains_it_anew(prepare, corpus, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    folder = tmp_path / "dataset"
    folder.mkdir()
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text(json.dumps({"en": split, "de": split}) + "\n")
    prepare([corpus])
    prepare([corpus, corpus])
    for split in ("train", "test"):
        prepare([Corpus(dataset=str(folder), split=split)])
    (folder / "test.jsonl").write_text(json.dumps({"en": "changed", "de": "changed"}) + "\n")
    prepare([Corpus(dataset=str(folder), split="test")])
    with open(corpus.path, "a") as file:
        file.write(json.dumps({"en": "one", "de": "more"}) + "\n")
    prepare([corpus])
    assert [len(texts) for texts in trained] == [60, 120, 2, 2, 2, 62]


def test_a_tokenizer_is_written_whole_or_not_at_all(prepare, corpus, trained, tmp_path, monkeypatch):
    def dies(tokenizer, folder):
        tokenizer.save_pretrained(folder)
        raise KeyboardInterrupt

    before = prepare([corpus]).get_vocab()
    with monkeypatch.context() as patch:
        patch.setattr(tokenizer_setup, "save_tokenizer", dies)
        with pytest.raises(KeyboardInterrupt):
            prepare([corpus], vocab_size=290)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["tokenizer"]
    assert prepare([corpus]).get_vocab() == before
    assert len(trained) == 2  # what was there before is still what it says
    assert len(prepare([corpus], vocab_size=290)) == 290


def test_what_a_kill_left_is_removed_and_nothing_else(prepare, corpus, tmp_path):
    names = ("tokenizer-ab12cd_9", "tokenizer-of_mine1", "tokenizer-german")
    for name in names:
        (tmp_path / "run" / name / "tokenizer").mkdir(parents=True)
    (tmp_path / "run" / names[1] / "notes.txt").touch()
    prepare([corpus])
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["tokenizer", *names[:0:-1]]


def test_of_a_stream_the_beginning_is_learned_from_and_nothing_is_downloaded_whole(
    prepare, trained, tmp_path, monkeypatch, package_log
):
    """Each corpus as large a part as in the stream."""
    monkeypatch.setattr(tokenizer_setup, "_STREAMED_SENTENCES", 12)
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    (tmp_path / "a.tsv").write_text("".join(f"a{i}\tb{i}\n" for i in range(30)))
    corpora = [Corpus(dataset=str(folder), split="train", weight=2, size=30), Corpus(path=str(tmp_path / "a.tsv"))]
    loaded, load = [], datasets.load_dataset

    def counting(*args, **options):
        loaded.append(options)
        return load(*args, **options)

    monkeypatch.setattr("hf_vanilla_transformer.data.corpora.load_dataset", counting)
    prepare(corpora, streaming=True, max_steps=3, sizes=[30, 30])
    assert [options["streaming"] for options in loaded] == [True]
    first = [line[side] for line in LINES[:8] for side in ("en", "de")]
    assert trained == [first + [f"{side}{i}" for i in range(4) for side in "ab"]]
    assert "trained on the first 12 sentences of the stream" in package_log.text


@pytest.mark.parametrize("text", ["", "\t\n \t \n"])
def test_text_without_text_is_named(prepare, corpus, tmp_path, text):
    path = tmp_path / "blank.tsv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"nothing to learn from in .*blank\.tsv"):
        prepare([corpus, Corpus(path=str(path))])


def test_new_tokens_are_one_token_and_come_back_as_they_were(prepare, corpus):
    tokenizer = prepare([corpus], new_tokens=["Straße", "<2de>"])
    ids = tokenizer("<2de>Straße").input_ids
    assert len(ids) == 3
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<2de>Straße"


# Tokenizers that are refused


def word_tokenizer(ending="</s>", **names):
    vocabulary = {token: index for index, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "[CLS]", "[SEP]", "a"])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    if ending:
        backend.post_processor = processors.TemplateProcessing(
            single=f"$A {ending}", special_tokens=[(ending, vocabulary[ending])]
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


NAMES = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
BERT = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "<pad>"}


def without(*names):
    return {name: token for name, token in NAMES.items() if name not in names}


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (word_tokenizer("", **NAMES), r"X ends texts with '<unk>' and not with its eos_token '</s>'.*post_processor"),
        (word_tokenizer("<s>", **NAMES), r"X ends texts with '<s>' and not with its eos_token '</s>'"),
        (word_tokenizer(**without("eos_token")), r"X has no eos_token, which ends.*eos_token='</s>'\)"),
        (word_tokenizer(**without("pad_token")), r"X has no pad_token, which fills up.*pad_token='<pad>'\)"),
        (word_tokenizer(**without("bos_token")), r"X has no bos_token, which begins.*bos_token='<pad>'\)"),
        (
            word_tokenizer("[SEP]", **BERT),
            r"no eos_token, .*no bos_token, .*from_pretrained\('X', eos_token='\[SEP\]', bos_token='\[CLS\]'\)",
        ),
    ],
)
def test_what_a_model_could_not_learn_to_stop_with_is_refused(tokenizer, message):
    with pytest.raises(ValueError, match=message):
        check_tokenizer(tokenizer, "X", new_model=True)


def test_what_is_said_helps(tmp_path):
    tokenizer = word_tokenizer("[SEP]", **BERT)
    tokenizer.save_pretrained(tmp_path)
    settings = {"eos_token": "[SEP]", "bos_token": "[CLS]"}
    check_tokenizer(AutoTokenizer.from_pretrained(tmp_path, **settings), "X", new_model=True)
    tokenizer = word_tokenizer("", **NAMES)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 2)]
    )
    check_tokenizer(tokenizer, "X", new_model=True)


def test_a_model_that_has_one_says_itself_what_begins_a_translation():
    check_tokenizer(word_tokenizer(**without("bos_token")), "X", new_model=False)


def test_targets_are_looked_at_too():
    class EndsTargetsOtherwise(PreTrainedTokenizerFast):
        def _switch_to_target_mode(self):
            self.backend_tokenizer.post_processor = processors.TemplateProcessing(
                single="$A <s>", special_tokens=[("<s>", 0)]
            )

    tokenizer = EndsTargetsOtherwise(tokenizer_object=word_tokenizer().backend_tokenizer, **NAMES)
    with pytest.raises(ValueError, match="X ends targets with '<s>'"):
        check_tokenizer(tokenizer, "X", new_model=True)


def test_a_tokenizer_with_a_dropout_of_its_own_is_refused():
    tokenizer = train_tokenizer(texts=["some words"], vocab_size=260)
    check_tokenizer(tokenizer, "X", new_model=True)
    tokenizer.backend_tokenizer.model.dropout = 0.1
    with pytest.raises(ValueError, match=r"X leaves out merges at random \(dropout=0\.1\).*bpe_dropout"):
        check_tokenizer(tokenizer, "X", new_model=True)


def test_a_model_of_sentencepiece_is_no_tokenizer(prepare, corpus, tmp_path):
    (tmp_path / "x.model").write_bytes(b"\x0a\x00")
    with pytest.raises(ValueError, match=r"x\.model is a file; .*convert sentencepiece .*x\.model --output_dir DIR"):
        prepare([corpus], tokenizer_name_or_path=str(tmp_path / "x.model"))


def test_ids_that_mean_other_pieces_to_the_model_are_refused(prepare, corpus, tmp_path):
    own = train_tokenizer(texts=["red dogs", "rote Hunde"] * 3, vocab_size=270)
    other = train_tokenizer(texts=["chiens rouges", "perros"] * 3, vocab_size=268)
    longer = copy.deepcopy(own)
    longer.add_tokens(["<2de>"])
    for name, tokenizer in (("own", own), ("other", other), ("longer", longer)):
        tokenizer.save_pretrained(tmp_path / name)
    (tmp_path / "bare").mkdir()

    def of(model, tokenizer):
        paths = {"model_name_or_path": str(tmp_path / model), "tokenizer_name_or_path": str(tmp_path / tokenizer)}
        return prepare([corpus], **paths)

    assert of("own", "own").get_vocab() == own.get_vocab()
    assert of("own", "longer").get_vocab() == longer.get_vocab()
    assert of("bare", "other").get_vocab() == other.get_vocab()
    differing = [piece for piece, index in own.get_vocab().items() if other.get_vocab().get(piece) != index]
    with pytest.raises(ValueError, match=rf"other vocabulary than .*own: {len(differing)} pieces") as error:
        of("own", "other")
    assert any(repr(piece) in str(error.value) for piece in differing)
    with pytest.raises(ValueError, match=r"1 pieces .*'<2de>' \(\d+, missing\)"):
        of("longer", "own")


def test_a_resumed_run_goes_on_with_its_tokenizer_and_refuses_to_be_told_another(prepare, corpus, tmp_path):
    checkpoint, same, other = (tmp_path / name for name in ("checkpoint-1", "same", "other"))
    own = train_tokenizer(texts=["red dogs", "rote Hunde"] * 3, vocab_size=270)
    own.save_pretrained(same)
    train_tokenizer(texts=["chiens rouges", "perros"] * 3, vocab_size=270).save_pretrained(other)
    new = {"new_tokens": ["<2de>", "<2en>"]}
    started = prepare([corpus], tokenizer_name_or_path=str(same), **new)
    started.save_pretrained(checkpoint)
    for named in (None, str(same), str(checkpoint)):
        resumed = prepare([corpus], checkpoint=checkpoint, tokenizer_name_or_path=named, **new)
        assert resumed.get_vocab() == started.get_vocab()
    with pytest.raises(ValueError, match=r"=.*other with new_tokens=<2de> <2en> has another .* than .*checkpoint-1, "):
        prepare([corpus], checkpoint=checkpoint, tokenizer_name_or_path=str(other), **new)
    with pytest.raises(ValueError, match=r"=.*same has another vocabulary .*: 2 pieces .*'<2de>' \(270, missing\)"):
        prepare([corpus], checkpoint=checkpoint, tokenizer_name_or_path=str(same))


# Tags, and other units than bpe


@pytest.fixture
def words(tmp_path):
    (tmp_path / "words.tsv").write_text("né\tn e ː\nça\ts a\n")
    return Corpus(path=str(tmp_path / "words.tsv"))


def test_tags_of_the_corpora_are_special_tokens_and_no_text(prepare, corpus, trained):
    tagged = [replace(corpus, tag="2de"), replace(corpus, tag="bt 2de"), replace(corpus, tag="2en", reversed=True)]
    tokenizer = prepare(tagged, vocab_size=290)
    assert tokenizer.convert_tokens_to_ids(["<2de>", "<bt>", "<2en>"]) == [4, 5, 6]
    assert not any("<" in text for text in trained[0])
    assert tokenizer.decode(tokenizer("<2de> red dogs 3").input_ids, skip_special_tokens=True) == "red dogs 3"
    prepare(tagged, vocab_size=290)
    assert len(trained) == 1
    assert prepare([replace(corpus, tag="2fr")], vocab_size=290).convert_tokens_to_ids("<2fr>") == 4
    assert len(trained) == 2


def test_units_are_those_of_the_run_and_learned_from_each_side_whatever_the_direction(prepare, words, tmp_path):
    units = {"source_units": "nfd_characters", "target_units": "words"}
    made = [prepare([replace(words, tag="ipa"), replace(words, tag="abc", reversed=True)], **units)]
    made.append(prepare([words], **{**units, "source_units": "characters"}))
    assert {"e\u0301"[1], "▁ː", "<ipa>", "<abc>"} <= set(made[0].get_vocab())
    assert not {"é", "▁né", "n e"} & set(made[0].get_vocab())
    assert "é" in made[1].get_vocab()
    found = prepare([words], checkpoint=tmp_path / "run" / "tokenizer")  # as a run that is resumed
    assert found.get_vocab() == made[1].get_vocab()


def test_new_tags_are_the_same_whether_a_text_or_an_option_puts_them_there(prepare, corpus, words, tmp_path):
    tagged_words = (replace(words, tag="old"), {"source_units": "characters", "target_units": "words"})
    for name, (old, units) in {"bpe": (replace(corpus, tag="old"), {}), "units": tagged_words}.items():
        prepare([old], **units).save_pretrained(tmp_path / name)
        new = replace(old, tag="2de")
        tokenizer = prepare([new], tokenizer_name_or_path=str(tmp_path / name), new_tokens=["<2de>", "dogs"])
        brought = text_to_ids(tokenizer, ["<2de> red dogs 1", "<2de>red dogs 1"])
        tokenizer.tgt_lang = "de"
        assert text_to_ids(tokenizer, ["red dogs 1"]) * 2 == brought
        # A word that was added keeps the space after it.
        spaced, joined = text_to_ids(tokenizer, ["dogs 1", "dogs1"])
        assert spaced != joined


def test_new_tokens_are_added_to_a_tokenizer_of_units_too(prepare, words):
    tokenizer = prepare([words], source_units="characters", target_units="words", new_tokens=["<x>"])
    assert tokenizer.convert_ids_to_tokens(tokenizer("<x>né").input_ids) == ["<x>", "n", "é", "</s>"]


def test_reversed_text_of_two_sides_is_not_cut_by_bpe_dropout(corpus):
    sided = train_tokenizer(texts=["a b"], vocab_size=270, tags=["<x>"])
    sided = VanillaTransformerTokenizer(
        tokenizer_object=sided.backend_tokenizer,
        eos_token="</s>",
        target_side={"normalizer": {"type": "Lowercase"}, "pre_tokenizer": None},
    )
    backwards = replace(corpus, reversed=True)
    check_tags(sided, [backwards], [])
    check_tags(sided, [corpus], [], 0.1)
    with pytest.raises(ValueError, match=r"train\.jsonl: bpe_dropout=0\.1 would cut reversed text"):
        check_tags(sided, [backwards], [], 0.1)


def test_corpora_that_would_not_be_read_as_they_are_meant_are_refused(words):
    plain = train_tokenizer(texts=["a"], vocab_size=262)
    tagged = train_tokenizer(texts=["a"], vocab_size=262, tags=["<2de>"])
    check_tags(plain, [words], [words])
    check_tags(tagged, [replace(words, tag="2de")], [words])
    with pytest.raises(ValueError, match=r"words\.tsv, tag=2fr: '<2fr>' is not a tag .* it knows <2de>"):
        check_tags(tagged, [words], [replace(words, tag="2fr")])
    with pytest.raises(ValueError, match=r"tag=2de: .*it has no tags; new_tokens"):
        check_tags(plain, [replace(words, tag="2de")], [])
    tagged.tgt_lang = "de"
    check_tags(tagged, [words], [words])
    for change in ({"tag": "2de"}, {"reversed": True}):
        with pytest.raises(ValueError, match=r"puts <2de> in front of every source by itself"):
            check_tags(tagged, [replace(words, **change)], [])
    rows = [{"source": "ab", "target": "x y"}]
    phonetic = train_unit_tokenizer(rows, source_units="characters", target_units="words")
    check_tags(phonetic, [replace(words, reversed=True)], [words])
    with pytest.raises(ValueError, match="leave it out of validation_data"):
        check_tags(phonetic, [words], [replace(words, reversed=True)])
