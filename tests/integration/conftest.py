"""A bucket of each test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pneumoserve.canonical import digest_of
from pneumoserve.store import S3Settings, S3Store
from tests.support.archives import Archive


@pytest.fixture
def settings(s3_server: S3Settings, request: pytest.FixtureRequest) -> S3Settings:
    own = s3_server.in_bucket(f"test-{digest_of(request.node.nodeid.encode())[:12]}")
    S3Store(own).ensure_bucket()
    return own


@pytest.fixture
def store(settings: S3Settings) -> Iterator[S3Store]:
    opened = S3Store(settings)
    yield opened
    opened.close()


@pytest.fixture
def archive(store: S3Store) -> Archive:
    return Archive(store)
