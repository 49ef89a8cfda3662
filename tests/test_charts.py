"""Charts: what is said where matplotlib is not installed."""

import sys

import pytest

from hf_vanilla_transformer.lab.charts import new_chart


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it could not be found
    with pytest.raises(ValueError, match=r"pip install 'hf-vanilla-transformer\[lab\]'"):
        new_chart(1, 1)


def test_a_chart_has_the_size_that_was_asked_for():
    assert new_chart(3, 2).get_size_inches().tolist() == [3, 2]
