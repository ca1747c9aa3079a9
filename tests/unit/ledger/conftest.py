"""A bucket in memory of each test's own."""

from __future__ import annotations

import pytest

from pneumoserve.store import MemoryStore
from tests.support.archives import Archive


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def archive(store: MemoryStore) -> Archive:
    return Archive(store)
