"""What every store does: run against the one in memory (tests/unit) and a real S3 server (tests/integration)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from pneumoserve.canonical import digest_of
from pneumoserve.ledger import Expiry, set_expiry
from pneumoserve.store import Lock, NotFoundError, Store, StoreError
from tests.support.archives import administrator_of

DAY = timedelta(days=1)


def soon(days: int = 1) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + days * DAY


class StoreContract:
    """Subclasses give `store`, an empty bucket with object lock, and `plain`, an empty one without."""

    def test_it_keeps_gives_out_and_lists(self, store: Store) -> None:
        keys = ["a/1.txt", "a/2.txt", "a/b/3.txt", "a/c/4.txt", "d.txt"]
        for key in reversed(keys):
            store.put(key, key.encode(), "text/plain")
        store.put("a/1.txt", b"another", "text/plain")
        assert store.get("a/1.txt") == b"another"
        assert [item.key for item in store.list("a/")] == keys[:4]
        assert [item.key for item in store.list("a/", after="a/2.txt")] == keys[2:4]
        assert list(store.folders("a/")) == ["a/b/", "a/c/"]
        (item,) = store.list("a/b/")
        assert item.size == 9
        assert abs(item.last_modified - datetime.now(UTC)) < timedelta(minutes=1)
        assert store.digest("d.txt") == digest_of(b"d.txt")
        assert (store.exists("d.txt"), store.exists("e.txt")) == (True, False)

    def test_keys_may_hold_what_urls_may_not(self, store: Store) -> None:
        key = "a/date=2026-05-01/b c+d&e%20é.txt"
        store.put(key, b"1", "text/plain")
        assert store.get(key) == b"1"
        assert [item.key for item in store.list("a/date=2026-05-01/")] == [key]
        assert [version.key for version in store.versions("a/")] == [key]

    def test_what_is_not_there_is_said_so(self, store: Store) -> None:
        for ask in (store.get, store.digest, store.lock_end):
            with pytest.raises(NotFoundError, match="no such object"):
                ask("e.txt")
        with pytest.raises(NotFoundError):
            store.extend_lock("e.txt", Lock(soon(), "GOVERNANCE"))
        assert list(store.list("none/")) == list(store.folders("none/")) == list(store.versions("none/")) == []

    def test_it_creates_once(self, store: Store) -> None:
        assert store.create("seal", b"first", "text/plain")
        assert not store.create("seal", b"second", "text/plain")
        assert store.get("seal") == b"first"
        assert len(list(store.versions("seal"))) == 1

    @pytest.fixture
    def patient(self, store: Store) -> Store:
        """The same bucket, for calls that may wait for each other."""
        return store

    def test_of_several_creates_at_once_one_succeeds(self, patient: Store) -> None:
        barrier = threading.Barrier(4)

        def create(number: int) -> bool:
            barrier.wait(30)
            return patient.create("seal", b"%d" % number, "text/plain")

        with ThreadPoolExecutor(4) as threads:
            created = list(threads.map(create, range(4)))
        assert sorted(created) == [False, False, False, True]
        assert patient.get("seal") == b"%d" % created.index(True)

    def test_what_was_hidden_can_be_created(self, store: Store) -> None:
        store.put("seal", b"first", "text/plain")
        administrator_of(store).hide("seal")
        assert store.create("seal", b"second", "text/plain")
        assert store.get("seal") == b"second"

    def test_every_version_is_kept_newest_first_and_delete_markers_after_them(self, store: Store) -> None:
        for body in (b"one", b"two"):
            store.put("a/1", body, "text/plain")
        administrator_of(store).hide("a/1")
        store.put("a/2", b"three", "text/plain")
        newer, older, marker, other = store.versions("a/")
        assert [each.key for each in (newer, older, marker, other)] == ["a/1", "a/1", "a/1", "a/2"]
        assert [store.get("a/1", each.version) for each in (newer, older)] == [b"two", b"one"]
        assert store.digest("a/1", older.version) == digest_of(b"one")
        assert [each.latest for each in (newer, older, marker, other)] == [False, False, True, True]
        assert (marker.etag, newer.etag == older.etag, len(newer.etag or "")) == (None, False, 32)
        with pytest.raises(NotFoundError):
            store.get("a/1")
        assert [item.key for item in store.list("a/")] == ["a/2"]

    def test_the_same_bytes_have_the_same_etag(self, store: Store) -> None:
        for _ in range(2):
            store.put("a", b"one", "text/plain")
        assert len({each.etag for each in store.versions("a")}) == 1

    def test_what_is_erased_leaves_no_version(self, store: Store) -> None:
        for key in ("erase", "erase/2"):
            store.put(key, b"1", "text/plain")
            store.put(key, b"2", "text/plain")
        administrator_of(store).hide("erase")
        store.erase("erase")
        store.erase("never there")
        assert {version.key for version in store.versions("erase")} == {"erase/2"}

    def test_what_was_removed_leaves_no_version(self, store: Store) -> None:
        for _ in range(2):
            store.put("a", b"one", "text/plain")
        administrator_of(store).hide("a")
        administrator_of(store).remove("a")
        assert list(store.versions("a")) == []

    def test_locks_hold_and_only_grow(self, store: Store) -> None:
        assert store.has_lock()
        assert store.has_versions()
        store.put("plain", b"1", "text/plain")
        assert store.lock_end("plain") is None
        long, short = soon(2), soon(1)
        store.put("put", b"1", "text/plain", Lock(long, "GOVERNANCE"))
        assert store.create("created", b"1", "text/plain", Lock(long, "GOVERNANCE"))
        store.extend_lock("plain", Lock(long, "GOVERNANCE"))
        for key in ("put", "created", "plain"):
            store.extend_lock(key, Lock(short, "GOVERNANCE"))
            assert store.lock_end(key) == long
            with pytest.raises(Exception, match="AccessDenied"):
                administrator_of(store).remove(key)
            assert store.get(key) == b"1"
        store.extend_lock("put", Lock(soon(3), "GOVERNANCE"))
        assert (store.lock_end("put") or long) > long

    def test_a_bucket_without_locks_takes_none(self, plain: Store) -> None:
        assert not plain.has_lock()
        assert not plain.has_versions()
        with pytest.raises(StoreError):
            plain.put("a", b"1", "text/plain", Lock(soon(), "GOVERNANCE"))
        for body in (b"one", b"two"):
            plain.put("a", body, "text/plain")
        assert [each.etag is not None for each in plain.versions("a")] == [True]
        assert plain.get("a") == b"two"

    def test_lifecycle_rules_are_kept(self, store: Store) -> None:
        assert store.lifecycle() is None
        assert set_expiry(store, [Expiry("raw", "records/", 30)])
        assert b"pneumoserve-raw" in (store.lifecycle() or b"")
        assert not set_expiry(store, [Expiry("raw", "records/", 30)])
        store.set_lifecycle(None)
        assert store.lifecycle() is None

    def test_it_is_set_up_again_without_harm(self, store: Store) -> None:
        store.put("a", b"1", "text/plain")
        store.set_up()
        store.check()
        assert store.get("a") == b"1"
