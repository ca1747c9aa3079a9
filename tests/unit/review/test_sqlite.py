"""The review database on SQLite: the contract, and what only a file has."""

from __future__ import annotations

from pathlib import Path

import pytest

from pneumoserve.review import DatabaseError, ReviewDatabase
from tests.support.review_contract import ReviewContract


class TestSqlite(ReviewContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'review.sqlite'}"


def test_nobody_else_reads_its_files(tmp_path: Path) -> None:
    database = ReviewDatabase(f"sqlite:///{tmp_path / 'review.sqlite'}")
    with database.write():
        assert {oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()} == {"0o600"}
        assert len(list(tmp_path.iterdir())) == 3
    database.close()


@pytest.mark.parametrize(
    "url",
    ["nowhere", "mysql://a:secret@b/c", "", "sqlite://", "sqlite:///:memory:", "sqlite:////proc/none/review.sqlite"],
)
def test_an_address_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(DatabaseError) as caught:
        ReviewDatabase(url)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "review.sqlite").write_bytes(b"x" * 4096)
    with pytest.raises(DatabaseError, match="does not answer"):
        ReviewDatabase(f"sqlite:///{tmp_path / 'review.sqlite'}")
    with pytest.raises(DatabaseError, match="does not answer"):
        ReviewDatabase(f"sqlite:///{tmp_path}")
