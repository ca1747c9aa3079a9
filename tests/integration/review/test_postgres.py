"""The review database on a real PostgreSQL, by the same contract."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import psycopg
import pytest

from pneumoserve.review import DatabaseError, ReviewDatabase
from tests.support import postgres
from tests.support.review_contract import ReviewContract

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres.server() as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    """A database of the test's own."""
    name = f"test_{next(_NUMBERS)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"create database {name}")
    return server.replace("/postgres?", f"/{name}?")


class TestPostgres(ReviewContract):
    """The contract; `url` is above."""


def test_a_server_that_is_away_is_named_without_its_address() -> None:
    with pytest.raises(DatabaseError, match="does not answer") as caught:
        ReviewDatabase("postgresql://somebody:secret@127.0.0.1:1/review")
    assert "secret" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)
