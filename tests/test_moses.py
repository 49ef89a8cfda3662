"""Text as Moses cuts it: against the files that the authors of real data made that way."""

import math
import shutil
import subprocess
import sys
from collections import Counter

import pytest

from hf_vanilla_transformer.evaluation import (
    moses_description,
    moses_lowercased,
    paper_description,
    paper_tokenized,
    score_translations,
)


@pytest.mark.parametrize("language", ["de", "en", "fr"])
def test_references_of_real_data_become_those_that_its_authors_published(multi30k, language):
    pytest.importorskip("sacremoses")
    raw, published = (
        (multi30k / f"test_2016_flickr.{kind}{language}").read_text(encoding="utf-8").split("\n")[:-1]
        for kind in ("", "lc.norm.tok.")
    )
    assert len(raw) == 1000
    assert moses_lowercased(raw, language) == published


def test_one_string_for_each_and_what_was_done_is_said():
    sacremoses = pytest.importorskip("sacremoses")
    made = moses_lowercased(["Er sagt: „Ja.“", "", "  ", "z.B. 3,5 %"], "de")
    assert made == ["er sagt : &quot; ja &quot; .", "", "", "z.b. 3,5 %"]
    description = moses_description("de")
    assert "moses.de" in description
    assert sacremoses.__version__ in description


# Cut by hand: compounds at their hyphens (of three single letters only the first, for matches do not overlap), marks
# that Moses knows in ASCII, abbreviations, and nothing in lower case.
CUT = {
    "Eine Rich-Text-Datei, sagt er.": "Eine Rich ##AT##-##AT## Text ##AT##-##AT## Datei , sagt er .",
    "A-B-C": "A ##AT##-##AT## B-C",
    "Ja - nein, -5 und Ost- und West": "Ja - nein , -5 und Ost- und West",
    'Das ist ”gut” & "schön"…': 'Das ist " gut " & " schön " ...',
    "Um 3,5 % am 1. Mai, z.B. hier.": "Um 3,5 % am 1. Mai , z.B. hier .",
    "": "",
}


def test_text_is_cut_as_for_the_papers_bleu():
    pytest.importorskip("sacremoses")
    assert paper_tokenized(list(CUT), "de") == list(CUT.values())
    assert "moses.de" in paper_description("de")
    assert "compounds:split" in paper_description("de")


@pytest.mark.skipif(shutil.which("perl") is None, reason="needs perl")
def test_compounds_are_split_as_by_perl():
    """By the substitution of get_ende_bleu.sh itself."""
    pytest.importorskip("sacremoses")
    raw = [*CUT, "a-b-c-d e--f -g h- - i", "Grün-weiß-rote U-Bahn-Linie 1-2-3", "--- x-- --y"]
    made = paper_tokenized(raw, "de")
    whole = "".join(line.replace(" ##AT##-##AT## ", "-") + "\n" for line in made)
    command = ["perl", "-CS", "-ple", r"s{(\S)-(\S)}{$1 ##AT##-##AT## $2}g"]
    done = subprocess.run(command, input=whole, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.split("\n")[:-1] == made
    assert "".join(made).count("##AT##-##AT##") > 8


def test_bleu_of_the_paper_is_that_of_the_formula_on_split_words():
    """As multi-bleu.perl: counts over all sentences, cut at spaces, and nothing smoothed."""
    pytest.importorskip("sacremoses")
    lines = ["Eine Rich-Text-Datei liegt hier.", "Ein E-Mail-Programm für alle Leute, sagt man."]
    references = ["Eine Rich-Text Datei liegt hier.", "Ein E-Mail-Programm für viele Leute, sagt sie."]
    cut, others = paper_tokenized(lines, "de"), paper_tokenized(references, "de")
    matches, totals = Counter(), Counter()
    for line, reference in zip(cut, others):
        for n in range(1, 5):
            grams = [Counter(zip(*[text.split()[i:] for i in range(n)])) for text in (line, reference)]
            matches[n] += (grams[0] & grams[1]).total()
            totals[n] += grams[0].total()
    lengths = [sum(len(text.split()) for text in texts) for texts in (cut, others)]
    expected = 100 * math.exp(sum(math.log(matches[n] / totals[n]) for n in range(1, 5)) / 4)
    expected *= min(1.0, math.exp(1 - lengths[1] / lengths[0]))
    found = score_translations(cut, others, ["paper_bleu", "bleu"])
    assert found["paper_bleu"].value == pytest.approx(expected)
    assert "smooth:none" in found["paper_bleu"].signature
    assert found["paper_bleu"].value > score_translations(lines, references)["bleu"].value
    assert score_translations(["a b c x d e"], ["a b c y d e"], ["paper_bleu"])["paper_bleu"].value == 0


def test_without_sacremoses_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(ValueError, match="pip install sacremoses"):
        moses_lowercased(["a"], "de")
    with pytest.raises(ValueError, match="pip install sacremoses"):
        paper_tokenized(["a"], "de")
