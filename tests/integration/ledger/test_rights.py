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
from urllib3.exceptions import MaxRetryError

from pneumoserve.canonical import digest_of
from pneumoserve.front.errors import CallError
from pneumoserve.front.idempotency import FirstAnswers, KeyedCall, Reply
from pneumoserve.ledger import LockRule, SealSettings, list_segments
from pneumoserve.local.process import free_ports
from pneumoserve.local.s3 import s3_child, start_s3
from pneumoserve.names import FIRST_ANSWERS
from pneumoserve.records import ArchiveWriter, Pseudonyms, find_record, image_key
from pneumoserve.store import Lock, S3Settings, S3Store, Store, StoreError
from tests.support.archives import Archive, client_of, reader_of
from tests.support.commands import invoke
from tests.support.entries import KEY, refusal
from tests.support.seaweed import give_rights

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
async def archive(credentials: dict[str, S3Settings]) -> Store:
    """A film and a record, locked, written as the front writes them; read by the one who seals."""
    writer = ArchiveWriter(S3Store(credentials["archive"]), KEY, "0" * 12, lock=LockRule(days=10))
    await writer.start()
    await writer.put_image(FILM, b"film", "image/jpeg")
    written = refusal()
    await writer.commit(written)
    assert writer.healthy
    await writer.close()
    store = S3Store(credentials["seal"])
    assert find_record(reader_of(store, KEY), written.prediction_id) == written
    return store


def versions(store: Store) -> dict[str, datetime | None]:
    """Every version of every object, and until when each key is locked.

    Not what tells that the store is ready: on a busy machine it may be written once more after its time limit.
    """
    found = (each for folder in ("images/", "records/", "releases/") for each in store.versions(folder))
    return {f"{each.key} {each.version}": store.lock_end(each.key) for each in found}


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


