"""How to cite the software: a file of citation-file-format 1.2.0 that says what pyproject.toml says."""

from pathlib import Path

import pytest
import yaml

import hf_vanilla_transformer

PROJECT = Path(__file__).resolve().parents[1]

# Of schema 1.2.0: what a file must have, and all that it may have.
REQUIRED = {"cff-version", "message", "title", "authors"}
ALLOWED = REQUIRED | {
    "abstract", "commit", "contact", "date-released", "doi", "identifiers", "keywords", "license", "license-url",
    "preferred-citation", "references", "repository", "repository-artifact", "repository-code", "type", "url",
    "version",
}  # fmt: skip
PERSON = {"family-names", "given-names", "name-particle", "name-suffix", "affiliation", "orcid"}


@pytest.fixture(scope="module")
def citation():
    return yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))


def test_it_has_the_keys_of_the_format_and_no_others(citation):
    assert REQUIRED <= citation.keys() <= ALLOWED
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert all(isinstance(citation[name], str) and citation[name] for name in ("message", "title", "version"))
    assert [author.keys() for author in citation["authors"]] == [{"name"}]  # of an entity
    assert len(set(citation["keywords"])) == len(citation["keywords"])


def test_it_says_what_the_package_says_of_itself(citation):
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == hf_vanilla_transformer.__version__
    assert (citation["license"], citation["keywords"]) == (project["license"], project["keywords"])
    assert citation["title"].replace("_", "-") == project["name"]


def test_the_paper_is_a_reference_with_its_eight_authors(citation):
    (paper,) = citation["references"]
    assert {"authors", "title", "type"} <= paper.keys()
    assert (paper["type"], paper["title"], paper["year"]) == ("conference-paper", "Attention Is All You Need", 2017)
    assert len(paper["authors"]) == 8
    assert all({"family-names", "given-names"} <= author.keys() <= PERSON for author in paper["authors"])
    for identifier in paper["identifiers"]:
        assert identifier.keys() <= {"type", "value", "description"}
        assert identifier["type"] in ("doi", "url", "swh", "other")
    number = paper["url"].rpartition("/")[2]
    assert number in (PROJECT / "README.md").read_text(encoding="utf-8")
    assert any(identifier["value"].endswith(f"arXiv.{number}") for identifier in paper["identifiers"])
