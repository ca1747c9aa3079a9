"""What waits to be read, on a real store: `queue`, the sheet that `label` takes back, `sample` and `review`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.canonical import digest_of
from pneumoserve.ids import uuid7
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.records import READING_WRITERS, Record, append, image_key
from pneumoserve.release.package import package
from pneumoserve.review import study_number
from pneumoserve.signing import generate_key
from pneumoserve.store import S3Settings, S3Store
from tests.support.commands import Ran, invoke, trusting
from tests.support.entries import label_of, prediction, request_of
from tests.support.reviews import answer, case_of

KEY = Ed25519PrivateKey.generate()
FILM = b"the bytes of a film"


def of_film(film: bytes, identifier: str | None = None) -> Record:
    record = prediction(identifier)
    assert record.image is not None
    digest = digest_of(film)
    detail = {"stored_sha256": digest, "stored_key": image_key(digest), "format": "jpeg"}
    return record.model_copy(update={"image": record.image.model_copy(update=detail)})


@pytest.fixture
def asked(store: S3Store) -> list[Record]:
    """Two predictions that are to be read; the store has the film of the first."""
    # Two of one millisecond are listed by their ids.
    first, second = sorted((uuid7(), uuid7()))
    records = [of_film(FILM, first), of_film(b"a film that is gone", second)]
    store.put(image_key(digest_of(FILM)), FILM, "image/jpeg")
    append(store, KEY, records, "front")
    append(store, KEY, [request_of(record, 2 - number) for number, record in enumerate(records)], READING_WRITERS)
    return records


@pytest.fixture
def run(settings: S3Settings, tmp_path: Path) -> Callable[..., Ran]:
    """Runs a command with trusted keys and a database of its own."""
    believed = trusting(tmp_path, KEY, generate_key(tmp_path / "key.pem"))
    environment = {**settings.to_env(), "REVIEW_DATABASE": f"sqlite:///{tmp_path / 'review.sqlite'}"}

    def typed(*words: object) -> Ran:
        return invoke([*map(str, words), *believed], environment)

    return typed


def test_the_command_lists_what_is_to_be_read_and_not_what_the_models_said(
    asked: list[Record], run: Callable[..., Ran]
) -> None:
    shown = run("queue")
    assert shown.returncode == 0, shown.stderr
    assert all(record.prediction_id in shown.stdout for record in asked)
    assert "pneumonia" not in shown.stdout.replace("pneumoserve", "")
    assert "shadow" not in shown.stdout
    listed = json.loads(run("queue", "--json").stdout)
    assert listed == [
        {"case_id": record.prediction_id, "prediction_ids": [record.prediction_id], "claimed": False}
        for record in asked
    ]


def test_films_come_with_a_sheet_that_label_takes_once_it_is_filled_in(
    asked: list[Record], run: Callable[..., Ran], tmp_path: Path
) -> None:
    folder = tmp_path / "reading"
    there, gone = asked
    done = run("queue", "--films", folder)
    assert (done.returncode, done.stderr) == (
        1, f"The store no longer has the films of {gone.prediction_id}; they are not in labels.csv either.",
    )  # fmt: skip
    assert {path.name for path in folder.iterdir()} == {"labels.csv", f"{there.prediction_id}.jpeg"}
    assert (folder / f"{there.prediction_id}.jpeg").read_bytes() == FILM
    again = run("queue", "--films", folder)
    assert again.returncode == 2
    assert again.stderr.endswith("is there already; name a new folder.")

    words = ["label", "--from", folder / "labels.csv", "--key", tmp_path / "key.pem"]
    assert run(*words).returncode == 2
    with (folder / "labels.csv").open() as text:
        (row,) = csv.DictReader(text)
    with (folder / "labels.csv").open("w", newline="") as text:
        sheet = csv.DictWriter(text, row)
        sheet.writeheader()
        sheet.writerow({**row, "finding": "normal", "author": "r.17"})
    assert run(*words).returncode == 0
    assert gone.prediction_id in (left := run("queue")).stdout
    assert there.prediction_id not in left.stdout


def test_all_images_of_a_study_come_under_one_name(store: S3Store, run: Callable[..., Ran], tmp_path: Path) -> None:
    films = [b"one view", b"another view"]
    records = []
    for film in films:
        store.put(image_key(digest_of(film)), film, "image/jpeg")
        record = of_film(film)
        records.append(record.model_copy(update={"call": record.call.model_copy(update={"study": "c" * 64})}))
    append(store, KEY, records, "front")
    assert run("queue", "--films", tmp_path / "reading").returncode == 0
    first = min(records, key=lambda record: (record.time, record.prediction_id)).prediction_id
    names = {path.name for path in (tmp_path / "reading").iterdir()}
    assert names == {"labels.csv", f"{first}.jpeg", f"{first}-2.jpeg"}
    assert (tmp_path / "reading" / "labels.csv").read_text().count("\n") == 2


def test_an_empty_queue_says_so(run: Callable[..., Ran]) -> None:
    shown = run("queue")
    assert (shown.returncode, shown.stdout) == (0, "nothing is asked to be read\n")


def test_a_sample_is_drawn_read_and_rebuilt(store: S3Store, run: Callable[..., Ran], tmp_path: Path) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    folder = package(REFERENCE_RUN, tmp_path / "releases", generate_key(tmp_path / "release.pem"))
    manifest, release = (folder / "release.json").read_bytes(), folder.name
    append(store, KEY, [answer(f"s{n}", "normal", yesterday, 0.001, release) for n in range(8)], "front")
    (tmp_path / "chance.key").write_bytes(b"k" * 32)
    words = ["sample", "--key", tmp_path / "key.pem", "--chance-key", tmp_path / "chance.key", "--json"]
    unknown = run(*words)
    assert unknown.returncode == 1
    assert "answered 8 studies" in unknown.stderr
    store.put(f"releases/{release}/release.json", manifest, "application/json")
    drawn = json.loads(run(*words).stdout)
    assert {draw["case_id"] for draw in drawn["draws"]} == {case_of(f"s{n}") for n in range(8)}
    assert drawn["plans"][0]["release"] == release
    again = json.loads(run(*words).stdout)
    assert (again["draws"], again["drawn_before"]) == ([], 8)
    assert "0 of 8 confident studies" in run(*words[:-1]).stdout

    listed = run("queue", "--json").stdout
    assert len(json.loads(listed)) == 8
    rebuilt = run("review", "rebuild")
    assert (rebuilt.returncode, rebuilt.stdout) == (0, "the review database is made of 17 entries of the archive\n")
    assert run("queue", "--json").stdout == listed

    assert "not estimable" in run("review", "agreement").stdout
    nothing = run("review", "agreement", "--json")
    assert json.loads(nothing.stdout)["studies"] == 0
    assert run("review", "freeze").returncode == 1


def test_what_people_read_is_frozen(asked: list[Record], store: S3Store, run: Callable[..., Ran]) -> None:
    append(store, KEY, [label_of(asked[0])], "label")
    frozen = json.loads(run("review", "freeze", "--json").stdout)
    assert (frozen["normal"], frozen["pneumonia"]) == (0, 1)
    assert digest_of(store.get(frozen["evidence"])) == frozen["digest"]


def test_incidents_are_reported_and_listed(
    asked: list[Record], store: S3Store, run: Callable[..., Ran], tmp_path: Path
) -> None:
    append(store, KEY, [answer("one", "normal", datetime.now(UTC))], "front")
    assert "none was reported" in run("review", "incidents").stdout
    said = ["--kind", "missed_pneumonia", "--by", "dr.5", "--comment", "[red]Seen on day 3."]
    done = run("review", "incident", study_number(case_of("one")), *said, "--key", tmp_path / "key.pem")
    assert (done.returncode, study_number(case_of("one")) in done.stdout) == (0, True), done.stderr
    (found,) = json.loads(run("review", "incidents", "--json").stdout)
    assert (found["case_id"], found["by"], found["kind"]) == (case_of("one"), "dr.5", "missed_pneumonia")
    listed = run("review", "incidents").stdout
    assert study_number(case_of("one")) in listed
    assert "[red]Seen" in listed


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["0000-0000", "--kind", "other", "--by", "dr.5"], 1, "There is no such study"),
        (["x", "--kind", "worse", "--by", "dr.5"], 2, "--kind is one of missed_pneumonia"),
        (["x", "--kind", "other", "--by", "Dr. Five"], 2, "staff id or role"),
    ],
)
def test_an_incident_that_cannot_be_one_is_refused(
    words: list[str], code: int, says: str, run: Callable[..., Ran], tmp_path: Path
) -> None:
    done = run("review", "incident", *words, "--key", tmp_path / "key.pem")
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert "none was reported" in run("review", "incidents").stdout


@pytest.mark.parametrize("command", [["queue"], ["sample"], ["review", "rebuild"], ["review", "agreement"]])
def test_a_database_that_is_away_is_named_in_one_sentence(
    command: list[str], settings: S3Settings, tmp_path: Path
) -> None:
    environment = {**settings.to_env(), "REVIEW_DATABASE": "postgresql://somebody:secret@127.0.0.1:1/review"}
    done = invoke([*command, *trusting(tmp_path, KEY)], environment)
    assert done.returncode == 1
    assert "The review database does not answer" in done.stderr
    assert "secret" not in done.stderr
