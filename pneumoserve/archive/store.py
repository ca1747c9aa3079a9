"""The object store: S3 with time limits of our own, no hidden retries, and errors that name no secret."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, Literal
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

import urllib3
from minio import Minio
from minio.datatypes import Object, parse_list_objects
from minio.error import MinioException, S3Error
from minio.retention import Retention

BUCKET: Final = "pneumoserve"
_TIMEOUT_SECONDS: Final = 2.0
# Of batch work, which nobody waits for: a minute a try, and tries for half a minute more where nothing answers.
_PATIENT_SECONDS: Final = 60.0
_PATIENT_RETRIES: Final = urllib3.Retry(total=5, backoff_factor=1, status_forcelist=(500, 502, 503, 504),
                                        allowed_methods=None, raise_on_status=False)  # fmt: skip
# Connections of one client; the archive's writer and its image uploads share them.
_CONNECTIONS: Final = 32
_READY_KEY: Final = ".ready"
# The store's own: full, overloaded, or broken.
_FAULTS: Final = {"InternalError", "ServiceUnavailable", "SlowDown", "XMinioStorageFull"}
_MISSING: Final = {"NoSuchKey", "NoSuchBucket", "NoSuchObject"}
# How servers say that an object has no lock; the last where the bucket cannot lock at all.
_UNLOCKED: Final = {"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", "InvalidRequest"}
# How stores say that an object is there already, or is being written by somebody else at this moment.
_TAKEN: Final = {"PreconditionFailed", "ConditionalRequestConflict"}
_PIECE: Final = 1 << 20


class StoreError(RuntimeError):
    """The store did not do what was asked; the text says what to check, and holds no secret."""


class NotFoundError(StoreError):
    """There is no such object."""


@dataclass(frozen=True)
class S3Settings:
    """Where the store is. `endpoint` is `http://host:port` or `https://host`.

    `ca_file`: certificates (PEM) of the authorities that its certificate may come from; empty: those of this machine.
    """

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    bucket: str
    region: str = "us-east-1"
    ca_file: str = ""

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> S3Settings:
        """Settings from S3_ENDPOINT, S3_ACCESS_KEY, S3_SECRET_KEY, and S3_BUCKET, S3_REGION and S3_CA_FILE, if set.

        Raises:
            StoreError: where one is missing.
        """
        given = os.environ if environment is None else environment
        names = ("endpoint", "access_key", "secret_key")
        wanted = {name: given.get(f"S3_{name.upper()}", "") for name in names}
        missing = [f"S3_{name.upper()}" for name, value in wanted.items() if not value]
        if missing:
            raise StoreError(f"The store is not configured: set {', '.join(missing)}.")
        defaults = {"bucket": given.get("S3_BUCKET") or BUCKET, "region": given.get("S3_REGION") or "us-east-1"}
        return cls(**wanted, **defaults, ca_file=given.get("S3_CA_FILE", ""))

    def to_env(self) -> dict[str, str]:
        """The variables that `from_env` reads."""
        return {f"S3_{name.upper()}": value for name, value in asdict(self).items()}

    def in_bucket(self, bucket: str) -> S3Settings:
        """The same store, another bucket."""
        return replace(self, bucket=bucket)


@dataclass(frozen=True)
class Lock:
    """Object lock for what is written: until when it cannot be removed, by whom at all (COMPLIANCE) or by few."""

    until: datetime
    mode: Literal["GOVERNANCE", "COMPLIANCE"]


@dataclass(frozen=True)
class StoredVersion:
    """One version of an object, as a listing tells of it; `etag` is the MD5 of its bytes, None of a delete marker."""

    key: str
    size: int
    last_modified: datetime
    version: str
    etag: str | None
    latest: bool


def _stored_version(found: Object) -> StoredVersion:
    return StoredVersion(
        key=found.object_name or "",
        size=found.size or 0,
        last_modified=found.last_modified or datetime.fromtimestamp(0, UTC),
        version=found.version_id or "null",
        etag=None if found.is_delete_marker else (found.etag or "").strip('"'),
        # The client hands on the listing's own word.
        latest=found.is_latest in {True, "true", None},
    )


@dataclass(frozen=True)
class StoredObject:
    """An object as a listing tells of it; `size` in bytes."""

    key: str
    size: int
    last_modified: datetime


def _trusting(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError):
        raise StoreError("S3_CA_FILE names no file with certificates in PEM; correct it, or leave it out.") from None


class ObjectStore:
    """One bucket. Every call blocks for at most a few seconds and raises `StoreError` where it fails.

    A `patient` one is for batch work: it rather waits minutes for a store that is away than gives up hours of work.
    """

    def __init__(self, settings: S3Settings, *, patient: bool = False) -> None:
        """Nothing is asked of the store yet.

        Raises:
            StoreError: `ca_file` holds no certificate.
        """
        self.settings = settings
        address = urlsplit(settings.endpoint if "//" in settings.endpoint else f"http://{settings.endpoint}")
        self._pool = urllib3.PoolManager(
            timeout=_PATIENT_SECONDS if patient else _TIMEOUT_SECONDS,
            retries=_PATIENT_RETRIES if patient else False,
            maxsize=_CONNECTIONS,
            ssl_context=_trusting(settings.ca_file),
        )
        self._client = Minio(
            endpoint=address.netloc,
            access_key=settings.access_key,
            secret_key=settings.secret_key,
            region=settings.region,
            secure=address.scheme == "https",
            http_client=self._pool,
        )

    def put(self, key: str, data: bytes, content_type: str, lock: Lock | None = None) -> None:
        """Write an object whole; a lock needs a bucket that was made with object lock."""
        with _told("write to"):
            self._client.put_object(
                bucket_name=self.settings.bucket,
                object_name=key,
                data=io.BytesIO(data),
                length=len(data),
                content_type=content_type,
                retention=None if lock is None else Retention(lock.mode, lock.until.astimezone(UTC)),
            )

    def create(self, key: str, data: bytes, content_type: str, lock: Lock | None = None) -> bool:
        """Write an object where there is none; False where there is one. One of several at once succeeds."""
        headers: dict[str, str | list[str] | tuple[str]] = {"Content-Type": content_type, "If-None-Match": "*"}
        if lock is not None:
            until = lock.until.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            headers |= {"x-amz-object-lock-mode": lock.mode, "x-amz-object-lock-retain-until-date": until}
        with _told("write to"):
            try:
                # The client's public call takes no conditions.
                self._client._put_object(self.settings.bucket, key, data, headers)
            except S3Error as error:
                if error.code in _TAKEN:
                    return False
                raise
        return True

    def lengthen(self, key: str, lock: Lock) -> None:
        """Lock an object that is there; a lock that lasts longer stays as it is.

        Raises:
            NotFoundError: there is none.
        """
        until = self.locked_until(key)
        if until is None or until < lock.until:
            with _told("lock"):
                self._client.set_object_retention(
                    bucket_name=self.settings.bucket,
                    object_name=key,
                    config=Retention(lock.mode, lock.until.astimezone(UTC)),
                )

    def has_lock(self) -> bool:
        """Whether the bucket was made with object lock."""
        with _told("look at"):
            try:
                self._client.get_object_lock_config(bucket_name=self.settings.bucket)
            except S3Error as error:
                if error.code in _UNLOCKED:
                    return False
                raise
        return True

    def get(self, key: str) -> bytes:
        """An object's bytes.

        Raises:
            NotFoundError: there is none.
        """
        return b"".join(self._pieces(key, None))

    def digest(self, key: str, version: str | None = None) -> str:
        """The SHA-256 of an object's bytes, which are never held whole; of one version, or the present one.

        Raises:
            NotFoundError: there is none.
        """
        digest = hashlib.sha256()
        for piece in self._pieces(key, version):
            digest.update(piece)
        return digest.hexdigest()

    def _pieces(self, key: str, version: str | None) -> Iterator[bytes]:
        with _told("read from"):
            response = self._client.get_object(bucket_name=self.settings.bucket, object_name=key, version_id=version)
            try:
                yield from response.stream(_PIECE)
            finally:
                response.close()
                response.release_conn()

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            with _told("read from"):
                self._client.stat_object(bucket_name=self.settings.bucket, object_name=key)
        except NotFoundError:
            return False
        return True

    def list(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        """All objects below a prefix, in the order of their keys; those behind the key `after`, where it is given."""
        with _told("list"):
            for found in self._client.list_objects(
                bucket_name=self.settings.bucket, prefix=prefix, recursive=True, start_after=after or None
            ):
                yield StoredObject(found.object_name, found.size, found.last_modified)

    def folders(self, prefix: str) -> Iterator[str]:
        """What lies directly below a prefix like folders, each as a prefix that ends in a slash, in their order."""
        with _told("list"):
            for found in self._client.list_objects(bucket_name=self.settings.bucket, prefix=prefix):
                if found.is_dir:
                    yield found.object_name

    def versions(self, prefix: str) -> Iterator[StoredVersion]:
        """All versions of all objects below a prefix, delete markers included; those of one key together."""
        # The client hands on the versions of a page first and then its delete markers, so pages are put in order here.
        by_key: dict[str, list[StoredVersion]] = {}
        for page, goes_on_at in self._version_pages(prefix):
            for found in page:
                by_key.setdefault(found.key, []).append(found)
            held_back = by_key.pop(goes_on_at, None) if goes_on_at is not None else None
            for versions in by_key.values():
                yield from versions
            by_key = {} if goes_on_at is None or held_back is None else {goes_on_at: held_back}
        for versions in by_key.values():
            yield from versions

    def _version_pages(self, prefix: str) -> Iterator[tuple[Sequence[StoredVersion], str | None]]:
        """Pages of a listing, each with the key that may have more versions on the next one."""
        query: dict[str, str | list[str] | tuple[str]] = {
            "versions": "",
            "prefix": prefix,
            "delimiter": "",
            "max-keys": "1000",
        }
        more = True
        while more:
            with _told("list"):
                response = self._client._execute("GET", self.settings.bucket, query_params=query)
                found, more, key_marker, version_marker = parse_list_objects(response, self.settings.bucket)
                page = [_stored_version(each) for each in found]
            yield page, key_marker if more else None
            query |= {"key-marker": key_marker or "", "version-id-marker": version_marker or ""}

    def ensure_bucket(self) -> None:
        """Make the bucket where there is none; object lock is on, which can only be chosen now."""
        with _told("prepare"):
            if not self._client.bucket_exists(bucket_name=self.settings.bucket):
                self._client.make_bucket(bucket_name=self.settings.bucket, object_lock=True)

    def locked_until(self, key: str) -> datetime | None:
        """Until when an object cannot be removed, None where nothing says so."""
        with _told("read the lock of"):
            try:
                lock = self._client.get_object_retention(bucket_name=self.settings.bucket, object_name=key)
            except S3Error as error:
                if error.code in _UNLOCKED:
                    return None
                raise
        return None if lock is None else lock.retain_until_date.astimezone(UTC)

    def lifecycle(self) -> bytes | None:
        """The bucket's lifecycle rules as the store tells them (XML), None where it has none.

        The client's own reading of them drops what it does not know, and writing that back would change other
        people's rules.
        """
        with _told("read the lifecycle rules of"):
            try:
                answer = self._client._execute("GET", self.settings.bucket, query_params={"lifecycle": ""})
            except S3Error as error:
                if error.code == "NoSuchLifecycleConfiguration":
                    return None
                raise
        return bytes(answer.data)

    def set_lifecycle(self, document: bytes | None) -> None:
        """Replace the bucket's lifecycle rules; None removes them all."""
        with _told("write the lifecycle rules of"):
            if document is None:
                self._client.delete_bucket_lifecycle(bucket_name=self.settings.bucket)
            else:
                digest = base64.b64encode(hashlib.md5(document, usedforsecurity=False).digest()).decode()
                self._client._execute(
                    "PUT",
                    self.settings.bucket,
                    body=document,
                    headers={"Content-MD5": digest},
                    query_params={"lifecycle": ""},
                )

    def set_up(self) -> None:
        """Make the bucket where there is none, and see that it takes and gives an object.

        Raises:
            StoreError: it does not.
        """
        self.ensure_bucket()
        # A bucket can be there before the store takes data, or without the right to write to it.
        self.put(_READY_KEY, b"ready", "text/plain")
        self.get(_READY_KEY)

    def check(self) -> None:
        """One cheap request to the bucket.

        Raises:
            StoreError: the store is out of reach, refuses the keys, or has no such bucket.
        """
        with _told("reach"):
            if not self._client.bucket_exists(bucket_name=self.settings.bucket):
                raise StoreError(f"The store has no bucket {self.settings.bucket}; make it or correct S3_BUCKET.")

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()


class _told:  # noqa: N801 - a context manager used like a function
    """Turn what the client raises into a `StoreError`; the client's own texts hold hosts, keys and bodies."""

    def __init__(self, action: str) -> None:
        self._action = action

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, S3Error):
            if error.code in _MISSING:
                raise NotFoundError("The store has no such object.") from None
            advice = "read its log" if error.code in _FAULTS else "check keys and rights"
            raise StoreError(f"The store refused to {self._action} it ({error.code}); {advice}.") from None
        if isinstance(error, urllib3.exceptions.SSLError):
            raise StoreError(
                "The store's certificate is not trusted; give its authority's as S3_CA_FILE, and ask by a name that is "
                "in it."
            ) from None
        # The client parses error bodies as XML, and lets a body that broke off raise as it may.
        if isinstance(error, (MinioException, urllib3.exceptions.HTTPError, OSError, ParseError, UnicodeDecodeError)):
            raise StoreError("The store could not be reached; check its address, and that it runs.") from None
