"""The reading queue: what is asked for stays in it until a radiologist has read it, whatever became of segments."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.archive.append import append
from pneumoserve.archive.films import image_key
from pneumoserve.archive.label import Label
from pneumoserve.archive.reading import WRITERS, ReadingRequest, open_requests
from pneumoserve.archive.record import Record
from pneumoserve.archive.seal import SealSettings, seal
from pneumoserve.archive.store import ObjectStore, S3Settings
from pneumoserve.release.schema import digest_of
from pneumoserve.release.signing import generate_key
from tests.archive.archives import client_of, trust_in
from tests.archive.commands import invoke
from tests.archive.data import label_of, prediction, request_of

KEY = Ed25519PrivateKey.generate()
FILM = b"the bytes of a film"


def of_film(film: bytes) -> Record:
    record = prediction()
    assert record.image is not None
    digest = digest_of(film)
    detail = {"stored_sha256": digest, "stored_key": image_key(digest), "format": "jpeg"}
    return record.model_copy(update={"image": record.image.model_copy(update=detail)})


def waiting(store: ObjectStore) -> list[ReadingRequest]:
    return open_requests(store, datetime.now(UTC) - timedelta(days=1))


def test_a_request_waits_until_a_radiologist_has_read_the_film(store: ObjectStore) -> None:
    films = [prediction() for _ in range(3)]
    later, first, again = request_of(films[0], 1), request_of(films[1], 9), request_of(films[0])
    # The calls' own writers are not looked through.
    append(store, KEY, films, "front")
    append(store, KEY, [later, first], WRITERS)
    append(store, KEY, [again], WRITERS)
    assert waiting(store) == [first, later]
    assert open_requests(store, datetime.now(UTC) - timedelta(minutes=5)) == [later]
    by_blood = Label.model_validate({**label_of(films[0]).model_dump(by_alias=True), "source": "blood_test"})
    append(store, KEY, [by_blood, label_of(films[2])], "label")
    assert waiting(store) == [first, later]
    append(store, KEY, [label_of(films[0])], "label")
    assert waiting(store) == [first]


def test_it_waits_after_segments_have_expired(store: ObjectStore, settings: S3Settings) -> None:
    read, unread = prediction(), prediction()
    request = request_of(unread)
    append(store, KEY, [request, request_of(read)], WRITERS)
    append(store, KEY, [label_of(read)], "label")
    sealer = Ed25519PrivateKey.generate()
    seal(store, sealer, trust_in(KEY), trust_in(sealer), datetime.now(UTC), SealSettings(lock_days=0))
    for item in list(store.list("records/")):
        client_of(settings).remove_object(settings.bucket, item.key)
    assert waiting(store) == [request]


@pytest.fixture
def asked(store: ObjectStore) -> list[Record]:
    """Two predictions that are to be read; the store has the film of the first."""
    records = [of_film(FILM), of_film(b"a film that is gone")]
    store.put(image_key(digest_of(FILM)), FILM, "image/jpeg")
    append(store, KEY, records, "front")
    append(store, KEY, [request_of(record, 2 - number) for number, record in enumerate(records)], WRITERS)
    return records


def test_the_command_lists_what_is_to_be_read_and_not_what_the_models_said(
    settings: S3Settings, asked: list[Record]
) -> None:
    shown = invoke(["queue"], settings.to_env())
    assert shown.returncode == 0
    assert all(record.prediction_id in shown.stdout for record in asked)
    assert "pneumonia" not in shown.stdout.replace("pneumoserve", "")
    listed = json.loads(invoke(["queue", "--json"], settings.to_env()).stdout)
    assert [each["prediction_id"] for each in listed] == [record.prediction_id for record in asked]


def test_films_come_with_a_sheet_that_label_takes_once_it_is_filled_in(
    settings: S3Settings, asked: list[Record], tmp_path: Path
) -> None:
    folder = tmp_path / "reading"
    there, gone = asked
    done = invoke(["queue", "--films", str(folder)], settings.to_env())
    assert (done.returncode, done.stderr) == (
        1, f"The store no longer has the films of {gone.prediction_id}; they are not in labels.csv either.",
    )  # fmt: skip
    assert {path.name for path in folder.iterdir()} == {"labels.csv", f"{there.prediction_id}.jpeg"}
    assert (folder / f"{there.prediction_id}.jpeg").read_bytes() == FILM
    again = invoke(["queue", "--films", str(folder)], settings.to_env())
    assert again.returncode == 2
    assert again.stderr.endswith("is there already; name a new folder.")

    key = tmp_path / "key.pem"
    generate_key(key)
    words = ["label", "--from", str(folder / "labels.csv"), "--key", str(key)]
    assert invoke(words, settings.to_env()).returncode == 2
    with (folder / "labels.csv").open() as text:
        (row,) = csv.DictReader(text)
    with (folder / "labels.csv").open("w", newline="") as text:
        sheet = csv.DictWriter(text, row)
        sheet.writeheader()
        sheet.writerow({**row, "finding": "normal", "author": "r.17"})
    assert invoke(words, settings.to_env()).returncode == 0
    assert gone.prediction_id in (left := invoke(["queue"], settings.to_env())).stdout
    assert there.prediction_id not in left.stdout


def test_an_empty_queue_says_so(settings: S3Settings) -> None:
    shown = invoke(["queue"], settings.to_env())
    assert (shown.returncode, shown.stdout) == (0, "nothing is asked to be read\n")
