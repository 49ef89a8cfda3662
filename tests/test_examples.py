"""What an epoch makes of a row: the same on every run, another in every epoch, as long as planned."""

import copy

import pytest

from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.data.corpora import Corpus
from hf_vanilla_transformer.data.examples import example_maker, planned_lengths
from hf_vanilla_transformer.data.tokenization import sentinel_ids
from hf_vanilla_transformer.data.tokenized import Filters, load_tokenized
from hf_vanilla_transformer.training import VanillaTransformerTrainingArguments

TEXTS = [
    " ".join(["red", "blue", "dogs", "running", "quickly"][: 1 + i % 5] * (1 + i % 3)) + f" {i}" for i in range(40)
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=TEXTS * 3, vocab_size=330, num_sentinels=4)


@pytest.fixture
def arguments(tmp_path):
    def make(**options):
        paths = {"output_dir": str(tmp_path / "out"), "data_cache_dir": str(tmp_path / "cache")}
        return VanillaTransformerTrainingArguments(**{**paths, "use_cpu": True, "disable_tqdm": True, **options})

    return make


@pytest.fixture
def load(tmp_path, tokenizer):
    def make(args):
        if args.objective == "span_corruption":
            (tmp_path / "a.txt").write_text("\n".join(TEXTS) + "\n")
            corpus = Corpus(path=str(tmp_path / "a.txt"))
        else:
            (tmp_path / "a.tsv").write_text("".join(f"{text}\t{text.upper()} {text}\n" for text in TEXTS))
            corpus = Corpus(path=str(tmp_path / "a.tsv"))
        return load_tokenized([corpus], tokenizer, args, Filters(), "set")

    return make


def test_translation_takes_rows_as_they_are(arguments, tokenizer, load):
    args = arguments()
    rows = load(args)
    assert example_maker(args, tokenizer) is None
    sources, targets = planned_lengths(args, rows, tokenizer)
    assert sources.tolist() == [len(ids) for ids in rows["input_ids"]]
    assert targets.tolist() == [len(ids) for ids in rows["labels"]]


OPTIONS = [{"objective": "span_corruption"}, {"bpe_dropout": 0.3}]


@pytest.mark.parametrize("options", OPTIONS)
def test_an_example_follows_from_seed_epoch_and_index(arguments, tokenizer, load, options):
    rows = load(arguments(**options)).to_list()

    def examples(epoch, seed=42):
        make = example_maker(arguments(seed=seed, **options), tokenizer)
        return [make(row, epoch, index) for index, row in enumerate(rows)]

    assert examples(3) == examples(3)
    assert examples(3) != examples(4)
    assert examples(3) != examples(3, seed=1)
    assert examples(4, seed=41) != examples(3)
    make = example_maker(arguments(**options), tokenizer)
    longest = max(rows, key=lambda row: len(row["input_ids"]))
    assert len({str(make(longest, 0, index)) for index in range(20)}) > 5


def test_span_corruption_makes_what_was_planned_and_loses_nothing(arguments, tokenizer, load):
    args = arguments(objective="span_corruption")
    rows = load(args)
    make = example_maker(args, tokenizer)
    sources, targets = planned_lengths(args, rows, tokenizer)
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


def test_bpe_dropout_spells_the_same_text_in_other_tokens(arguments, tokenizer, load):
    args = arguments(bpe_dropout=0.5)
    rows = load(args)
    make = example_maker(args, tokenizer)
    longer = 0
    for index, row in enumerate(rows):
        example = make(row, 0, index)
        assert set(example) == {"input_ids", "labels"}
        for column, side in (("input_ids", "source"), ("labels", "target")):
            assert example[column][-1] == tokenizer.eos_token_id
            assert tokenizer.decode(example[column], skip_special_tokens=True) == row[side]
            longer += len(example[column]) - len(row[column])
    assert longer > len(rows)
    sources, targets = planned_lengths(args, rows, tokenizer)  # those without it
    assert sources.tolist() == [len(ids) for ids in rows["input_ids"]]
    assert targets.tolist() == [len(ids) for ids in rows["labels"]]


@pytest.mark.parametrize("options", OPTIONS)
def test_tags_are_one_token_and_what_looks_like_a_control_token_is_text(arguments, tokenizer, tmp_path, options):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<2de>"]})
    tag, sentinels = tokenizer.convert_tokens_to_ids("<2de>"), sentinel_ids(tokenizer)
    text = "<2de>red </s> dogs <sentinel_0> <pad> and <unk>, <s>"
    args = arguments(**options)
    path = tmp_path / ("a.txt" if "objective" in options else "a.tsv")
    path.write_text(f"{text}\n" if "objective" in options else f"{text}\t{text}\n")
    rows = load_tokenized([Corpus(path=str(path))], tokenizer, args, Filters(), "set")
    make = example_maker(args, tokenizer)
    for epoch in range(20):
        example = make(rows[0], epoch, 0)
        for ids in example.values():
            assert ids[-1] == 2
            assert not {0, 1, 2, 3} & set(ids[:-1])
        source, target = example["input_ids"], example["labels"]
        if "objective" in options:  # every sentinel stands for a hole
            assert (source + target).count(tag) == 1
            holes = [number for number in source if number in sentinels]
            assert holes == [number for number in target if number in sentinels] == sentinels[: len(holes)]
        else:
            assert source[0] == target[0] == tag
            assert not {*sentinels, tag} & {*source[1:], *target[1:]}
            assert tokenizer.decode(source[1:-1]) == tokenizer.decode(target[1:-1]) == text.removeprefix("<2de>")


def test_all_merges_left_out_leave_bytes(arguments, tokenizer, load):
    args = arguments(bpe_dropout=1.0)
    rows = load(args)
    example = example_maker(args, tokenizer)(rows[7], 0, 7)
    assert len(example["input_ids"]) == len(rows[7]["source"].encode()) + 1


def test_span_corruption_needs_sentinels(arguments):
    plain = train_tokenizer(texts=["some words"], vocab_size=260)
    with pytest.raises(ValueError, match="needs a tokenizer with sentinel tokens; set num_sentinels"):
        example_maker(arguments(objective="span_corruption"), plain)
