"""A bucket in this process's memory, for tests and benchmarks: it behaves as the S3 one, and fails when it is asked to.

The contract suite (tests/support/store_contract.py) holds both to the same behaviour.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from pneumoserve.canonical import digest_of
from pneumoserve.store.base import Lock, NotFoundError, StoredObject, StoredVersion, StoreError

# Called with the operation's name and the key or prefix that it is about.
Hook = Callable[[str, str], None]
_UNVERSIONED: Final = "null"


@dataclass(frozen=True)
class _Version:
    """`data` is None of a delete marker."""

    name: str
    data: bytes | None
    modified: datetime
    lock: Lock | None = None


def _now() -> datetime:
    return datetime.now(UTC)


class MemoryStore:
    """One bucket. With `object_lock` it keeps versions, and locks; without, it has one version of an object.

    `before` and `after` are called around each operation, and may raise or wait: that is how a store fails, hangs, or
    changes in between. `read` has the keys whose bytes were asked for, in their order.
    """

    def __init__(self, *, object_lock: bool = True, clock: Callable[[], datetime] = _now) -> None:
        self.bucket = "memory"
        self.clock = clock
        self.before: Hook = lambda _operation, _key: None
        self.after: Hook = lambda _operation, _key: None
        self.read: list[str] = []
        self._object_lock = object_lock
        self._versions: dict[str, list[_Version]] = {}
        self._written = 0
        self._lifecycle: bytes | None = None
        self._changing = threading.Lock()

    def put(self, key: str, data: bytes, content_type: str, lock: Lock | None = None) -> None:  # noqa: ARG002
        """Write an object whole."""
        self.before("put", key)
        with self._changing:
            self._add(key, data, lock)
        self.after("put", key)

    def create(self, key: str, data: bytes, content_type: str, lock: Lock | None = None) -> bool:  # noqa: ARG002
        """Write an object where there is none; False where there is one."""
        self.before("create", key)
        with self._changing:
            free = self._present(key) is None
            if free:
                self._add(key, data, lock)
        self.after("create", key)
        return free

    def _add(self, key: str, data: bytes | None, lock: Lock | None = None) -> None:
        if lock is not None and not self._object_lock:
            raise _refusal("write to", "InvalidRequest")
        self._written += 1
        name = f"{self._written:032x}" if self._object_lock else _UNVERSIONED
        earlier = self._versions.get(key, []) if self._object_lock else []
        self._versions[key] = [_Version(name, data, self.clock(), lock), *earlier]

    def get(self, key: str, version: str | None = None) -> bytes:
        """An object's bytes; of one version, or the present one."""
        self.before("get", key)
        self.read.append(key)
        found = self._find(key, version)
        self.after("get", key)
        return found.data or b""

    def digest(self, key: str, version: str | None = None) -> str:
        """The SHA-256 of an object's bytes in hex; of one version, or the present one."""
        return digest_of(self.get(key, version))

    def _find(self, key: str, version: str | None = None) -> _Version:
        if version is None:
            found = self._present(key)
        else:
            found = next((each for each in self._versions.get(key, []) if each.name == version), None)
        if found is None or found.data is None:
            raise NotFoundError("The store has no such object.")
        return found

    def _present(self, key: str) -> _Version | None:
        newest = next(iter(self._versions.get(key, [])), None)
        return None if newest is None or newest.data is None else newest

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        self.before("exists", key)
        return self._present(key) is not None

    def list(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        """All objects below a prefix, in the order of their keys; those behind the key `after`, where it is given."""
        self.before("list", prefix)
        for key in self._keys(prefix):
            found = self._present(key)
            if found is not None and key > after:
                yield StoredObject(key, len(found.data or b""), found.modified)

    def folders(self, prefix: str) -> Iterator[str]:
        """What lies directly below a prefix like folders, each as a prefix that ends in a slash, in their order."""
        self.before("folders", prefix)
        below = (key.removeprefix(prefix).partition("/") for key in self._keys(prefix) if self._present(key))
        yield from sorted({f"{prefix}{name}/" for name, slash, _ in below if slash})

    def versions(self, prefix: str) -> Iterator[StoredVersion]:
        """All versions of all objects below a prefix, delete markers included, in the order of their keys."""
        self.before("versions", prefix)
        for key in self._keys(prefix):
            kept = self._versions[key]
            for each in sorted(kept, key=lambda version: version.data is None):
                yield _describe(key, each, latest=each is kept[0])

    def _keys(self, prefix: str) -> Sequence[str]:
        return sorted(key for key in self._versions if key.startswith(prefix))

    def has_lock(self) -> bool:
        """Whether the bucket was made with object lock."""
        return self._object_lock

    def has_versions(self) -> bool:
        """Whether the bucket keeps the versions that were written over or removed."""
        return self._object_lock

    def lock_end(self, key: str) -> datetime | None:
        """Until when an object cannot be removed, None where nothing says so."""
        self.before("lock_end", key)
        lock = self._find(key).lock
        return None if lock is None else lock.until

    def extend_lock(self, key: str, lock: Lock) -> None:
        """Lock an object that is there; a lock that lasts longer stays as it is."""
        self.before("extend_lock", key)
        with self._changing:
            found = self._find(key)
            if found.lock is None or found.lock.until < lock.until:
                self._versions[key][0] = replace(found, lock=lock)
        self.after("extend_lock", key)

    def lifecycle(self) -> bytes | None:
        """The bucket's lifecycle rules as they were set; nothing follows them here."""
        return self._lifecycle

    def set_lifecycle(self, document: bytes | None) -> None:
        """Replace the bucket's lifecycle rules; None removes them all."""
        self._lifecycle = document

    def ensure_bucket(self, *, lockable: bool = True) -> None:
        """The bucket is always there."""

    def set_up(self, *, lockable: bool = True) -> None:
        """The bucket is always there."""

    def check(self) -> None:
        """Answer, unless `before` says otherwise."""
        self.before("check", "")

    def close(self) -> None:
        """Nothing is open."""

    def erase(self, key: str) -> None:
        """Remove all versions of an object for good."""
        self.before("erase", key)
        self.remove(key)

    # What the service's own code has no right to.

    def hide(self, key: str) -> None:
        """What a DELETE does, and a lifecycle rule: in a bucket with versions it leaves a delete marker."""
        with self._changing:
            if self._object_lock:
                self._add(key, None)
            else:
                self._versions.pop(key, None)

    def remove(self, key: str) -> None:
        """Remove all versions, as if there had never been any.

        Raises:
            StoreError: one is locked.
        """
        with self._changing:
            if any(each.lock is not None and each.lock.until > self.clock() for each in self._versions.get(key, [])):
                raise _refusal("remove", "AccessDenied")
            self._versions.pop(key, None)


def _describe(key: str, version: _Version, *, latest: bool) -> StoredVersion:
    etag = None if version.data is None else hashlib.md5(version.data, usedforsecurity=False).hexdigest()
    return StoredVersion(key, len(version.data or b""), version.modified, version.name, etag, latest)


def _refusal(action: str, code: str) -> StoreError:
    return StoreError(f"The store refused to {action} it ({code}); check keys and rights.")
