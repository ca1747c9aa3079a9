"""A sign-in provider for all tests of the console."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.provider import running_provider


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_provider(tmp_path_factory.mktemp("provider") / "log") as (url, _):
        yield url
