"""Trainings of seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from training import gate


@pytest.fixture(scope="session", autouse=True)
def quick_gate() -> Iterator[None]:
    """The gate learns from few pictures: of so short a training they are most of the time, and no test here asks how
    well it learned."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "_OUTLIERS_OF_FILMS", 8)
        patch.setattr(gate, "_OUTLIERS_OF_NOTHING", 8)
        yield
