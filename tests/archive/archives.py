"""Archives to seal and to tamper with: writers with a key of their own, and what only an administrator can do."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from minio import Minio

from pneumoserve.archive.chain import Chain
from pneumoserve.archive.films import image_key
from pneumoserve.archive.record import CallDetail, ImageDetail, Record
from pneumoserve.archive.seal import SealReport, SealSettings, seal
from pneumoserve.archive.segment import Place
from pneumoserve.archive.store import ObjectStore, S3Settings
from pneumoserve.archive.verify import Verdict, verify
from pneumoserve.ids import uuid7
from pneumoserve.release.schema import canonical_json, digest_of
from pneumoserve.release.signing import Trust, key_id

RELEASE = "0123456789ab"
DATE = datetime.now(UTC).date().isoformat()


def trust_in(*keys: Ed25519PrivateKey) -> Trust:
    return Trust({key_id(key.public_key()): key.public_key() for key in keys}, frozenset(), frozenset())


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
    )


@dataclass
class Archive:
    """A bucket with writers; `forge` and the like do what the service's own credential could not."""

    settings: S3Settings
    writer_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    sealer_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    chains: dict[str, Chain] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = ObjectStore(self.settings)
        self.now = datetime.now(UTC)
        self._client = client_of(self.settings)

    def write(self, writer: str, films: Sequence[bytes] = (), last: bool = False) -> Place:
        """A writer's next segment, and its films."""
        for film in films:
            self.store.put(image_key(digest_of(film)), film, "image/jpeg")
        place, body = self.next(writer, [record_of(film) for film in films], last=last)
        self.store.put(place.key, body, "application/x-ndjson")
        return place

    def next(self, writer: str, lines: Sequence[bytes] = (), last: bool = False) -> tuple[Place, bytes]:
        chain = self.chains.setdefault(writer, Chain(self.writer_key, writer))
        return chain.next(lines, DATE, RELEASE, last)

    def seal(self, settings: SealSettings | None = None, later: timedelta = timedelta()) -> SealReport:
        return seal(
            self.store,
            self.sealer_key,
            trust_in(self.writer_key),
            trust_in(self.sealer_key),
            self.now + later,
            settings or SealSettings(lock_days=0),
        )

    def verify(self, later: timedelta = timedelta()) -> Verdict:
        return verify(
            self.store,
            trust_in(self.writer_key),
            trust_in(self.sealer_key),
            self.now + later,
            lambda what, count: None,
        )

    def found(self, later: timedelta = timedelta()) -> list[tuple[str, str, bool]]:
        """Findings as kind, key, sealed."""
        return [(finding.kind, finding.key, finding.sealed) for finding in self.verify(later).findings]

    def remove(self, key: str) -> None:
        """Remove all versions, as if there had never been any."""
        for version in list(self.store.versions(key)):
            self._client.remove_object(self.settings.bucket, version.key, version_id=version.version)

    def hide(self, key: str) -> None:
        """What a DELETE does in a versioned bucket."""
        self._client.remove_object(self.settings.bucket, key)

    def replace(self, key: str, body: bytes) -> None:
        """Other bytes at a key, and no trace of the ones before."""
        self.remove(key)
        self._client.put_object(self.settings.bucket, key, io.BytesIO(body), len(body))

    def flip(self, key: str, position: int, bit: int) -> bytes:
        """One bit changed; returns the bytes before."""
        before = self.store.get(key)
        after = bytearray(before)
        after[position] ^= 1 << bit
        self.replace(key, bytes(after))
        return before

    def keys(self, prefix: str) -> list[str]:
        return [found.key for found in self.store.list(prefix)]
