"""Test sets by name: sacrebleu's, from a folder and without a network; datasets; files; and names that are none."""

import json
from urllib.error import URLError

import pytest
from sacrebleu.dataset import DATASETS, base

from hf_vanilla_transformer.evaluation import files_of_test_set, read_test_set, read_test_sets

NAME, PAIR = "wmt14/full", "en-de"
SOURCES, REFERENCES = ["A dog.", "", "Two\u2028men."], ["Ein Hund.", "Nichts.", "Zwei Männer."]


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """The folder in which sacrebleu looks for this test set; empty, and nothing can be downloaded."""
    dataset, asked = DATASETS[NAME], []
    monkeypatch.setattr(dataset, "_outdir", str(tmp_path))
    monkeypatch.setattr(dataset, "_rawdir", str(tmp_path / "raw"))

    def download_file(url, *_, **__):
        asked.append(url)
        raise URLError("no network")

    monkeypatch.setattr(base, "download_file", download_file)
    return tmp_path, asked


def store(folder):
    for field in DATASETS[NAME].fieldnames(PAIR):
        lines = {"src": SOURCES, "ref": REFERENCES}.get(field, ["x"] * 3)
        path = folder / f"wmt14_full.{PAIR}.{field}"
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def test_a_test_set_of_sacrebleu_that_is_on_the_disk(stored):
    folder, asked = stored
    store(folder)
    found = read_test_set(f"{NAME}:{PAIR}")
    assert (found.name, found.target_lang) == ("wmt14/full:en-de", "de")
    assert (found.sources, found.references) == (SOURCES, [REFERENCES])
    assert not asked


def test_without_a_network_one_line_says_what_to_do(stored):
    _, asked = stored
    with pytest.raises(OSError, match="wmt14/full:en-de is not on this disk and cannot be downloaded") as caught:
        read_test_set(f"{NAME}:{PAIR}")
    assert "sacrebleu -t wmt14/full -l en-de --echo src" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wmt41:en-de", "no test set 'wmt41'; did you mean wmt"),
        ("wmt14:en-xx", "wmt14 has no en-xx, but: .*en-de"),
        ("wmt14", "say which: wmt14:SOURCE-TARGET"),
        ("dataset=some", "Add a split"),
        ("source=a,target=b,weight=2", "a test set has no weight"),
        ("dataset=some,split=test,size=9", "a test set is read whole, whatever its size"),
        ("dataset=some,splitt=test", "did you mean split"),
        ("plain.txt", "plain.txt has no pairs"),
    ],
)
def test_what_is_no_test_set_is_explained(name, message):
    with pytest.raises(ValueError, match=message):
        read_test_set(name)


def test_languages_are_named_once(stored):
    store(stored[0])
    with pytest.raises(ValueError, match="leave out source_lang"):
        read_test_set(f"{NAME}:{PAIR}", source_lang="en")


def test_pairs_may_be_tagged_and_turned_round(tmp_path):
    (tmp_path / "test.tsv").write_text("".join(f"{row[0]}\t{row[1]}\n" for row in zip(SOURCES, REFERENCES)))
    found = read_test_set(f"{tmp_path / 'test.tsv'},tag=2en,reversed=true", "en", "de")
    assert found.sources == [f"<2en> {text}" for text in REFERENCES]
    assert (found.references, found.target_lang, found.tag) == ([SOURCES], "en", "2en")


def test_tags_are_no_words_of_the_sources(tmp_path):
    lines = ["a dog\teins", "\tzwei", "<2en>b\tdrei", "<2en> <kor> c d\tvier"]
    (tmp_path / "test.tsv").write_text("".join(f"{line}\n" for line in lines))
    plain, one, two = (read_test_set(f"{tmp_path / 'test.tsv'}{tag}") for tag in ("", ",tag=2en", ",tag=kor >>2en<<"))
    assert plain.untagged == plain.sources == ["a dog", "", "<2en>b", "<2en> <kor> c d"]
    assert one.sources == ["<2en> a dog", "", "<2en> <2en>b", "<2en> <2en> <kor> c d"]
    assert one.untagged == two.untagged == plain.sources


def test_the_files_of_a_test_set_are_known(tmp_path):
    for name, files in {
        f"{NAME}:{PAIR}": [],
        "dataset=some,split=test": [],
        "a.tsv,tag=x": ["a.tsv"],
        "source=a,target=b": ["a", "b"],
    }.items():
        assert files_of_test_set(name) == files


def test_files_of_pairs_and_datasets_are_read_as_in_training(tmp_path):
    rows = [{"translation": {"en": source, "fr": target}} for source, target in zip(SOURCES, REFERENCES)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "test.tsv").write_text("".join(f"{row[0]}\t{row[1]}\n" for row in zip(SOURCES, REFERENCES)))
    for name in (tmp_path / "test.jsonl", tmp_path / "test.tsv", f"dataset={tmp_path},split=test"):
        if str(name).startswith("dataset"):
            (tmp_path / "test.tsv").unlink()
        found = read_test_set(str(name), target_lang="fr")
        assert (found.sources, found.references) == (SOURCES, [REFERENCES])
    with pytest.raises(ValueError, match="expected text for language 'de'"):
        read_test_set(str(tmp_path / "test.jsonl"))


def test_translations_are_of_all_sets_one_after_the_other(tmp_path):
    pairs = {"a": [("one", "EINS"), ("two", "ZWEI")], "b": [("three", "DREI")]}
    for name, lines in pairs.items():
        (tmp_path / name).with_suffix(".tsv").write_text("".join(f"{each}\t{other}\n" for each, other in lines))
    for name, lines in (("out", "1\n2\n3\n"), ("short", "1\n2\n"), ("source", "x\ny\nz\n"), ("gold", "a\nb\nc\n")):
        (tmp_path / name).write_text(lines)
    sets, out = [str(tmp_path / f"{name}.tsv") for name in pairs], str(tmp_path / "out")
    found, made = read_test_sets(sets, None, None, translations=[out])
    assert [data.references for data in found] == [[["EINS", "ZWEI"]], [["DREI"]]]
    assert made == {out: [["1", "2"], ["3"]]}
    with pytest.raises(ValueError, match=r"short has 2 lines, but the test sets .*a.tsv and .*b.tsv have 3"):
        read_test_sets(sets, None, None, translations=[str(tmp_path / "short")])
    files = (str(tmp_path / "source"), [str(tmp_path / "gold"), out])
    (data,), made = read_test_sets(None, *files, translations=[out])
    assert (data.sources, data.references) == (["x", "y", "z"], [["a", "b", "c"], ["1", "2", "3"]])
    assert made == {out: [["1", "2", "3"]]}
    assert read_test_sets([], None, files[1])[0][0].sources == []
