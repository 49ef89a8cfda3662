"""Text as Moses cuts it: against the files that the authors of real data made that way."""

import sys

import pytest

from hf_vanilla_transformer.evaluation import moses_description, moses_lowercased


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


def test_without_sacremoses_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(ValueError, match="pip install sacremoses"):
        moses_lowercased(["a"], "de")
