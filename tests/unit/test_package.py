"""Packaging a release leaves the machine's temporary folder alone."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.names import DETECTOR, TYPER
from pneumoserve.release.package import package


def test_what_another_process_packages_at_the_same_time_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in (DETECTOR, TYPER):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").touch()
    package(REFERENCE_RUN, tmp_path / "releases", None)
    assert {path.name for path in tmp_path.iterdir()} == {DETECTOR, TYPER, "releases"}
    assert [path.name for name in (DETECTOR, TYPER) for path in (tmp_path / name).iterdir()] == ["weights"] * 2
