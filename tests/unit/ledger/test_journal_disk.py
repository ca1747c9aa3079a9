"""The journal on its disk: folders that outlive a power cut, and a limit that several threads keep together."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pneumoserve.ledger import Journal
from pneumoserve.ledger.journal import PendingObject
from pneumoserve.store import StoreError

_THREADS = 8


def test_a_new_folder_is_on_the_disk_with_all_it_lies_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    sync = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        sync(descriptor)

    monkeypatch.setattr("pneumoserve.ledger.journal.os.fsync", noting)
    journal = Journal(tmp_path / "claim" / "journal", 1 << 20)
    journal.open("front-00000001")
    assert {str(tmp_path), str(tmp_path / "claim"), str(tmp_path / "claim" / "journal")} == set(synced)
    journal.own.close()


def test_threads_that_put_at_once_keep_the_limit_together(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 3 << 20)
    journal.open("front-00000001")
    start = threading.Barrier(_THREADS)

    def put(number: int) -> bool:
        start.wait()
        try:
            journal.put(PendingObject(f"images/{number}", bytes(1 << 20), "image/jpeg"))
        except StoreError:
            return False
        return True

    with ThreadPoolExecutor(_THREADS) as threads:
        taken = sum(threads.map(put, range(_THREADS)))
    # Each is a line longer than its megabyte.
    assert taken == 2
    assert journal.bytes <= 3 << 20
    journal.own.close()
