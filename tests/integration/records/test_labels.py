"""Labels: typed by a person or read from a file, beside the record they speak of."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pneumoserve.ids import uuid7
from pneumoserve.ledger import Reader, list_segments, verify_segment
from pneumoserve.records import labels_of
from pneumoserve.signing import generate_key, load_trust, write_public_key
from pneumoserve.store import S3Settings, S3Store, Store
from tests.conftest import PNEUMOSERVE, Stack
from tests.support.archives import trust_in
from tests.support.commands import Ran, invoke, trusting
from tests.support.entries import KEY, Chain, prediction, refusal
from tests.support.films import SAMPLE

FILM = SAMPLE / "originals" / "virus" / "person1121_virus_1846.jpeg"
HEADER = "prediction_id,source,finding,pneumonia_type,author\n"
Run = Callable[..., Ran]


@pytest.fixture
def run(settings: S3Settings, tmp_path: Path) -> Run:
    """Runs `pneumoserve label …` with a key of its own."""
    key = tmp_path / "label.pem"
    made = generate_key(key)
    write_public_key(made, tmp_path / "trust")
    believed = trusting(tmp_path, KEY, made)

    def typed(*words: object) -> Ran:
        return invoke(["label", *map(str, words), "--key", str(key), *believed], settings.to_env())

    return typed


def reader_in(store: Store, folder: Path) -> Reader:
    """A reader that believes what the command signs."""
    return Reader(store, load_trust(folder / "archive-trust"), trust_in())


def test_a_label_of_a_prediction_of_the_stack(stack: Stack) -> None:
    def typed(*words: object) -> Any:
        command = [PNEUMOSERVE, *map(str, words), "--state", str(stack.state), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    (film,) = typed("predict", FILM)
    record = typed("archive", "show", film["prediction_id"])
    assert record["labels"] == []
    (made,) = typed(
        "label", film["prediction_id"], "--source", "blood_test", "--finding", "pneumonia", "--type", "viral",
        "--author", "lab-3",
    )  # fmt: skip
    shown = typed("archive", "show", film["prediction_id"])
    assert shown == {**record, "labels": [made["label"]]}
    assert made["label"]["release"] == stack.release
    store = S3Store(stack.s3)
    (place,) = [place for place in list_segments(store) if place.writer == made["receipt"]["writer"]]
    assert place.writer.startswith("label-")
    segment = verify_segment(store.get(place.key), load_trust(stack.state / "keys" / "archive-trust"))
    assert segment.header.last
    store.close()


def test_a_label_is_signed_with_the_key_that_is_given(store: Store, run: Run, tmp_path: Path) -> None:
    film = prediction()
    Chain(store, "front-00000001").write([film])
    done = run(film.prediction_id, "--source", "follow_up", "--finding", "unknown", "--author", "dr@ward")
    assert done.returncode == 0, done.stderr
    assert f"of {film.prediction_id} is on record in segment 1 of label-" in done.stdout
    (label,) = labels_of(reader_in(store, tmp_path), film.prediction_id)
    assert (label.source, label.finding, label.pneumonia_type, label.author) == ("follow_up", None, None, "dr@ward")
    (place,) = [place for place in list_segments(store) if place.writer.startswith("label-")]
    verify_segment(store.get(place.key), load_trust(tmp_path / "trust"))


def test_what_is_no_label_is_reported_and_not_written(store: Store, run: Run, tmp_path: Path) -> None:
    film, refused = prediction(), refusal()
    Chain(store, "front-00000001").write([film, refused])
    good = {"--source": "radiologist", "--finding": "normal", "--author": "r.17"}
    for identifier, changed, code, sentence in [
        ("17", {}, 2, "is a UUIDv7"),
        (film.prediction_id, {"--source": "rumour"}, 2, "The source is one of radiologist"),
        (film.prediction_id, {"--finding": "fracture"}, 2, "The finding is one of normal"),
        (film.prediction_id, {"--type": "viral"}, 2, "Only pneumonia has a type"),
        (film.prediction_id, {"--finding": "pneumonia", "--type": "fungal"}, 2, "bacterial or viral"),
        (film.prediction_id, {"--author": "Jane Doe"}, 2, "must not name a patient"),
        (film.prediction_id, {"--author": ""}, 2, "must not name a patient"),
        (film.prediction_id, {"--author": "a" * 65}, 2, "must not name a patient"),
        (film.prediction_id, {"--from": str(tmp_path / "x.csv")}, 2, "or --from FILE.csv"),
        (uuid7(), {}, 1, "no such record"),
        (refused.prediction_id, {}, 1, "on record as a refusal"),
    ]:
        words = [word for option in {**good, **changed}.items() for word in option]
        done = run(identifier, *words)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        assert sentence in done.stderr
        assert "Jane" not in done.stderr
    assert not [place for place in list_segments(store) if place.writer.startswith("label-")]


def test_many_labels_from_a_file(store: Store, run: Run, tmp_path: Path) -> None:
    films = [prediction(release=release) for release in ("0123456789ab", "ba9876543210", "0123456789ab")]
    for number, film in enumerate(films):
        Chain(store, f"front-{number:08d}").write([film], release=film.release)
    file = tmp_path / "labels.csv"
    rows = [f"{film.prediction_id},radiologist,pneumonia,viral,r.17\n" for film in films[:2]]
    file.write_text("\ufeff" + HEADER + "".join([*rows, f"{films[2].prediction_id},blood_test,normal,,lab-3\n"]))
    done = run("--from", file, "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 3
    # One writer, and one segment a release.
    written = [place for place in list_segments(store) if place.writer.startswith("label-")]
    assert [place.sequence for place in written] == [1, 2]
    assert len({place.writer for place in written}) == 1
    assert [label.author for film in films for label in labels_of(reader_in(store, tmp_path), film.prediction_id)] == [
        "r.17",
        "r.17",
        "lab-3",
    ]


def test_a_file_with_bad_lines_is_not_written_at_all(store: Store, run: Run, tmp_path: Path) -> None:
    film = prediction()
    Chain(store, "front-00000001").write([film])
    good = f"{film.prediction_id},radiologist,pneumonia,viral,r.17\n"
    file = tmp_path / "labels.csv"
    for text, code, sentence in [
        ("prediction_id,finding\n", 2, ["names the columns"]),
        (HEADER, 2, ["no labels"]),
        (HEADER + good + "x,radiologist,normal\n", 2, ["line 3: It has too few"]),
        (HEADER + good + good.strip() + ",more\n", 2, ["line 3: It has too few or too many"]),
        (
            HEADER + "x,radiologist,normal,,r.17\n" + good + good.replace("r.17", "Jane Doe"),
            2,
            ["line 2: A prediction id is", "line 4: The author", "Nothing was written"],
        ),
        (HEADER + good + good.replace(film.prediction_id, uuid7()), 1, ["line 3: The archive has no such record"]),
    ]:
        file.write_text(text)
        done = run("--from", file)
        assert done.returncode == code, (text, done.stdout, done.stderr)
        assert all(words in done.stderr for words in sentence), done.stderr
        assert "Jane" not in done.stderr
    file.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as CSV in UTF-8" in run("--from", file).stderr
    missing = run("--from", tmp_path / "none.csv")
    assert (missing.returncode, missing.stderr) == (2, "There is no file none.csv; give the one to read labels from.")
    assert "cannot be read as CSV in UTF-8 (IsADirectoryError)" in run("--from", tmp_path).stderr
    assert not [place for place in list_segments(store) if place.writer.startswith("label-")]
