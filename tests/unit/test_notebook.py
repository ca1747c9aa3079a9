"""The notebook, run from top to bottom on the sample."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
pytestmark = pytest.mark.train


def test_the_exploration_runs_and_writes_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat  # noqa: PLC0415 - `make check` has none
    from nbclient import NotebookClient  # noqa: PLC0415

    monkeypatch.setenv("PNEUMOSERVE_PICTURES", str(tmp_path))
    monkeypatch.delenv("PNEUMOSERVE_FILMS", raising=False)
    notebook = nbformat.read(NOTEBOOKS / "exploration.ipynb", as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    sentence = "".join(
        output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    )
    assert "66 films" in sentence
    assert "gray levels alone: AUC 0." in sentence
    pictures = {"patients", "examples", "intensities", "means"}
    assert {path.name for path in tmp_path.iterdir()} == {f"exploration-{name}.png" for name in pictures}


def test_the_committed_notebook_holds_no_output() -> None:
    import nbformat  # noqa: PLC0415 - `make check` has none

    notebook = nbformat.read(NOTEBOOKS / "exploration.ipynb", as_version=4)
    assert not any(cell.outputs or cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
