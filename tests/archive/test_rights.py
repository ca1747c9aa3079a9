"""The rights that the chart gives each credential at the store, on a real store that knows them by these documents."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
from minio.retention import Retention

from pneumoserve.archive.films import image_key
from pneumoserve.archive.find import find_record
from pneumoserve.archive.read import places
from pneumoserve.archive.store import Lock, ObjectStore, S3Settings, StoreError
from pneumoserve.archive.writer import ArchiveWriter, LockRule
from pneumoserve.local.process import free_ports
from pneumoserve.local.s3 import s3_child, start_s3
from pneumoserve.release.schema import digest_of
from tests.archive.archives import client_of
from tests.archive.commands import invoke
from tests.archive.test_archive import KEY, record
from tests.seaweed import give_rights

BUCKET = "films"
FILM = digest_of(b"film")


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, S3Settings]]:
    """A store whose bucket the set-up credential made, and what reaches it with each credential."""
    folder = tmp_path_factory.mktemp("rights")
    admin = S3Settings(f"http://127.0.0.1:{free_ports(1)[0]}", "admin", "secret", BUCKET)
    child = s3_child(folder / "data", admin, folder / "s3.log")
    found = give_rights(folder / "data" / "identities.json", admin)
    start_s3(child, found["setup"])
    yield found | {"admin": admin}
    child.stop()


@pytest.fixture(scope="module")
async def archive(credentials: dict[str, S3Settings]) -> ObjectStore:
    """A film and a record, locked, written as the front writes them."""
    store = ObjectStore(credentials["archive"])
    writer = ArchiveWriter(store, KEY, "0" * 12, lock=LockRule(days=10))
    await writer.start()
    await writer.put_image(FILM, b"film", "image/jpeg")
    written = record()
    await writer.commit(written)
    await writer.close()
    assert find_record(store, written.prediction_id) == written
    return store


def versions(store: ObjectStore) -> dict[str, datetime | None]:
    """Every version of every object, and until when each key is locked.

    Not what tells that the store is ready: on a busy machine it may be written once more after its time limit.
    """
    found = (each for folder in ("images/", "records/", "releases/") for each in store.versions(folder))
    return {f"{each.key} {each.version}": store.locked_until(each.key) for each in found}


def soon() -> datetime:
    """Before every lock ends, and not yet over."""
    return datetime.now(UTC) + timedelta(minutes=1)


NOTHING_EXPIRES = b"""<LifecycleConfiguration><Rule><ID>all</ID><Status>Enabled</Status>
<Filter><Prefix></Prefix></Filter><Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>"""
PAST_THE_LOCK = {"x-amz-bypass-governance-retention": "true"}


def shortened(minio: Minio, key: str) -> Any:
    until = soon().strftime("%Y-%m-%dT%H:%M:%SZ")
    body = f"<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>".encode()
    return minio._execute("PUT", BUCKET, key, body=body, headers=PAST_THE_LOCK, query_params={"retention": ""})


def many_removed(minio: Minio, key: str) -> Any:
    for error in minio.remove_objects(bucket_name=BUCKET, delete_object_list=[DeleteObject(key)]):
        # Such an answer is a 200 that holds one refusal an object.
        raise PermissionError(error.code)


def suspended(minio: Minio, key: str) -> Any:
    body = b"<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>"
    return minio._execute("PUT", BUCKET, body=body, query_params={"versioning": ""})


def opened(minio: Minio, key: str) -> Any:
    everybody = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": [f"arn:aws:s3:::{BUCKET}/*"]}
    return minio.set_bucket_policy(
        bucket_name=BUCKET, policy=json.dumps({"Version": "2012-10-17", "Statement": [everybody]})
    )


def version_removed(minio: Minio, key: str, headers: dict[str, str] | None = None) -> Any:
    found = next(each for each in minio.list_objects(bucket_name=BUCKET, prefix=key, include_version=True))
    return minio._execute("DELETE", BUCKET, key, headers=headers, query_params={"versionId": str(found.version_id)})


ATTACKS: dict[str, Callable[[Minio, str], Any]] = {
    "remove": lambda minio, key: minio.remove_object(bucket_name=BUCKET, object_name=key),
    "remove a version": version_removed,
    "remove a version past its lock": lambda minio, key: version_removed(minio, key, PAST_THE_LOCK),
    "remove many": many_removed,
    "shorten": lambda minio, key: minio.set_object_retention(
        bucket_name=BUCKET, object_name=key, config=Retention("GOVERNANCE", soon())
    ),
    "shorten past the lock": shortened,
    "let all expire": lambda minio, key: minio._execute(
        "PUT", BUCKET, body=NOTHING_EXPIRES, query_params={"lifecycle": ""}
    ),
    "keep no versions": suspended,
    "lock no more": lambda minio, key: minio.delete_object_lock_config(bucket_name=BUCKET),
    "open to everybody": opened,
    "remove the bucket": lambda minio, key: minio.remove_bucket(bucket_name=BUCKET),
    "overwrite a release": lambda minio, key: minio.put_object(
        bucket_name=BUCKET, object_name="releases/0123456789ab/release.json", data=io.BytesIO(b"x"), length=1
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_archives_credential_cannot(attack: str, credentials: dict[str, S3Settings], archive: ObjectStore) -> None:
    (place, *_) = places(archive)
    before = versions(archive)
    for key in (place.key, image_key(FILM)):
        with pytest.raises((S3Error, PermissionError), match="AccessDenied"):
            ATTACKS[attack](client_of(credentials["archive"]), key)
    assert versions(archive) == before


def test_the_attacks_are_such_for_one_who_may(credentials: dict[str, S3Settings], archive: ObjectStore) -> None:
    """Else the refusals above would say nothing of the rights."""
    minio = client_of(credentials["admin"])
    own = ObjectStore(credentials["admin"])
    for number, attack in enumerate(("remove", "remove many", "shorten past the lock")):
        key = f"records/attacked-{number}"
        own.put(key, b"x", "text/plain", Lock(datetime.now(UTC) + timedelta(days=1), "GOVERNANCE"))
        ATTACKS[attack](minio, key)


def test_the_archives_credential_lengthens_a_lock(archive: ObjectStore) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=20)
    archive.lengthen(image_key(FILM), Lock(until, "GOVERNANCE"))
    assert archive.locked_until(image_key(FILM)) == until


def test_the_releases_credential_reads_releases_alone(credentials: dict[str, S3Settings], archive: ObjectStore) -> None:
    ObjectStore(credentials["setup"]).put("releases/0123456789ab/release.json", b"{}", "application/json")
    reader = ObjectStore(credentials["releases"])
    assert reader.get("releases/0123456789ab/release.json") == b"{}"
    for key in (image_key(FILM), places(archive)[0].key):
        with pytest.raises(StoreError):
            reader.get(key)
    for key in ("releases/0123456789ab/release.json", "records/x", "other"):
        with pytest.raises(StoreError):
            reader.put(key, b"x", "text/plain")


def test_the_set_up_credential_does_what_it_is_for_and_writes_no_record(
    credentials: dict[str, S3Settings], archive: ObjectStore
) -> None:
    done = invoke(["archive", "setup", "--expire-raw-days", "30"], credentials["setup"].to_env())
    assert done.returncode == 0, done.stderr
    assert "records/ after 30 days" in done.stdout
    store = ObjectStore(credentials["setup"])
    store.put("checkpoints/train-1/0", b"x", "application/octet-stream")
    for key in ("records/x", image_key(FILM), "rollups/x", "seals/x"):
        with pytest.raises(StoreError):
            store.put(key, b"x", "text/plain")
    with pytest.raises(S3Error, match="AccessDenied"):
        client_of(credentials["setup"]).remove_object(
            bucket_name=BUCKET, object_name="releases/0123456789ab/release.json"
        )
