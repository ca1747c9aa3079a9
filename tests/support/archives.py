"""Archives to seal and to tamper with: writers with a key of their own, and what only an administrator can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from minio import Minio
from urllib3 import PoolManager, Retry

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.ids import uuid7
from pneumoserve.ledger import (
    Chain,
    Ledger,
    Reader,
    SealReport,
    SealSettings,
    SegmentKey,
    VerificationReport,
    seal,
    verify,
)
from pneumoserve.progress import ignore_progress
from pneumoserve.records import CallDetail, ImageDetail, Record, image_key, open_ledger
from pneumoserve.signing import Trust, key_id
from pneumoserve.store import MemoryStore, S3Settings, S3Store, Store

RELEASE = "0123456789ab"
DATE = datetime.now(UTC).date().isoformat()


def trust_in(*keys: Ed25519PrivateKey) -> Trust:
    return Trust({key_id(key.public_key()): key.public_key() for key in keys}, frozenset(), frozenset())


def reader_of(store: Store, *writers: Ed25519PrivateKey, sealers: Sequence[Ed25519PrivateKey] = ()) -> Reader:
    return Reader(store, trust_in(*writers), trust_in(*sealers))


def record_of(film: bytes) -> bytes:
    prediction_id = uuid7()
    digest = digest_of(film)
    image = ImageDetail(
        input_sha256=digest,
        input_bytes=len(film),
        pixels_sha256=digest,
        stored_sha256=digest,
        stored_key=image_key(digest),
        format="jpeg",
        width=224,
        height=224,
        modality=None,
        body_part=None,
        view_position=None,
        age_years=None,
        sex=None,
    )
    call = CallDetail(call_id=prediction_id, index=0, count=1, model="pneumonia", protocol="v1", encoding="json")
    return canonical_json(
        Record(
            kind="prediction",
            prediction_id=prediction_id,
            time=f"{DATE}T12:00:00.000Z",
            release=RELEASE,
            release_digest="0" * 64,
            preprocessing_version="1",
            call=call,
            image=image,
        )
    )


def client_of(settings: S3Settings) -> Minio:
    """What asks a store for more than the service's own code does."""
    return Minio(
        endpoint=settings.endpoint.removeprefix("http://"),
        access_key=settings.access_key,
        secret_key=settings.secret_key,
        region=settings.region,
        secure=False,
        # On a busy machine SeaweedFS sometimes never answers; minio would wait for five minutes.
        http_client=PoolManager(timeout=20.0, retries=Retry(3)),
    )


class Administrator(Protocol):
    """What the service's own credential could not do; a `MemoryStore` does it itself."""

    def hide(self, key: str) -> None:
        """What a DELETE does in a versioned bucket."""

    def remove(self, key: str) -> None:
        """Remove all versions, as if there had never been any."""


class S3Administrator:
    """The same at an S3 server."""

    def __init__(self, store: S3Store) -> None:
        self._store = store
        self._client = client_of(store.settings)

    def hide(self, key: str) -> None:
        self._client.remove_object(self._store.bucket, key)

    def remove(self, key: str) -> None:
        for version in list(self._store.versions(key)):
            self._client.remove_object(self._store.bucket, version.key, version_id=version.version)


def administrator_of(store: Store) -> Administrator:
    return store if isinstance(store, MemoryStore) else S3Administrator(store)


@dataclass
class Archive:
    """A bucket with writers; `hide`, `remove` and the like do what the service's own credential could not."""

    store: Store
    writer_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    sealer_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    chains: dict[str, Chain] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.now = datetime.now(UTC)
        self._administrator = administrator_of(self.store)

    @property
    def reader(self) -> Reader:
        """A reader that believes these keys; each has its own findings."""
        return reader_of(self.store, self.writer_key, sealers=[self.sealer_key])

    @property
    def ledger(self) -> Ledger:
        """What a sealer and an auditor look at, who believe these keys."""
        return open_ledger(self.store, trust_in(self.writer_key), trust_in(self.sealer_key))

    def write(self, writer: str, films: Sequence[bytes] = (), last: bool = False) -> SegmentKey:
        """A writer's next segment, and its films."""
        for film in films:
            self.store.put(image_key(digest_of(film)), film, "image/jpeg")
        place, body = self.next(writer, [record_of(film) for film in films], last=last)
        self.store.put(place.key, body, "application/x-ndjson")
        return place

    def next(self, writer: str, lines: Sequence[bytes] = (), last: bool = False) -> tuple[SegmentKey, bytes]:
        chain = self.chains.setdefault(writer, Chain(self.writer_key, writer))
        return chain.next(lines, DATE, RELEASE, last)

    def seal(self, settings: SealSettings | None = None, later: timedelta = timedelta()) -> SealReport:
        return seal(self.ledger, self.sealer_key, self.now + later, settings or SealSettings(lock_days=0))

    def verify(self, later: timedelta = timedelta(), kept: tuple[tuple[int, str], ...] = ()) -> VerificationReport:
        return verify(self.ledger, self.now + later, ignore_progress, kept)

    def found(self, later: timedelta = timedelta()) -> list[tuple[str, str, bool]]:
        """Findings as kind, key, sealed."""
        return [(finding.kind, finding.key, finding.sealed) for finding in self.verify(later).findings]

    def remove(self, key: str) -> None:
        """Remove all versions, as if there had never been any."""
        self._administrator.remove(key)

    def hide(self, key: str) -> None:
        """What a DELETE does in a versioned bucket."""
        self._administrator.hide(key)

    def replace(self, key: str, body: bytes) -> None:
        """Other bytes at a key, and no trace of the ones before."""
        self.remove(key)
        self.store.put(key, body, "application/octet-stream")

    def flip(self, key: str, position: int, bit: int) -> bytes:
        """One bit changed; returns the bytes before."""
        before = self.store.get(key)
        after = bytearray(before)
        after[position] ^= 1 << bit
        self.replace(key, bytes(after))
        return before

    def keys(self, prefix: str) -> list[str]:
        return [found.key for found in self.store.list(prefix)]
