"""The journal's folders: what is in them whole, what is not, and whose they are."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from pneumoserve.ledger import Journal
from pneumoserve.ledger.journal import PendingObject, SpoolDirectory
from pneumoserve.store import MemoryStore, StoreError

LIMIT = 64 * 1024**2


def pending(number: int, size: int = 10) -> PendingObject:
    return PendingObject(f"images/{number}", bytes([number]) * size, "image/jpeg")


def test_an_object_that_did_not_reach_the_disk_whole_was_never_there(tmp_path: Path) -> None:
    spool = SpoolDirectory(tmp_path / "writer-00000000")
    spool.put(pending(1), LIMIT)
    spool.close()
    (tmp_path / "writer-00000000" / "0000000002.part").write_bytes(b"half")
    again = SpoolDirectory(tmp_path / "writer-00000000")
    assert sorted(path.name for path in again.folder.iterdir()) == ["0000000001", "lock"]
    again.put(pending(2), LIMIT)
    assert (again.folder / "0000000002").is_file()
    again.close()


def test_a_full_disk_is_reported_and_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = SpoolDirectory(tmp_path / "writer-00000000")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pneumoserve.ledger.journal.os.fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        spool.put(pending(1), LIMIT)
    monkeypatch.undo()
    assert [path.name for path in spool.folder.iterdir()] == ["lock"]
    spool.put(pending(1), LIMIT)
    assert not spool.empty
    spool.close()


def test_a_file_that_cannot_be_read_stays_and_stops_nothing(tmp_path: Path) -> None:
    spool = SpoolDirectory(tmp_path / "writer-00000000")
    for number in (1, 2):
        spool.put(pending(number), LIMIT)
    cut = spool.folder / "0000000001"
    cut.write_bytes(cut.read_bytes()[:-1])
    store = MemoryStore()
    while not spool.empty:
        spool.send_oldest(store)
    spool.close()
    assert (spool.folder / "0000000001.bad").is_file()
    assert store.get("images/2") == pending(2).data
    assert not store.exists("images/1")


def test_what_waits_is_counted_and_the_oldest_has_an_age(tmp_path: Path) -> None:
    spool = SpoolDirectory(tmp_path / "writer-00000000")
    assert (spool.count, spool.oldest_seconds) == (0, 0.0)
    for number in (1, 2):
        spool.put(pending(number), LIMIT)
    an_hour_ago = time.time() - 3600
    os.utime(spool.folder / "0000000001", (an_hour_ago, an_hour_ago))
    assert spool.count == 2
    assert 3600 <= spool.oldest_seconds < 3700
    spool.send_oldest(MemoryStore())
    assert spool.count == 1
    assert spool.oldest_seconds < 3600
    spool.close()


def test_a_journal_in_use_is_not_adopted(tmp_path: Path) -> None:
    first, second = (Journal(tmp_path, LIMIT) for _ in range(2))
    first.open("first-00000000")
    first.put(pending(1))
    second.open("second-00000000")
    assert not list(second.orphans())
    assert second.bytes > 0, "what others hold counts"
    first.own.close()
    (orphan,) = second.orphans()
    assert orphan.folder.name == "first-00000000"
    orphan.close()
    second.own.close()


def test_a_journal_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="check its folder and rights"):
        Journal(tmp_path / "journal", LIMIT).open("writer-00000000")
