"""The store in memory, by the contract, and how it fails on request."""

from __future__ import annotations

import pytest

from pneumoserve.store import MemoryStore, StoredVersion, StoreError, s3
from tests.support.store_contract import StoreContract, soon


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()

    @pytest.fixture
    def plain(self) -> MemoryStore:
        return MemoryStore(object_lock=False)


def test_it_fails_before_or_after_it_has_done_what_was_asked() -> None:
    store = MemoryStore()
    asked: list[tuple[str, str]] = []

    def fail(operation: str, key: str) -> None:
        asked.append((operation, key))
        raise StoreError("away")

    store.before = fail
    with pytest.raises(StoreError, match="away"):
        store.create("a", b"1", "text/plain")
    assert asked == [("create", "a")]
    store.before, store.after = store.after, fail
    with pytest.raises(StoreError, match="away"):
        store.create("b", b"1", "text/plain")
    store.after = store.before
    assert [item.key for item in store.list("")] == ["b"]


def version(key: str, name: str) -> StoredVersion:
    return StoredVersion(key, 1, soon(), name, None if name == "marker" else "0" * 32, latest=False)


def test_versions_of_one_key_come_together_over_pages_whose_delete_markers_come_last() -> None:
    """Pages of four, as S3's client hands them on: versions first, then markers; key 1 goes on over two pages."""
    pages = [
        [version("0", "a"), version("0", "b"), version("1", "a"), version("0", "marker")],
        [version("1", "b"), version("2", "a"), version("1", "marker"), version("2", "marker")],
        [version("3", "a")],
    ]
    found = list(s3.order_by_key([each for page in pages for each in page], 4))
    assert [(each.key, each.version) for each in found] == [
        ("0", "a"), ("0", "b"), ("0", "marker"), ("1", "a"), ("1", "b"), ("1", "marker"), ("2", "a"), ("2", "marker"),
        ("3", "a"),
    ]  # fmt: skip
