"""The object store in S3, with time limits of our own, no hidden retries, and errors that name no secret.

What `minio` offers is used where it offers it. Its client's public calls take no conditions, and rules of a lifecycle
only as far as it knows them; such requests are signed by its `signer` and sent on the same connections.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import heapq
import os
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Final
from urllib.parse import SplitResult, urlsplit, urlunsplit
from xml.etree.ElementTree import ParseError

import urllib3
from minio import Minio
from minio.commonconfig import ENABLED
from minio.credentials.credentials import Credentials
from minio.datatypes import Object
from minio.error import MinioException, S3Error
from minio.helpers import BaseURL
from minio.retention import Retention
from minio.signer import sign_v4_s3
from minio.time import to_amz_date

from pneumoserve.canonical import digest_of
from pneumoserve.store.base import Lock, NotFoundError, StoredObject, StoredVersion, StoreError
from pneumoserve.store.timed import make_timed_pool

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
# The most that S3 lists at once.
_PAGE: Final = 1000
_DONE: Final = {200, 204}


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


def _make_context(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError):
        raise StoreError("S3_CA_FILE names no file with certificates in PEM; correct it, or leave it out.") from None


class S3Store:
    """A bucket of an S3 server (`Store` says what each call does).

    A request takes at most 2 s, from connecting to the last byte of its answer, but for films and roll-ups that move at
    256 KiB a second. A `patient` one is for batch work: it rather waits minutes for a store that is away than gives up
    hours of work.
    """

    def __init__(self, settings: S3Settings, *, patient: bool = False) -> None:
        """Nothing is asked of the store yet.

        Raises:
            StoreError: `ca_file` holds no certificate.
        """
        self.settings = settings
        address = urlsplit(settings.endpoint if "//" in settings.endpoint else f"http://{settings.endpoint}")
        self._pool = make_timed_pool(
            _PATIENT_SECONDS if patient else _TIMEOUT_SECONDS,
            _make_context(settings.ca_file),
            retries=_PATIENT_RETRIES if patient else False,
            maxsize=_CONNECTIONS,
        )
        self._urls = BaseURL(f"{address.scheme}://{address.netloc}", settings.region)
        self._credentials = Credentials(settings.access_key, settings.secret_key)
        self._client = Minio(
            endpoint=address.netloc,
            access_key=settings.access_key,
            secret_key=settings.secret_key,
            region=settings.region,
            secure=address.scheme == "https",
            http_client=self._pool,
        )

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self.settings.bucket

    def put(self, key: str, data: bytes, content_type: str, lock: Lock | None = None) -> None:
        """Write an object whole; a lock needs a bucket that was made with object lock."""
        with _store_errors("write to"):
            self._request("PUT", key, body=data, headers=_object_headers(data, content_type, lock))

    def create(self, key: str, data: bytes, content_type: str, lock: Lock | None = None) -> bool:
        """Write an object where there is none; False where there is one. One of several at once succeeds."""
        headers = {**_object_headers(data, content_type, lock), "If-None-Match": "*"}
        with _store_errors("write to"):
            try:
                self._request("PUT", key, body=data, headers=headers)
            except S3Error as error:
                if error.code in _TAKEN:
                    return False
                raise
        return True

    def _request(
        self,
        method: str,
        key: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Send a signed request to an object, or the bucket where there is no key; the answer's body.

        Raises:
            S3Error: the store refused it.
        """
        url: SplitResult = self._urls.build(
            method=method,
            region=self.settings.region,
            bucket_name=self.bucket,
            object_name=key,
            query_params=dict(query or {}),
        )
        now, digest = datetime.now(UTC), digest_of(body)
        stated = {"Host": url.netloc, "x-amz-content-sha256": digest, "x-amz-date": to_amz_date(now)}
        signed = sign_v4_s3(
            method=method,
            url=url,
            region=self.settings.region,
            headers={**stated, **(headers or {})},
            credentials=self._credentials,
            content_sha256=digest,
            date=now,
        )
        stated = {name: str(value) for name, value in signed.items()}
        answer = self._pool.request(method, urlunsplit(url), body=body, headers=stated, redirect=False)
        if answer.status not in _DONE:
            raise S3Error.fromxml(answer)
        return answer.data

    def extend_lock(self, key: str, lock: Lock) -> None:
        """Lock an object that is there; a lock that lasts longer stays as it is.

        Raises:
            NotFoundError: there is none.
        """
        until = self.lock_end(key)
        if until is None or until < lock.until:
            with _store_errors("lock"):
                self._client.set_object_retention(
                    bucket_name=self.bucket,
                    object_name=key,
                    config=Retention(lock.mode, lock.until.astimezone(UTC)),
                )

    def has_lock(self) -> bool:
        """Whether the bucket was made with object lock."""
        with _store_errors("look at"):
            try:
                self._client.get_object_lock_config(bucket_name=self.bucket)
            except S3Error as error:
                if error.code in _UNLOCKED:
                    return False
                raise
        return True

    def has_versions(self) -> bool:
        """Whether the bucket keeps the versions that were written over or removed."""
        with _store_errors("look at"):
            return self._client.get_bucket_versioning(bucket_name=self.bucket).status == ENABLED

    def get(self, key: str, version: str | None = None) -> bytes:
        """An object's bytes; of one version, or the present one.

        Raises:
            NotFoundError: there is none.
        """
        return b"".join(self._pieces(key, version))

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
        with _store_errors("read from"):
            response = self._client.get_object(bucket_name=self.bucket, object_name=key, version_id=version)
            try:
                yield from response.stream(_PIECE)
            finally:
                response.close()
                response.release_conn()

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            with _store_errors("read from"):
                self._client.stat_object(bucket_name=self.bucket, object_name=key)
        except NotFoundError:
            return False
        return True

    def list(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        """All objects below a prefix, in the order of their keys; those behind the key `after`, where it is given."""
        with _store_errors("list"):
            for found in self._client.list_objects(
                bucket_name=self.bucket, prefix=prefix, recursive=True, start_after=after or None
            ):
                yield StoredObject(found.object_name, found.size, found.last_modified)

    def folders(self, prefix: str) -> Iterator[str]:
        """What lies directly below a prefix like folders, each as a prefix that ends in a slash, in their order."""
        with _store_errors("list"):
            for found in self._client.list_objects(bucket_name=self.bucket, prefix=prefix):
                if found.is_dir:
                    yield found.object_name

    def versions(self, prefix: str) -> Iterator[StoredVersion]:
        """All versions of all objects below a prefix, delete markers included, in the order of their keys.

        Of one key, versions with bytes come newest first.
        """
        with _store_errors("list"):
            found = self._client.list_objects(
                bucket_name=self.bucket, prefix=prefix, recursive=True, include_version=True
            )
            yield from order_by_key(map(_to_version, found), _PAGE)

    def erase(self, key: str) -> None:
        """Remove all versions of an object for good; nothing where there is none. A locked one is refused."""
        for found in list(self.versions(key)):
            if found.key == key:
                with _store_errors("remove"):
                    self._client.remove_object(bucket_name=self.bucket, object_name=key, version_id=found.version)

    def ensure_bucket(self, *, lockable: bool = True) -> None:
        """Make the bucket where there is none; whether it has object lock, and so versions, can only be chosen now."""
        with _store_errors("prepare"):
            if not self._client.bucket_exists(bucket_name=self.bucket):
                self._client.make_bucket(bucket_name=self.bucket, object_lock=lockable)

    def lock_end(self, key: str) -> datetime | None:
        """Until when an object cannot be removed, None where nothing says so."""
        with _store_errors("read the lock of"):
            try:
                lock = self._client.get_object_retention(bucket_name=self.bucket, object_name=key)
            except S3Error as error:
                if error.code in _UNLOCKED:
                    return None
                raise
        return None if lock is None else lock.retain_until_date.astimezone(UTC)

    def lifecycle(self) -> bytes | None:
        """The bucket's lifecycle rules as the store has them (XML), None where it has none.

        The client's own reading of them drops what it does not know, and writing that back would change other
        people's rules.
        """
        with _store_errors("read the lifecycle rules of"):
            try:
                return self._request("GET", query={"lifecycle": ""})
            except S3Error as error:
                if error.code == "NoSuchLifecycleConfiguration":
                    return None
                raise

    def set_lifecycle(self, document: bytes | None) -> None:
        """Replace the bucket's lifecycle rules; None removes them all."""
        with _store_errors("write the lifecycle rules of"):
            if document is None:
                self._client.delete_bucket_lifecycle(bucket_name=self.bucket)
            else:
                self._request("PUT", query={"lifecycle": ""}, body=document, headers=_md5_header(document))

    def set_up(self, *, lockable: bool = True) -> None:
        """Make the bucket where there is none, and see that it takes and gives an object.

        Raises:
            StoreError: it does not.
        """
        self.ensure_bucket(lockable=lockable)
        # A bucket can be there before the store takes data, or without the right to write to it.
        self.put(_READY_KEY, b"ready", "text/plain")
        self.get(_READY_KEY)

    def check(self) -> None:
        """One cheap request to the bucket.

        Raises:
            StoreError: the store is out of reach, refuses the keys, or has no such bucket.
        """
        with _store_errors("reach"):
            if not self._client.bucket_exists(bucket_name=self.bucket):
                raise StoreError(f"The store has no bucket {self.bucket}; make it or correct S3_BUCKET.")

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()


def _object_headers(data: bytes, content_type: str, lock: Lock | None) -> dict[str, str]:
    # S3 takes no locked object without a digest of its bytes, and a bucket may lock all by itself.
    headers = {"Content-Type": content_type, **_md5_header(data)}
    if lock is None:
        return headers
    until = lock.until.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {**headers, "x-amz-object-lock-mode": lock.mode, "x-amz-object-lock-retain-until-date": until}


def _md5_header(data: bytes) -> dict[str, str]:
    return {"Content-MD5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()}


def _to_version(found: Object) -> StoredVersion:
    return StoredVersion(
        key=found.object_name or "",
        size=found.size or 0,
        last_modified=found.last_modified or datetime.fromtimestamp(0, UTC),
        version=found.version_id or "null",
        etag=None if found.is_delete_marker else (found.etag or "").strip('"'),
        # The client hands on the listing's own word.
        latest=found.is_latest in {True, "true", None},
    )


def order_by_key(found: Iterable[StoredVersion], page: int) -> Iterator[StoredVersion]:
    """Versions in the order of their keys, from pages that list versions first and then delete markers.

    Pages follow each other in that order, so none stands `page` places or more before its own: that many are held.
    """
    held: list[tuple[str, int, StoredVersion]] = []
    for count, version in enumerate(found):
        heapq.heappush(held, (version.key, count, version))
        if len(held) > page:
            yield heapq.heappop(held)[2]
    while held:
        yield heapq.heappop(held)[2]


@contextlib.contextmanager
def _store_errors(action: str) -> Iterator[None]:
    """Turn what the client raises into a `StoreError`; the client's own texts hold hosts, keys and bodies."""
    try:
        yield
    except S3Error as error:
        if error.code in _MISSING:
            raise NotFoundError("The store has no such object.") from None
        advice = "read its log" if error.code in _FAULTS else "check keys and rights"
        raise StoreError(f"The store refused to {action} it ({error.code}); {advice}.") from None
    except urllib3.exceptions.SSLError:
        raise StoreError(
            "The store's certificate is not trusted; give its authority's as S3_CA_FILE, and ask by a name that is "
            "in it."
        ) from None
    # The client parses error bodies as XML, and lets a body that broke off raise as it may.
    except (MinioException, urllib3.exceptions.HTTPError, OSError, ParseError, UnicodeDecodeError):
        raise StoreError("The store could not be reached; check its address, and that it runs.") from None
    except ValueError:
        raise StoreError("The store's answer cannot be read; check its address, and the name of its bucket.") from None
