"""What tests of intake share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.dicom_peers import closed_sockets
from tests.support.told import Told, answer_as_told


@pytest.fixture(autouse=True, scope="session")
def _closed_sockets() -> Iterator[None]:
    with closed_sockets():
        yield


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    """A server that answers as it is told, and is asked again soon."""
    monkeypatch.setattr("pneumoserve.intake.backoff._FIRST_SECONDS", 0.05)
    with answer_as_told() as made:
        yield made
