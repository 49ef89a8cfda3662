"""What an epoch makes of a row: the same on every run, another in every epoch, as long as planned."""

import copy
from dataclasses import replace

import pytest

from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.data.corpora import Corpus, TextFormat
from hf_vanilla_transformer.data.examples import Noise, TrainingExamples, example_maker, planned_lengths
from hf_vanilla_transformer.data.filters import Filters
from hf_vanilla_transformer.data.tokenization import sentinel_ids
from hf_vanilla_transformer.data.tokenized import Cache, load_tokenized

TEXTS = [
    " ".join(["red", "blue", "dogs", "running", "quickly"][: 1 + i % 5] * (1 + i % 3)) + f" {i}" for i in range(40)
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=TEXTS * 3, vocab_size=330, num_sentinels=4)


@pytest.fixture
def read(tmp_path, tokenizer):
    """Tokenises lines of a file: texts by themselves, or with TABs pairs."""

    def make(lines, tokenizer=tokenizer, name="a"):
        monolingual = "\t" not in lines[0]
        path = tmp_path / (f"{name}.txt" if monolingual else f"{name}.tsv")
        path.write_text("".join(f"{line}\n" for line in lines))
        cache = Cache(str(tmp_path / "cache"), show_progress=False)
        text_format = TextFormat(monolingual=monolingual)
        return load_tokenized([Corpus(path=str(path))], tokenizer, text_format, Filters(), "set", cache)

    return make


@pytest.fixture
def load(read):
    """The rows that a kind of noise is for."""

    def make(noise):
        return read(TEXTS if noise.objective != "translation" else [f"{text}\t{text.upper()} {text}" for text in TEXTS])

    return make


def test_translation_takes_rows_as_they_are(tokenizer, load):
    noise = Noise()
    rows = load(noise)
    assert example_maker(noise, tokenizer) is None
    sources, targets = planned_lengths(noise, rows, tokenizer)
    assert sources.tolist() == [len(ids) for ids in rows["input_ids"]]
    assert targets.tolist() == [len(ids) for ids in rows["labels"]]


NOISES = [Noise(objective="span_corruption", seed=42), Noise(bpe_dropout=0.3, seed=42)]


@pytest.mark.parametrize("noise", NOISES)
def test_an_example_follows_from_seed_epoch_and_index(tokenizer, load, noise):
    rows = load(noise).to_list()

    def examples(epoch, seed=42):
        make = example_maker(replace(noise, seed=seed), tokenizer)
        return [make(row, epoch, index) for index, row in enumerate(rows)]

    assert examples(3) == examples(3)
    assert examples(3) != examples(4)
    assert examples(3) != examples(3, seed=1)
    assert examples(4, seed=41) != examples(3)
    make = example_maker(noise, tokenizer)
    longest = max(rows, key=lambda row: len(row["input_ids"]))
    assert len({str(make(longest, 0, index)) for index in range(20)}) > 5


def test_span_corruption_makes_what_was_planned_and_loses_nothing(tokenizer, load):
    noise = Noise(objective="span_corruption", seed=42)
    rows = load(noise)
    make = example_maker(noise, tokenizer)
    sources, targets = planned_lengths(noise, rows, tokenizer)
    sentinels = sentinel_ids(tokenizer)
    for epoch in range(3):
        for index, row in enumerate(rows):
            example = make(row, epoch, index)
            assert set(example) == {"input_ids", "labels"}
            assert (len(example["input_ids"]), len(example["labels"])) == (sources[index], targets[index])
            assert example["input_ids"][-1] == example["labels"][-1] == tokenizer.eos_token_id
            # Each sentinel of the source stands for what follows it in the target.
            spans, current = {}, None
            for token in example["labels"][:-1]:
                if token in sentinels:
                    current = spans.setdefault(token, [])
                else:
                    current.append(token)
            whole = []
            for token in example["input_ids"]:
                whole += spans.pop(token) if token in spans else [token]
            assert not spans
            assert whole == row["input_ids"]


def test_bpe_dropout_spells_the_same_text_in_other_tokens(tokenizer, load):
    noise = Noise(bpe_dropout=0.5)
    rows = load(noise)
    make = example_maker(noise, tokenizer)
    longer = 0
    for index, row in enumerate(rows):
        example = make(row, 0, index)
        assert set(example) == {"input_ids", "labels"}
        for column, side in (("input_ids", "source"), ("labels", "target")):
            assert example[column][-1] == tokenizer.eos_token_id
            assert tokenizer.decode(example[column], skip_special_tokens=True) == row[side]
            longer += len(example[column]) - len(row[column])
    assert longer > len(rows)


