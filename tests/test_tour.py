"""The notebook of the tour: it is committed without outputs, and every cell runs."""

import json
import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
TOUR = PROJECT / "scripts" / "tour.ipynb"
SECTIONS = ("3", "3.1", "3.2.1", "3.2.2", "3.2.3", "3.3", "3.4", "3.5", "4", "5.1", "5.3", "5.4", "6.1", "6.2")


def cells(kind):
    return [cell for cell in json.loads(TOUR.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def test_it_is_committed_without_outputs():
    assert cells("code")
    for cell in cells("code"):
        assert (cell["outputs"], cell["execution_count"]) == ([], None)


def test_it_walks_the_paper_section_by_section():
    text = "\n".join("".join(cell["source"]) for cell in cells("markdown"))
    assert [section for section in SECTIONS if f"# §{section} " not in text] == []


@pytest.mark.slow
def test_every_cell_runs(monkeypatch):
    """Takes half a minute on a free core."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(TOUR, as_version=4)
    nbformat.validate(notebook)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")]))
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    drawing = [cell for cell in notebook.cells if cell.cell_type == "code" and "plot_" in cell.source.splitlines()[-1]]
    assert len(pictures) == len(drawing) > 8
    assert any("iframe" in output.get("data", {}).get("text/html", "") for output in outputs)
