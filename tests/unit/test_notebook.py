"""The notebook, run from top to bottom on the sample."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def test_the_exploration_runs_and_writes_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNEUMOSERVE_PICTURES", str(tmp_path))
    monkeypatch.delenv("PNEUMOSERVE_FILMS", raising=False)
    notebook = nbformat.read(NOTEBOOKS / "exploration.ipynb", as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    told = "".join(
        output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    )
    assert "66 films" in told
    assert "gray levels alone: AUC 0." in told
    pictures = {"patients", "examples", "intensities", "means"}
    assert {path.name for path in tmp_path.iterdir()} == {f"exploration-{name}.png" for name in pictures}


def test_the_committed_notebook_holds_no_output() -> None:
    notebook = nbformat.read(NOTEBOOKS / "exploration.ipynb", as_version=4)
    assert not any(cell.outputs or cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
