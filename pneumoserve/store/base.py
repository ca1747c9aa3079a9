"""What a store is: one bucket of objects with versions and locks, and what goes wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from pneumoserve.errors import PneumoserveError


class StoreError(PneumoserveError):
    """The store did not do what was asked; the text says what to check, and holds no secret."""


class NotFoundError(StoreError):
    """There is no such object."""


@dataclass(frozen=True)
class Lock:
    """Object lock for what is written: until when it cannot be removed, by whom at all (COMPLIANCE) or by few."""

    until: datetime
    mode: Literal["GOVERNANCE", "COMPLIANCE"]


@dataclass(frozen=True)
class StoredObject:
    """An object as a listing shows it; `size` in bytes."""

    key: str
    size: int
    last_modified: datetime


@dataclass(frozen=True)
class StoredVersion:
    """One version of an object, as a listing shows it; `etag` is None of a delete marker.

    The ETag is the MD5 of the bytes in most cases: it also depends on how they were sent or encrypted.
    """

    key: str
    size: int
    last_modified: datetime
    version: str
    etag: str | None
    latest: bool


class Store(Protocol):
    """One bucket. Every call raises `StoreError` where it fails."""

    @property
    def bucket(self) -> str:
        """The bucket's name."""

    def put(self, key: str, data: bytes, content_type: str, lock: Lock | None = None) -> None:
        """Write an object whole; a lock needs a bucket that was made with object lock."""

    def create(self, key: str, data: bytes, content_type: str, lock: Lock | None = None) -> bool:
        """Write an object where there is none; False where there is one. One of several at once succeeds."""

    def get(self, key: str, version: str | None = None) -> bytes:
        """An object's bytes; of one version, or the present one.

        Raises:
            NotFoundError: there is none.
        """

    def digest(self, key: str, version: str | None = None) -> str:
        """The SHA-256 of an object's bytes in hex; of one version, or the present one.

        Raises:
            NotFoundError: there is none.
        """

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""

    def list(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        """All objects below a prefix, in the order of their keys; those behind the key `after`, where it is given."""

    def folders(self, prefix: str) -> Iterator[str]:
        """What lies directly below a prefix like folders, each as a prefix that ends in a slash, in their order."""

    def versions(self, prefix: str) -> Iterator[StoredVersion]:
        """All versions of all objects below a prefix, delete markers included, in the order of their keys.

        Of one key, versions with bytes come newest first.
        """

    def erase(self, key: str) -> None:
        """Remove all versions of an object for good; nothing where there is none. A locked one is refused."""

    def has_lock(self) -> bool:
        """Whether the bucket was made with object lock."""

    def has_versions(self) -> bool:
        """Whether the bucket keeps the versions that were written over or removed."""

    def lock_end(self, key: str) -> datetime | None:
        """Until when an object cannot be removed, None where nothing says so.

        Raises:
            NotFoundError: there is none.
        """

    def extend_lock(self, key: str, lock: Lock) -> None:
        """Lock an object that is there; a lock that lasts longer stays as it is.

        Raises:
            NotFoundError: there is none.
        """

    def lifecycle(self) -> bytes | None:
        """The bucket's lifecycle rules as the store has them (XML), None where it has none."""

    def set_lifecycle(self, document: bytes | None) -> None:
        """Replace the bucket's lifecycle rules; None removes them all."""

    def ensure_bucket(self, *, lockable: bool = True) -> None:
        """Make the bucket where there is none; whether it has object lock, and so versions, can only be chosen now."""

    def set_up(self, *, lockable: bool = True) -> None:
        """Make the bucket where there is none, and see that it takes and gives an object."""

    def check(self) -> None:
        """One cheap request to the bucket.

        Raises:
            StoreError: the store is out of reach, refuses the keys, or has no such bucket.
        """

    def close(self) -> None:
        """Close the connections."""
