"""Claims of a list: what they may say, and mistakes that are found when the list is read."""

import re

import pytest
import yaml
from queue_lists import write_list

from hf_vanilla_transformer.lab.claims import Claim, read_claim
from hf_vanilla_transformer.lab.run_list import read_run_list


def test_a_claim_has_a_source_and_what_it_says_of_metrics():
    claim = read_claim({"source": "Table 1", "perplexity": 5, "bleu": "worse", "against": "base"})
    assert claim == Claim("Table 1", {"perplexity": 5, "bleu": "worse"}, "base")
    assert read_claim({"source": "a"}) == Claim("a", {}, None)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("worse", "claim='worse' must be a mapping"),
        ({"bleu": "worse"}, "a `source` is needed"),
        ({"source": "", "bleu": "worse"}, "a `source` is needed"),
        ({"source": 3}, "source=3 must be text"),
        ({"source": "a", "against": 1}, "against=1 must be text"),
        ({"source": "a", "blue": 1.0}, "unknown key 'blue'; did you mean bleu?"),
        ({"source": "a", "xyzzy": 1.0}, "unknown key 'xyzzy'; a claim has source, against, loss"),
        ({"source": "a", "bleu": "bad"}, "bleu='bad' is neither a number above 0 nor better, worse, same"),
        ({"source": "a", "bleu": True}, "bleu=True is neither"),
        ({"source": "a", "bleu": 0}, "bleu=0 is neither"),
        ({"source": "a", "bleu": None}, "bleu=None is neither"),
        ({"source": "a", "bleu": [1]}, "bleu=[1] is neither"),
    ],
)
def test_what_is_no_claim_is_refused(value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_claim(value)


def test_a_list_knows_the_claims_of_its_entries(tmp_path):
    claim = {"source": "a", "bleu": "worse", "against": "two"}
    runs = read_run_list(write_list(tmp_path, [{"name": "one", "claim": claim, "seeds": [1, 2]}, {"name": "two"}]))
    assert runs.claims == {"one": Claim("a", {"bleu": "worse"}, "two")}
    assert all("claim" not in run.options for run in runs.runs), "which is no option of a run"


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ([None, {"source": "a", "against": "firts"}], "against='firts' is no entry of the list; did you mean first?"),
        ([None, {"source": "a", "bleu": 1.0}], "bleu=1.0 needs a number of 'first' to be compared with"),
        ([{"source": "a", "bleu": "worse"}, None], "bleu=worse says nothing, as 'first' is compared with itself"),
        ([{"source": "a", "loss": 1.0}, {"source": "a", "bleu": 1.0}], "bleu=1.0 needs a number of 'first'"),
        ([{"source": "a"}, {"source": "a", "blue": 1.0}], "unknown key 'blue'"),
    ],
)
def test_what_cannot_be_compared_is_named_with_its_line(tmp_path, claims, message):
    entries = [{"name": name} for name in ("first", "next")]
    path = write_list(
        tmp_path, [{**entry, **({"claim": claim} if claim else {})} for entry, claim in zip(entries, claims)]
    )
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_run_list(path)
    assert re.match(rf"{re.escape(str(path))}, line \d+, run '(first|next)': claim: ", str(caught.value))


def test_defaults_have_no_claim(tmp_path):
    path = tmp_path / "runs.yaml"
    path.write_text(yaml.safe_dump({"defaults": {"claim": {"source": "a"}}, "runs": [{"name": "a"}]}))
    with pytest.raises(ValueError, match="defaults: unknown option 'claim'"):
        read_run_list(path)
