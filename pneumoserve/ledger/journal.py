"""The journal: where objects wait while the store is away, on storage that outlives the process.

Each writer has a folder of its own with one file an object, in the order they were put, and holds a lock on it. The
kernel lets go of the lock when the process ends, in whatever way; whoever finds such a folder adopts it and sends what
it holds to the store, in order.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

from pneumoserve.store import Lock, Store, StoreError

_LOCK: Final = "lock"
_PART: Final = ".part"
_BAD: Final = ".bad"
_OPENINGS: Final = 5
_LARGEST_CALL: Final = 44 * 1024**2
_PAUSE_SECONDS: Final = 0.1

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PendingObject:
    """An object on its way to the store."""

    key: str
    data: bytes
    content_type: str
    lock: Lock | None = None

    def send(self, store: Store) -> None:
        """Write it; the same bytes to the same key, however often.

        Raises:
            StoreError: the store did not take it.
        """
        store.put(self.key, self.data, self.content_type, self.lock)


class SpoolDirectory:
    """One writer's folder; whoever has it open holds its lock."""

    def __init__(self, folder: Path) -> None:
        """Open a folder, making it where it is not there.

        Raises:
            BlockingIOError: another process has it open.
            OSError: it cannot be made.
        """
        self.folder = folder
        _make(folder)
        self._lock = (folder / _LOCK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise
        # Films and segments are put by several threads at once.
        self._books = threading.Lock()
        for half in folder.glob(f"*{_PART}"):
            half.unlink()
        self._waiting = sorted(path.name for path in folder.iterdir() if path.name.isdigit())
        self._next = int(self._waiting[-1]) + 1 if self._waiting else 1
        self.bytes = sum((folder / name).stat().st_size for name in self._waiting)

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    @property
    def count(self) -> int:
        """How many objects wait."""
        return len(self._waiting)

    @property
    def oldest_seconds(self) -> float:
        """Seconds since the object came that waits longest; 0 where none waits."""
        try:
            return time.time() - (self.folder / self._waiting[0]).stat().st_mtime
        except (IndexError, OSError):
            return 0.0

    def put(self, pending: PendingObject, limit: int) -> None:
        """Keep an object, unless more than `limit` bytes would wait with it; it is on the disk when this returns.

        Raises:
            StoreError: they would, or the disk does not take it.
        """
        packed = _pack(pending)
        with self._books:
            if self.bytes + len(packed) > limit:
                raise StoreError("The journal is full; bring the store back, or give the journal a higher limit.")
            name = f"{self._next:010d}"
            self._write(name, packed)
            self._next += 1
            self._waiting.append(name)
            self.bytes += len(packed)

    def _write(self, name: str, packed: bytes) -> None:
        part = self.folder / f"{name}{_PART}"
        try:
            with part.open("wb") as file:
                file.write(packed)
                file.flush()
                os.fsync(file.fileno())
            part.rename(self.folder / name)
            _sync(self.folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            raise StoreError(f"The journal takes nothing ({error.strerror}); make room on its disk.") from None

    def send_oldest(self, store: Store) -> None:
        """Send the object that waits longest, and drop it.

        Raises:
            StoreError: the store did not take it; it goes on waiting.
        """
        path = self.folder / self._waiting[0]
        try:
            packed = path.read_bytes()
            pending = _unpack(packed)
        except (OSError, ValueError, KeyError):
            # It must stay for a person to look at, and must not stop what waits behind it.
            _log.error("the journal holds a file that cannot be read; it is kept as *%s", _BAD)
            with contextlib.suppress(OSError):
                path.rename(path.with_suffix(_BAD))
            with self._books:
                self._waiting.pop(0)
            return
        pending.send(store)
        path.unlink()
        with self._books:
            self._waiting.pop(0)
            self.bytes -= len(packed)

    def close(self) -> None:
        """Let go of it; an empty one is removed."""
        with contextlib.suppress(OSError):
            if [path.name for path in self.folder.iterdir()] == [_LOCK]:
                (self.folder / _LOCK).unlink()
                self.folder.rmdir()
        self._lock.close()


class Journal:
    """A folder of spools, all of them together within `limit` bytes.

    `has_room` is False already where a largest call (44 MiB) would not fit, so that no smaller limit makes sense.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._own: SpoolDirectory | None = None
        self._others = 0

    def open(self, writer: str) -> None:
        """Open this process's own spool.

        Raises:
            StoreError: the folder cannot be written.
        """
        for left in reversed(range(_OPENINGS)):
            try:
                self._own = SpoolDirectory(self._folder / writer)
            except BlockingIOError:
                # Another process took the new folder for an orphan's, and will find it empty at once.
                if not left:
                    raise StoreError(f"The journal's folder of {writer} is in use by another process.") from None
                time.sleep(_PAUSE_SECONDS)
            except OSError as error:
                raise StoreError(
                    f"The journal cannot be opened ({error.strerror}); check its folder and rights."
                ) from None
            else:
                return

    @property
    def own(self) -> SpoolDirectory:
        """This process's spool."""
        if self._own is None:
            raise RuntimeError("the journal is not open")
        return self._own

    @property
    def has_room(self) -> bool:
        """Whether it takes another call, however large."""
        return self._own is not None and self.bytes + _LARGEST_CALL <= self._limit

    @property
    def bytes(self) -> int:
        """Bytes that wait, other processes' as of their last count included."""
        return self.own.bytes + self._others

    def put(self, pending: PendingObject) -> None:
        """Keep an object.

        Raises:
            StoreError: the journal is full, or its disk is.
        """
        self.own.put(pending, self._limit - self._others)

    def orphans(self) -> Iterator[SpoolDirectory]:
        """Spools whose process is gone, opened; and the count of what others hold."""
        others = 0
        for folder in sorted(self._folders()):
            try:
                spool = SpoolDirectory(folder)
            except OSError:
                with contextlib.suppress(OSError):
                    others += sum(path.stat().st_size for path in folder.iterdir())
                continue
            others += spool.bytes
            yield spool
        self._others = others

    def _folders(self) -> list[Path]:
        try:
            return [path for path in self._folder.iterdir() if path.is_dir() and path != self.own.folder]
        except OSError:
            return []


def _pack(pending: PendingObject) -> bytes:
    lock = None if pending.lock is None else {"until": pending.lock.until.isoformat(), "mode": pending.lock.mode}
    head: dict[str, Any] = {"key": pending.key, "content_type": pending.content_type, "lock": lock}
    return orjson.dumps({**head, "size": len(pending.data)}) + b"\n" + pending.data


def _unpack(packed: bytes) -> PendingObject:
    first, _, data = packed.partition(b"\n")
    head = orjson.loads(first)
    if head["size"] != len(data):
        raise ValueError("the file is cut")
    lock = head["lock"]
    until = None if lock is None else Lock(datetime.fromisoformat(lock["until"]), lock["mode"])
    return PendingObject(head["key"], data, head["content_type"], until)


def _make(folder: Path) -> None:
    """Make a folder and those it lies in; their names are on the disk when this returns."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        _sync(made.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
