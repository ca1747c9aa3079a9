"""What an ingest stores: films as the front stores them, and no word that names a patient."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pneumoserve.imaging.prepare import prepare
from pneumoserve.store import S3Settings, S3Store
from tests.support import films
from training.config import TrainConfig
from training.dataset import DatasetError, dataset_from_manifest
from training.ingest import ingest
from training.job import Job, _ingest

NAMED = {
    "normal/Mustermann^Erika_19991231-PID.dcm": films.dicom_with_texts,
    "bacteria/person12_bacteria_Mustermann.jpeg": films.jpeg_with_texts,
    "bacteria/person12_bacteria_34.png": films.png_with_texts,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A clinic's films, whose names and contents name patients."""
    for name, content in NAMED.items():
        (tmp_path / "films" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "films" / name).write_bytes(content())
    return tmp_path / "films"


def planted(data: bytes) -> list[str]:
    words = (*films.PLANTED, "Erika", "person12")
    return [word for word in words if word.encode() in data or word.encode("utf-16-le") in data]


def test_no_word_about_a_patient_comes_into_the_store_or_the_log(
    folder: Path, s3_server: S3Settings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "normal" / "Mustermann_broken.dcm").write_bytes(b"Mustermann")
    settings = s3_server.in_bucket("private")
    job = Job(str(folder), "s3://private/datasets", TrainConfig(dataset="", out=tmp_path / "run"))
    manifest = _ingest(job, settings)
    store = S3Store(settings)
    found = {each.key: store.get(each.key) for each in store.list("")}
    assert len(found) == 4
    assert {key: planted(key.encode() + data) for key, data in found.items()} == {key: [] for key in found}
    assert planted("".join(capfd.readouterr()).encode()) == []
    items = dataset_from_manifest(found[manifest.removeprefix("s3://private/")]).items
    assert {item.sha256 for item in items} == {prepare(content()).stored_sha256 for content in NAMED.values()}
    # Two films of one patient stay together.
    assert len({item.patient for item in items}) == 2


def test_a_job_that_can_read_no_film_does_not_log_its_name(folder: Path, s3_server: S3Settings) -> None:
    for name in NAMED:
        (folder / name).write_bytes(b"Mustermann")
    with pytest.raises(DatasetError) as caught:
        ingest(folder, "s3://private/none", s3_server)
    assert planted(str(caught.value).encode()) == []


def test_one_film_in_two_classes_is_reported_without_its_name(folder: Path, s3_server: S3Settings) -> None:
    (folder / "virus").mkdir()
    shutil.copy(folder / next(iter(NAMED)), folder / "virus" / "Mustermann.dcm")
    with pytest.raises(DatasetError, match="two classes") as caught:
        ingest(folder, "s3://private/twice", s3_server)
    assert planted(str(caught.value).encode()) == []
