"""The notebook: small, with the outputs of a run, which a run of today still gives."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import PROJECT

TOUR = PROJECT / "notebooks" / "tour.ipynb"


def _outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_what_is_kept_of_it_is_small_whole_and_of_nobodys_machine() -> None:
    assert TOUR.stat().st_size < 300_000
    notebook = nbformat.read(TOUR, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) > 8
    assert all(cell.execution_count for cell in cells), "run it: jupyter execute --inplace"
    assert not [output for output in _outputs(notebook) if output.output_type == "error"]
    assert not re.search(r'[" ](?:/home|/root|/tmp|/work|/Users)/', json.dumps(_outputs(notebook)))
    for target in re.findall(r"\]\((\.\./[^)]+)\)", TOUR.read_text()):
        assert (TOUR.parent / target).exists(), target


@pytest.mark.slow
def test_it_runs_in_a_folder_of_its_own(work: Path) -> None:
    folder = work / "notebooks"
    folder.mkdir()
    notebook = nbformat.read(shutil.copy(TOUR, folder), as_version=4)
    told = [output.output_type for output in _outputs(notebook)]
    NotebookClient(notebook, timeout=800, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    assert [output.output_type for output in _outputs(notebook)] == told
    shown = "".join(str(output.get("data", {}).get("text/html", "")) for output in _outputs(notebook))
    assert "out of fold: Balanced accuracy" in shown
    assert "prob_TUM" in shown
    assert list((work / "mlruns").rglob("evaluation/oof/report.html")), "the store is the test's"
