"""Where `evaluate` writes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.commands import invoke


def test_figures_of_a_release_are_not_taken_for_a_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`release push releases/*` takes all that is there."""
    written: list[Path] = []

    def evaluate(_source: Path, _dataset: str, out: Path, _outliers: Path | None) -> dict[str, Any]:
        written.append(out.resolve())
        return {}

    monkeypatch.setitem(sys.modules, "training.evaluate", SimpleNamespace(evaluate=evaluate))
    monkeypatch.chdir(tmp_path)
    done = invoke(["evaluate", "releases/95edae8d89d1", "--dataset", "images"], {})
    assert done.returncode == 0, done.stderr
    assert written == [tmp_path / "evaluations" / "95edae8d89d1"]
    assert "are in evaluations/95edae8d89d1" in done.stdout
    invoke(["evaluate", "releases/95edae8d89d1", "--dataset", "images", "--out", "mine"], {})
    assert written[1:] == [tmp_path / "mine"]
