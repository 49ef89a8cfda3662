"""Parallel and monolingual text from files and datasets, and what is said about bad lines."""

import gzip
import json
from functools import partial

import datasets
import pytest

from hf_vanilla_transformer.data.corpora import Corpus, Share, TextFormat, read_corpora

# A line separator that is no line end in a text file; letters beyond ASCII; blanks to be kept.
PAIRS = [(f" word {i} \u2028 ünï", f"Wort {i} 漢") for i in range(5)]


@pytest.fixture(autouse=True)
def _datasets_are_kept_beside_the_test(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write(path, text, zipped=False):
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    return str(path)


def nested(pair):
    return json.dumps({"translation": {"en": pair[0], "de": pair[1]}})


def flat(pair):
    return json.dumps({"en": pair[0], "de": pair[1], "id": 3})


def one_side(number):
    return "".join(pair[number] + "\n" for pair in PAIRS)


def parallel(folder, zipped=False):
    end = ".gz" if zipped else ""
    source = write(folder / f"train.en{end}", one_side(0), zipped)
    return {"source": source, "target": write(folder / f"train.de{end}", one_side(1), zipped)}


def in_lines(suffix, text):
    def make(folder, zipped=False):
        return {"path": write(folder / f"train.{suffix}{'.gz' if zipped else ''}", text, zipped)}

    return make


KINDS = {
    "parallel": parallel,
    "tsv": in_lines("tsv", "".join("\t".join(pair) + "\n" for pair in PAIRS)),
    "jsonl": in_lines("jsonl", "".join(nested(pair) + "\n" for pair in PAIRS)),
    "jsonl_by_language": in_lines("jsonl", "".join(flat(pair) + "\n" for pair in PAIRS)),
}


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_pairs_with_their_lines(tmp_path, kind, zipped):
    rows = list(Corpus(**KINDS[kind](tmp_path, zipped)).read_pairs("en", "de"))
    assert rows == [{"line": i + 1, "source": pair[0], "target": pair[1]} for i, pair in enumerate(PAIRS)]


@pytest.mark.parametrize("kind", ["parallel", "tsv"])
def test_empty_sides_are_read_here_and_filtered_elsewhere(tmp_path, kind):
    if kind == "tsv":
        corpus = Corpus(path=write(tmp_path / "a.tsv", "\tx\ny\t\n"))
    else:
        corpus = Corpus(source=write(tmp_path / "a.en", "\ny\n"), target=write(tmp_path / "a.de", "x\n\n"))
    assert [(row["source"], row["target"]) for row in corpus.read_pairs("en", "de")] == [("", "x"), ("y", "")]


def test_blank_lines_of_jsonl_are_passed_over_and_counted_as_lines(tmp_path):
    path = write(tmp_path / "a.jsonl", nested(PAIRS[0]) + "\n\n  \n" + nested(PAIRS[1]))
    assert [row["line"] for row in Corpus(path=path).read_pairs("en", "de")] == [1, 4]


@pytest.mark.parametrize("share", [None, Share()])
def test_a_dataset_folder_gives_the_pairs_of_its_split(tmp_path, share):
    folder = tmp_path / "dataset"
    folder.mkdir()
    write(folder / "train.jsonl", "".join(nested(pair) + "\n" for pair in PAIRS))
    write(folder / "validation.jsonl", nested(PAIRS[3]) + "\n")
    rows = list(Corpus(dataset=str(folder), split="train").read_pairs("en", "de", share))
    assert rows == [{"line": i, "source": pair[0], "target": pair[1]} for i, pair in enumerate(PAIRS)]
    rows = list(Corpus(dataset=str(folder), split="validation").read_pairs("en", "de", share))
    assert [(row["source"], row["target"]) for row in rows] == [PAIRS[3]]


def test_what_a_dataset_is_asked_for(monkeypatch):
    asked = []

    def load(name, config, split, streaming):
        asked.append((name, config, split, streaming))
        rows = datasets.Dataset.from_list([{"en": "a", "de": "b"}])
        return rows.to_iterable_dataset() if streaming else rows

    monkeypatch.setattr("hf_vanilla_transformer.data.corpora.load_dataset", load)
    corpus = Corpus(dataset="some/name", config="de-en", split="test")
    assert list(corpus.read_pairs("en", "de", Share())) == [{"line": 0, "source": "a", "target": "b"}]
    assert list(corpus.read_pairs("de", "en")) == [{"line": 0, "source": "b", "target": "a"}]
    assert asked == [("some/name", "de-en", "test", True), ("some/name", "de-en", "test", False)]
    with pytest.raises(ValueError, match=r"some/name/de-en/test, row 0: .*'fr', got None; there are: en, de\. Set"):
        list(corpus.read_pairs("fr", "de"))


@pytest.mark.parametrize("kind", [*KINDS, "texts"])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_of_a_file_are_its_lines_dealt_out(tmp_path, kind, count):
    if kind == "texts":
        whole = Corpus(path=write(tmp_path / "a.txt", one_side(0))).read_texts
    else:
        whole = partial(Corpus(**KINDS[kind](tmp_path)).read_pairs, "en", "de")
    for index in range(count):
        assert list(whole(share=Share(index, count))) == list(whole())[index::count]


def test_sentences_are_counted_without_keeping_them(tmp_path):
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        for zipped in (False, True):
            assert Corpus(**KINDS[kind](tmp_path / kind, zipped)).count_sentences() == 5
    assert Corpus(path=write(tmp_path / "a.jsonl", nested(PAIRS[0]) + "\n\n\n")).count_sentences() == 1
    assert Corpus(path=write(tmp_path / "a.txt", "a\n\n\n")).count_sentences() == 3
    assert Corpus(dataset="some/name", split="train", size=7).count_sentences() == 7
    folder = tmp_path / "dataset"
    folder.mkdir()
    write(folder / "train.jsonl", nested(PAIRS[0]) + "\n")
    assert Corpus(dataset=str(folder), split="train").count_sentences() is None  # it does not say
    assert len(list(Corpus(dataset=str(folder), split="train").read_pairs("en", "de"))) == 1
    assert Corpus(dataset=str(folder), split="train").count_sentences() == 1  # known since it was loaded


@pytest.mark.parametrize(
    ("line", "named"),
    [("en\tde", True), ("source\ttarget", True), ("EN\tDE", True), ("pt-br\tzh_Hans", True), ("src\ttgt", True)]
    + [("eng\tdeu", True), ("Yes.\tJa.", False), ("A dog\tde", False), ("en\ten", False), ("en", False), ("", False)],
)
def test_a_header_of_a_tsv_is_noticed_and_still_read(tmp_path, line, named):
    corpus = Corpus(path=write(tmp_path / "a.tsv.gz", f"{line}\na\tb\n", zipped=True))
    message = corpus.header(TextFormat("eng", "deu"))
    if named:
        first, second = line.lower().split("\t")
        assert f"a.tsv.gz, line 1: {first!r} and {second!r} look like names of columns" in message
        assert len(list(corpus.read_pairs("en", "de"))) == 2
    else:
        assert message is None
    assert Corpus(path=write(tmp_path / "a.jsonl", line + "\n")).header(TextFormat()) is None


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
def test_monolingual_text_is_plain_lines_or_the_key_text(tmp_path, zipped):
    end = ".gz" if zipped else ""
    plain = write(tmp_path / f"a.txt{end}", one_side(0), zipped)
    rows = write(tmp_path / f"a.jsonl{end}", "".join(json.dumps({"text": pair[0]}) + "\n" for pair in PAIRS), zipped)
    expected = [{"line": i + 1, "source": pair[0]} for i, pair in enumerate(PAIRS)]
    assert list(Corpus(path=plain).read_texts()) == list(Corpus(path=rows).read_texts()) == expected


def test_a_dataset_has_monolingual_text_too(monkeypatch):
    rows = [{"text": "a"}, {"text": None}]
    monkeypatch.setattr("hf_vanilla_transformer.data.corpora.load_dataset", lambda *args, **kwargs: rows)
    texts = Corpus(dataset="x", split="train").read_texts()
    assert next(texts) == {"line": 0, "source": "a"}
    with pytest.raises(ValueError, match=r"x/train, row 1: expected .*\"text\".*None"):
        next(texts)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 3: no JSON object"),
        ("3", "line 3: expected .*translation.*got 3"),
        ("null", "line 3: expected .*translation"),
        ('{"translation": "x"}', "line 3: expected .*translation"),
        ('{"translation": {"en": "x"}}', "line 3: expected text for language 'de', got None; there are: en"),
        ('{"en": "x", "fr": "y"}', "line 3: expected text for language 'de', got None; there are: en, fr"),
        ('{"translation": {"en": "x", "de": null}}', "line 3: expected text for language 'de', got None"),
        ('{"translation": {"en": ["x"], "de": "y"}}', r"line 3: expected text for language 'en', got \['x'\]"),
        ('{"en": "x", "de": "\\ud800"}', "line 3, language 'de': a lone surrogate"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
def test_a_bad_line_of_jsonl_is_named(tmp_path, line, message, zipped):
    path = write(tmp_path / "bad.jsonl", nested(("a", "b")) + "\n\n" + line + "\n", zipped)
    with pytest.raises(ValueError, match=f"bad.jsonl, {message}"):
        list(Corpus(path=path).read_pairs("en", "de"))


@pytest.mark.parametrize(
    ("line", "message"),
    [("[", "no JSON"), ("3", "expected"), ('{"texts": "x"}', "expected.*text"), ('{"text": "\\udfff"}', "surrogate")],
)
def test_a_bad_line_of_monolingual_jsonl_is_named(tmp_path, line, message):
    path = write(tmp_path / "bad.jsonl", '{"text": "a"}\n' + line + "\n")
    with pytest.raises(ValueError, match=rf"bad\.jsonl, line 2: .*{message}"):
        list(Corpus(path=path).read_texts())


@pytest.mark.parametrize(("line", "columns"), [("alone", "1 column"), ("a\tb\tc", "3 columns"), ("", "1 column")])
def test_a_line_of_tsv_without_two_columns_is_named(tmp_path, line, columns):
    path = write(tmp_path / "bad.tsv", f"a\tb\n{line}\n")
    with pytest.raises(ValueError, match=rf"bad\.tsv, line 2: expected SOURCE<tab>TARGET, got {columns}$"):
        list(Corpus(path=path).read_pairs("en", "de"))


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("shorter", ["source", "target"])
@pytest.mark.parametrize("lines", [0, 2])
def test_unequal_files_are_refused_with_both_line_counts(tmp_path, shorter, lines, zipped):
    files = parallel(tmp_path)
    write(tmp_path / "short", "x\n" * lines, zipped)
    long = files["target" if shorter == "source" else "source"]
    files[shorter] = str(tmp_path / "short")
    with pytest.raises(ValueError, match=f"short ends after {lines} lines, but {long} has 5"):
        list(Corpus(**files).read_pairs("en", "de"))


@pytest.mark.parametrize("name", ["train.en", "train.de"])
def test_parallel_text_that_is_not_utf8_is_named_with_its_line(tmp_path, name):
    files = parallel(tmp_path)
    (tmp_path / name).write_bytes(b"gut\n\xff\n" + b"x\n" * 3)
    with pytest.raises(ValueError, match=rf"{name}, line 2: not UTF-8"):
        list(Corpus(**files).read_pairs("en", "de"))


@pytest.mark.parametrize("suffix", ["tsv", "jsonl"])
def test_files_that_are_not_utf8_are_named_with_their_line(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", "a\tb\n" if suffix == "tsv" else nested(("a", "b")) + "\n")
    with open(path, "ab") as file:
        file.write(b"\xff\n")
    with pytest.raises(ValueError, match=rf"a\.{suffix}, line 2: not UTF-8"):
        list(Corpus(path=path).read_pairs("en", "de"))


def test_plain_text_by_itself_has_no_pairs(tmp_path):
    for name in ("a.txt", "a.en.gz", "a"):
        with pytest.raises(ValueError, match=rf"{name} has no pairs.*source=FILE,target=FILE"):
            Corpus(path=write(tmp_path / name, "a\n")).read_pairs("en", "de")


def test_parallel_text_is_not_monolingual(tmp_path):
    with pytest.raises(ValueError, match=r"train\.en and .*train\.de: parallel text"):
        Corpus(**parallel(tmp_path)).read_texts()


def test_missing_files_are_found_before_anything_is_read(tmp_path):
    files = parallel(tmp_path)
    Corpus(**files).check()
    Corpus(dataset="not/looked/for").check()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Corpus(source=files["source"], target=str(tmp_path / "nowhere")).check()
    with pytest.raises(IsADirectoryError):
        Corpus(path=str(tmp_path)).check()


def test_names_and_files():
    assert Corpus(path="a.tsv").name == "a.tsv"
    assert Corpus(source="a", target="b").name == "a and b"
    assert Corpus(dataset="d", split="train").name == "d/train"
    assert Corpus(path="a.tsv").files == ["a.tsv"]
    assert Corpus(source="a", target="b").files == ["a", "b"]
    assert Corpus(dataset="d").files == []


@pytest.mark.parametrize(
    ("description", "corpus"),
    [
        ("a.jsonl", Corpus(path="a.jsonl")),
        ("a.jsonl,weight=2", Corpus(path="a.jsonl", weight=2.0)),
        ("path=a.jsonl,weight=2", Corpus(path="a.jsonl", weight=2.0)),
        ("source=a.en, target=a.de", Corpus(source="a.en", target="a.de")),
        ("dataset=x/y,config=de-en,split=train", Corpus(dataset="x/y", config="de-en", split="train")),
        ("source=a=b,target=c", Corpus(source="a=b", target="c")),
        ({"source": "a", "target": "b", "weight": 0.5}, Corpus(source="a", target="b", weight=0.5)),
        ({"path": "a", "weight": "2.5"}, Corpus(path="a", weight=2.5)),
        ({"dataset": "x", "config": 2016}, Corpus(dataset="x", config="2016")),
        ({"dataset": "x", "config": None, "weight": None}, Corpus(dataset="x")),  # a key left empty in YAML
        (Corpus(path="a"), Corpus(path="a")),
    ],
)
def test_a_corpus_as_options_and_recipes_name_it(description, corpus):
    assert Corpus.parse(description) == corpus


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("sorce=a,target=b", "unknown key 'sorce'; did you mean source"),
        ({"zzz": "a"}, "unknown key 'zzz'; a corpus has path, source"),
        ("a.jsonl,b.jsonl", "^a.jsonl,b.jsonl: unknown key 'b.jsonl'"),
        ("path=a,weight=much", "much"),
        ("path=a,weight=0", "number above 0, and not 0.0"),
        ("path=a,weight=-1", "above 0"),
        ("path=a,weight=nan", "above 0"),
        ("path=a,weight=inf", "above 0"),
        ({"path": "a", "weight": [2]}, r"\[2\]"),
        ("source=a", "a file, source=FILE,target=FILE, or dataset=NAME"),
        ("target=a", "a file, source=FILE,target=FILE, or dataset=NAME"),
        ("path=a,target=b", "a file, source=FILE,target=FILE, or dataset=NAME"),
        ("path=a,dataset=b", "a file, source=FILE,target=FILE, or dataset=NAME"),
        ({"path": "a", "source": "b", "target": "c"}, "a file, source=FILE,target=FILE, or dataset=NAME"),
        ({}, "a file, source=FILE,target=FILE, or dataset=NAME"),
        ("", "a file, source=FILE,target=FILE, or dataset=NAME"),
        ({"path": None}, "a file, source=FILE,target=FILE, or dataset=NAME"),
    ],
)
def test_descriptions_that_name_no_corpus_are_refused(description, message):
    with pytest.raises(ValueError, match=message):
        Corpus.parse(description)


# Several corpora


def test_rows_know_their_corpus_and_line(tmp_path):
    first = Corpus(path=write(tmp_path / "first.tsv", "".join("\t".join(pair) + "\n" for pair in PAIRS)))
    second = Corpus(path=write(tmp_path / "second.tsv", "a\tb\n"))
    rows = list(read_corpora([first, second, first], TextFormat()))
    expected = [(0, i + 1) for i in range(5)] + [(1, 1)] + [(2, i + 1) for i in range(5)]
    assert [(row["corpus"], row["line"]) for row in rows] == expected


def test_the_format_decides_whether_pairs_or_texts_are_read(tmp_path):
    text = Corpus(path=write(tmp_path / "a.txt", "one\ntwo\n"))
    rows = list(read_corpora([text], TextFormat(monolingual=True)))
    assert rows == [{"corpus": 0, "line": 1, "source": "one"}, {"corpus": 0, "line": 2, "source": "two"}]
    with pytest.raises(ValueError, match=r"a\.txt has no pairs"):
        list(read_corpora([text], TextFormat()))


# Tags and directions


@pytest.mark.parametrize("kind", KINDS)
def test_a_tag_stands_in_front_of_sources_and_sides_may_change_places(tmp_path, kind):
    named = KINDS[kind](tmp_path)
    rows = list(Corpus(**named, tag="2de bt").read_pairs("en", "de"))
    assert [(row["source"], row["target"]) for row in rows] == [(f"<2de> <bt> {a}", b) for a, b in PAIRS]
    rows = list(Corpus(**named, tag="<2en>", reversed=True).read_pairs("en", "de", Share(1, 2)))
    assert [(row["source"], row["target"]) for row in rows] == [(f"<2en> {b}", a) for a, b in PAIRS[1::2]]
    assert [row["line"] for row in rows] == [2, 4]


def test_a_source_that_is_blank_stays_blank(tmp_path):
    path = write(tmp_path / "a.tsv", " \tx\n\ty\n")
    assert [row["source"] for row in Corpus(path=path, tag="2de").read_pairs("en", "de")] == [" ", ""]


@pytest.mark.parametrize(
    "description", ["a.tsv,tag=2de bt,reversed=true", {"path": "a.tsv", "tag": "2de bt", "reversed": True}]
)
def test_options_and_recipes_name_tag_and_direction(description):
    assert Corpus.parse(description) == Corpus(path="a.tsv", tag="2de bt", reversed=True)
    assert Corpus.parse("a.tsv,reversed=false") == Corpus(path="a.tsv")


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("a.tsv,reversed=yes", "reversed is true or false, and not yes"),
        ("a.tsv,tag= ", "tag='' has no name in it"),
        (
            {"path": "a.tsv", "tag": ["2de", "bt"]},
            r"tag is one value, and not \['2de', 'bt'\]; several tags are one text",
        ),
        ({"path": ["a.tsv", "b.tsv"]}, r"path is one value, and not \['a.tsv', 'b.tsv'\]$"),
    ],
)
def test_what_is_no_tag_or_direction_is_named(description, message):
    with pytest.raises(ValueError, match=message):
        Corpus.parse(description)


@pytest.mark.parametrize("option", [{"tag": "2de"}, {"reversed": True}])
def test_monolingual_text_has_neither_tag_nor_direction(tmp_path, option):
    with pytest.raises(ValueError, match="tag and reversed are for pairs"):
        Corpus(path=write(tmp_path / "a.txt", "x\n"), **option).read_texts()