@pytest.mark.parametrize("name", ["archive", "seal", "rollout", "console", "alerts"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_who_writes_the_archive_cannot(
    attack: str, name: str, credentials: dict[str, S3Settings], archive: Store
) -> None:
    (place, *_) = list_segments(archive)
    before = versions(archive)
    for key in (place.key, image_key(FILM)):
        # A busy SeaweedFS sometimes leaves such a request without an answer: nothing was done either.
        with pytest.raises((S3Error, PermissionError, MaxRetryError), match=r"AccessDenied|Read timed out"):
            ATTACKS[attack](client_of(credentials[name]), key)
    assert versions(archive) == before


SEALS = ("seals/x", "seals/00000001.json", "rollups/x", "acknowledgements/x")


@pytest.mark.parametrize("name", ["archive", "rollout", "console"])
def test_only_the_sealers_credential_writes_seals(
    name: str, credentials: dict[str, S3Settings], archive: Store
) -> None:
    """A stolen front could else stop the sealer, for as long as it locks what it puts there."""
    lock = Lock(datetime.now(UTC) + timedelta(days=3650), "COMPLIANCE")
    for key in SEALS:
        for store in (S3Store(credentials[name]), S3Store(credentials["setup"])):
            with pytest.raises(StoreError, match="AccessDenied"):
                store.put(key, b"x", "text/plain", lock)
    assert not [key for folder in ("seals/", "rollups/", "acknowledgements/") for key in archive.list(folder)]


def test_the_fronts_credential_reads_no_film_and_no_record(credentials: dict[str, S3Settings], archive: Store) -> None:
    front = S3Store(credentials["archive"])
    S3Store(credentials["setup"]).put("releases/0123456789ab/data", b"{}", "application/json")
    for key in (image_key(FILM), list_segments(archive)[0].key, "releases/0123456789ab/data"):
        with pytest.raises(StoreError, match="AccessDenied"):
            front.get(key)
    # What its writer needs beside writing: a free name, whether the store answers, and a film's lock.
    assert list(front.list("records/"))
    front.check()
    assert front.lock_end(image_key(FILM)) is not None


def test_the_sealers_credential_seals_verifies_and_writes_no_record(
    credentials: dict[str, S3Settings], archive: Store
) -> None:
    for key in ("records/x", image_key(digest_of(b"another")), "rollouts/x", "releases/x"):
        with pytest.raises(StoreError, match="AccessDenied"):
            archive.put(key, b"x", "text/plain")
    own, sealer = Archive(S3Store(credentials["seal"]), writer_key=KEY), SealSettings(lock_days=1)
    report = own.seal(sealer)
    assert (report.number, report.problems) == (1, {})
    assert own.found() == []


def test_the_rollouts_credential_reads_all_and_puts_entries_on_record(
    credentials: dict[str, S3Settings], archive: Store
) -> None:
    store = S3Store(credentials["rollout"])
    assert store.get(image_key(FILM)) == b"film"
    store.put("rollouts/evidence/1.json", b"{}", "application/json")
    assert store.get("rollouts/evidence/1.json") == b"{}"
    with pytest.raises(StoreError, match="AccessDenied"):
        store.put(image_key(digest_of(b"another")), b"x", "text/plain")


def test_the_consoles_credential_reads_all_and_adds_records_alone(
    credentials: dict[str, S3Settings], archive: Store
) -> None:
    store = S3Store(credentials["console"])
    assert store.get(image_key(FILM)) == b"film"
    store.put("records/of-the-console", b"x", "text/plain")
    assert archive.get("records/of-the-console") == b"x"
    with pytest.raises(StoreError, match="AccessDenied"):
        store.erase("records/of-the-console")
    for key in ("images/x", "envelopes/x", "rollouts/x", "seals/x", "releases/x"):
        with pytest.raises(StoreError, match="AccessDenied"):
            store.put(key, b"x", "text/plain")


async def test_the_alerts_credential_erases_envelopes_alone(credentials: dict[str, S3Settings], archive: Store) -> None:
    writer = ArchiveWriter(S3Store(credentials["archive"]), KEY, "0" * 12, lock=LockRule(days=10))
    await writer.start()
    await writer.put_envelope("one", b"sealed")
    await writer.close()
    alerts = S3Store(credentials["alerts"])
    assert alerts.get("envelopes/one") == b"sealed"
    alerts.erase("envelopes/one")
    assert list(archive.versions("envelopes/")) == []
    with pytest.raises(StoreError, match="AccessDenied"):
        alerts.erase(image_key(FILM))
    alerts.put("records/x", b"x", "text/plain")
    for key in ("envelopes/two", "images/x", "seals/x", "releases/x"):
        with pytest.raises(StoreError, match="AccessDenied"):
            alerts.put(key, b"x", "text/plain")


def test_the_intakes_credential_erases_in_its_own_bucket_and_adds_records_alone(
    credentials: dict[str, S3Settings], archive: Store
) -> None:
    spool = S3Store(credentials["intake"])
    spool.set_up(lockable=False)
    assert spool.create("objects/study/instance", b"whose it is", "application/dicom")
    assert not spool.create("objects/study/instance", b"another", "application/dicom")
    listed = invoke(["intake", "list", "--json"], credentials["intake"].to_env())
    assert '"objects": 1' in listed.stdout, listed.stderr
    spool.erase("objects/study/instance")
    assert list(spool.versions("objects/")) == []
    # Nothing that was erased stays as an earlier version, and nothing can be locked.
    admin = S3Store(credentials["admin"].in_bucket(credentials["intake"].bucket))
    assert not admin.has_versions()
    assert not admin.has_lock()
    with pytest.raises(StoreError, match="AccessDenied"):
        S3Store(credentials["intake"].in_bucket(BUCKET)).get(image_key(FILM))
    # It puts flags and withdrawals on record, and nothing else there.
    assert S3Store(credentials["intake"].in_bucket(BUCKET)).create("records/of-intake", b"x", "text/plain")
    for key in ("images/x", "envelopes/x", "seals/x", "releases/x"):
        with pytest.raises(StoreError, match="AccessDenied"):
            S3Store(credentials["intake"].in_bucket(BUCKET)).put(key, b"x", "text/plain")
    with pytest.raises(StoreError, match="AccessDenied"):
        S3Store(credentials["intake"].in_bucket(BUCKET)).erase("records/of-intake")
    for name in ("archive", "seal", "rollout", "console", "alerts", "releases", "setup"):
        with pytest.raises(StoreError, match="AccessDenied"):
            list(S3Store(credentials[name].in_bucket(credentials["intake"].bucket)).list("objects/"))


def test_the_attacks_are_such_for_one_who_may(credentials: dict[str, S3Settings], archive: Store) -> None:
    """Else the refusals above would say nothing of the rights."""
    minio = client_of(credentials["admin"])
    own = S3Store(credentials["admin"])
    for number, attack in enumerate(("remove", "remove many", "shorten past the lock")):
        key = f"records/attacked-{number}"
        own.put(key, b"x", "text/plain", Lock(datetime.now(UTC) + timedelta(days=1), "GOVERNANCE"))
        ATTACKS[attack](minio, key)


def test_the_archives_credential_lengthens_a_lock(archive: Store) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=20)
    archive.extend_lock(image_key(FILM), Lock(until, "GOVERNANCE"))
    assert archive.lock_end(image_key(FILM)) == until


def test_the_releases_credential_reads_releases_alone(credentials: dict[str, S3Settings], archive: Store) -> None:
    S3Store(credentials["setup"]).put("releases/0123456789ab/release.json", b"{}", "application/json")
    reader = S3Store(credentials["releases"])
    assert reader.get("releases/0123456789ab/release.json") == b"{}"
    for key in (image_key(FILM), list_segments(archive)[0].key):
        with pytest.raises(StoreError):
            reader.get(key)
    for key in ("releases/0123456789ab/release.json", "records/x", "other"):
        with pytest.raises(StoreError):
            reader.put(key, b"x", "text/plain")


async def test_the_fronts_credential_keeps_first_answers_and_removes_none(
    credentials: dict[str, S3Settings], archive: Store
) -> None:
    first = FirstAnswers(S3Store(credentials["archive"]), Pseudonyms(b"k" * 32))
    keyed, reply = KeyedCall(f"{FIRST_ANSWERS}{'0' * 64}/", "1" * 64), Reply({"content-type": "text/plain"}, b"\xff")
    assert await first.find(keyed) is None
    await first.claim(keyed)
    with pytest.raises(CallError) as refused:
        await first.claim(keyed)
    assert refused.value.status == 409
    assert await first.keep(keyed, reply) == reply
    # One that came too late gets what was kept.
    assert await first.keep(keyed, Reply({}, b"late")) == await first.find(keyed) == reply
    first.close()
    keys = [item.key for item in archive.list(FIRST_ANSWERS)]
    assert len(keys) == 2
    for key in keys:
        with pytest.raises(S3Error, match="AccessDenied"):
            client_of(credentials["archive"]).remove_object(bucket_name=BUCKET, object_name=key)
    for name in ("seal", "rollout", "console", "releases", "setup"):
        with pytest.raises(StoreError, match="AccessDenied"):
            S3Store(credentials[name]).create(f"{FIRST_ANSWERS}x", b"x", "text/plain")
    with pytest.raises(StoreError, match="AccessDenied"):
        S3Store(credentials["releases"]).get(keys[0])


def test_the_fronts_credential_reads_stops_and_writes_none(credentials: dict[str, S3Settings], archive: Store) -> None:
    S3Store(credentials["rollout"]).put("stops/0123456789ab/1.json", b"{}", "application/json")
    front = S3Store(credentials["archive"])
    (key,) = [stored.key for stored in front.list("stops/0123456789ab/")]
    assert front.get(key) == b"{}"
    for name in ("archive", "console", "alerts", "seal", "setup", "releases"):
        with pytest.raises(StoreError, match="AccessDenied"):
            S3Store(credentials[name]).put(key, b"x", "application/json")
    with pytest.raises(StoreError, match="AccessDenied"):
        S3Store(credentials["rollout"]).erase(key)


def test_the_set_up_credential_does_what_it_is_for_and_writes_no_record(
    credentials: dict[str, S3Settings], archive: Store
) -> None:
    expire = ["--expire-raw-days", "30", "--expire-answers-days", "1"]
    done = invoke(["archive", "setup", *expire], credentials["setup"].to_env())
    assert done.returncode == 0, done.stderr
    assert "records/ after 30 days" in done.stdout
    assert "earlier versions of objects: kept; locks: possible" in done.stdout
    assert "idempotency/ after 1 days" in done.stdout
    store = S3Store(credentials["setup"])
    store.put("checkpoints/train-1/0", b"x", "application/octet-stream")
    for key in ("records/x", image_key(FILM), *SEALS):
        with pytest.raises(StoreError):
            store.put(key, b"x", "text/plain")
    with pytest.raises(S3Error, match="AccessDenied"):
        client_of(credentials["setup"]).remove_object(
            bucket_name=BUCKET, object_name="releases/0123456789ab/release.json"
        )
