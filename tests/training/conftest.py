"""Trainings of seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.training.tiny import shrink
from training import report

# Half of so short a training is spent on its pictures.
_SAVE = report._save


@pytest.fixture(scope="session", autouse=True)
def quick_training() -> Iterator[None]:
    """No test here asks how well a network learned: of that, tests/training/test_reference.py asks the reference."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch.setattr)
        patch.setattr(report, "_save", _save_nothing)
        yield


def _save_nothing(path: Path, figure: Any) -> None:
    path.touch()
    report.plt.close(figure)  # type: ignore[attr-defined]


@contextmanager
def real_pictures() -> Iterator[None]:
    """Reports are drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "_save", _SAVE)
        yield