@pytest.mark.parametrize("processes", [1, 2])
def test_bpe_dropout_is_planned_by_the_lengths_of_each_epoch(tokenizer, load, processes):
    noise = Noise(bpe_dropout=0.5, seed=3)
    rows = load(noise)
    make, lengths = example_maker(noise, tokenizer), planned_lengths(noise, rows, tokenizer, processes)
    for epoch in (0, 5, 0):
        examples = [make(row, epoch, index) for index, row in enumerate(rows)]
        sources, targets = lengths(epoch)
        assert sources.tolist() == [len(example["input_ids"]) for example in examples]
        assert targets.tolist() == [len(example["labels"]) for example in examples]


def test_bpe_dropout_leaves_whole_what_would_not_fit_the_positions(tokenizer, load):
    free, bound = Noise(bpe_dropout=0.5), Noise(bpe_dropout=0.5, max_positions=16)
    rows = [row for row in load(free) if max(row["source_length"], row["target_length"]) <= 16]
    cut, left = 0, 0
    for index, row in enumerate(rows):
        first, second = (example_maker(noise, tokenizer)(row, 0, index) for noise in (free, bound))
        for name in ("input_ids", "labels"):
            fits = len(first[name]) <= 16
            assert second[name] == (first[name] if fits else row[name])
            cut, left = cut + fits, left + (not fits)
    assert cut > 5
    assert left > 2


@pytest.mark.parametrize("noise", NOISES)
def test_tags_are_one_token_and_what_looks_like_a_control_token_is_text(tokenizer, read, noise):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<2de>"]})
    tag, sentinels = tokenizer.convert_tokens_to_ids("<2de>"), sentinel_ids(tokenizer)
    text = "<2de>red </s> dogs <sentinel_0> <pad> and <unk>, <s>"
    rows = read([text if noise.objective != "translation" else f"{text}\t{text}"], tokenizer)
    make = example_maker(noise, tokenizer)
    for epoch in range(20):
        example = make(rows[0], epoch, 0)
        for ids in example.values():
            assert ids[-1] == 2
            assert not {0, 1, 2, 3} & set(ids[:-1])
        source, target = example["input_ids"], example["labels"]
        if noise.objective != "translation":  # every sentinel stands for a hole
            assert (source + target).count(tag) == 1
            holes = [number for number in source if number in sentinels]
            assert holes == [number for number in target if number in sentinels] == sentinels[: len(holes)]
        else:
            assert source[0] == target[0] == tag
            assert not {*sentinels, tag} & {*source[1:], *target[1:]}
            assert tokenizer.decode(source[1:-1]) == tokenizer.decode(target[1:-1]) == text.removeprefix("<2de>")


def test_all_merges_left_out_leave_bytes(tokenizer, load):
    noise = Noise(bpe_dropout=1.0)
    rows = load(noise)
    example = example_maker(noise, tokenizer)(rows[7], 0, 7)
    assert len(example["input_ids"]) == len(rows[7]["source"].encode()) + 1


def test_span_corruption_needs_sentinels():
    plain = train_tokenizer(texts=["some words"], vocab_size=260)
    with pytest.raises(ValueError, match="needs a tokenizer with sentinel tokens; set num_sentinels"):
        example_maker(Noise(objective="span_corruption"), plain)


# Rows as examples


PAIRS = [(f"word {i} \u2028 ünï", f"Wort {i}") for i in range(5)]


@pytest.fixture
def rows(read):
    return read(["\t".join(pair) for pair in PAIRS])


def test_examples_are_the_rows_in_the_order_asked_for(rows):
    examples = TrainingExamples(rows)
    assert len(examples) == 5
    batch = examples.__getitems__([(7, 4), (7, 0), (7, 4)])
    assert [example["index"] for example in batch] == [4, 0, 4]
    for example in batch:
        row = rows[example["index"]]
        assert set(example) == {"input_ids", "labels", "index"}
        assert all(list(example[name]) == row[name] for name in ("input_ids", "labels"))


def test_examples_are_made_of_row_epoch_and_index(rows):
    def make(row, epoch, index):
        return {"input_ids": [epoch, index], "labels": [len(row["source"])]}

    batch = TrainingExamples(rows, make=make).__getitems__([(3, 1), (4, 2)])
    assert [example["input_ids"] for example in batch] == [[3, 1], [4, 2]]
    assert [example["labels"] for example in batch] == [[len(PAIRS[1][0])], [len(PAIRS[2][0])]]
    assert [example["index"] for example in batch] == [1, 2]


def test_a_row_is_found_again_in_its_file(tmp_path, tokenizer):
    corpora = []
    for name, text in (("first", "a\tb\n" * 5), ("second", "\tleft out\nkept\tbehalten\n")):
        path = tmp_path / f"{name}.tsv"
        path.write_text(text)
        corpora.append(Corpus(path=str(path)))
    cache = Cache(str(tmp_path / "cache"), show_progress=False)
    rows = load_tokenized(corpora, tokenizer, TextFormat(), Filters(), "set", cache)
    assert TrainingExamples(rows, corpora).where(5) == f"{corpora[1].path}, line 2"
    assert TrainingExamples(rows).where(2) == "corpus 0, line 3"
