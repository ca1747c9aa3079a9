"""A bucket of each test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pneumoserve.archive.store import ObjectStore, S3Settings
from pneumoserve.release.schema import digest_of


@pytest.fixture
def settings(s3_server: S3Settings, request: pytest.FixtureRequest) -> S3Settings:
    own = s3_server.in_bucket(f"test-{digest_of(request.node.nodeid.encode())[:12]}")
    ObjectStore(own).ensure_bucket()
    return own


@pytest.fixture
def store(settings: S3Settings) -> Iterator[ObjectStore]:
    opened = ObjectStore(settings)
    yield opened
    opened.close()
