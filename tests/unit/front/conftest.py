"""Fronts in this process, shared by the tests of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.front import Front, run_front


@pytest.fixture(scope="module")
async def front() -> AsyncIterator[Front]:
    """A front without a gateway."""
    async with run_front() as running:
        yield running
