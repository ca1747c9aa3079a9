"""The whole Job in one process, against a real store: from films to a release that is pushed and not signed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pneumoserve.release.push import upload
from pneumoserve.release.schema import ReleaseManifest
from pneumoserve.store import S3Settings, S3Store, Store
from tests.support import films
from training import job as module
from training.job import main

IMAGE = f"sha256:{'ab' * 32}"


@pytest.fixture
def store(s3_server: S3Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    """A bucket of this test's own, and the environment that the Job finds in its pod."""
    settings = s3_server.in_bucket(f"job-{tmp_path.name.replace('_', '-').lower()}"[:60].rstrip("-"))
    for name, value in settings.to_env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TERMINATION_LOG", str(tmp_path / "termination-log"))
    monkeypatch.setenv("PNEUMOSERVE_IMAGE", IMAGE)
    store = S3Store(settings)
    store.ensure_bucket()
    yield store
    store.close()


def start(store: S3Store, folder: Path, out: Path, **changes: Any) -> None:
    bucket = store.settings.bucket
    options: dict[str, Any] = {
        "films": str(folder), "datasets": f"s3://{bucket}/datasets", "checkpoints": f"s3://{bucket}/checkpoints",
        "out": out, "source": "the sample", "exclude": "none", "measure_on": "", "steps": 2, "save_every": 1,
        "audit": False, "seed": 0, "device": "cpu", "threads": 1,
    }  # fmt: skip
    main(**{**options, **changes})


def released(store: S3Store) -> list[str]:
    return [found.key for found in store.list("releases/")]


def test_a_job_killed_while_it_pushes_ends_with_one_release(
    store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = upload

    def killed(folder: Path, to: Store) -> Iterator[str]:
        for place, key in enumerate(real(folder, to)):
            if place == 2:
                raise KeyboardInterrupt
            yield key

    with monkeypatch.context() as patch:
        patch.setattr(module, "upload", killed)
        with pytest.raises(KeyboardInterrupt):
            start(store, films.SAMPLE, tmp_path / "first" / "run")
    assert not any(key.endswith("release.json") for key in released(store))
    # Another pod: an empty folder, and films from the store this time.
    for path in (path for path in films.SAMPLE.rglob("*") if path.is_file()):
        store.put(f"raw/{path.relative_to(films.SAMPLE)}", path.read_bytes(), "application/octet-stream")
    capsys.readouterr()
    start(store, Path(), tmp_path / "second" / "run", films=f"s3://{store.settings.bucket}/raw")
    log = " ".join(capsys.readouterr().out.split())
    assert "ingest: 66 films, 0 new" in log
    assert "going on after step 2 of 2" in log
    assert "evaluate: validation/detector_auc" in log
    keys = released(store)
    manifests = [key for key in keys if key.endswith("release.json")]
    assert len({key.split("/")[1] for key in keys}) == len(manifests) == 1
    assert not any(key.endswith(".sig") for key in keys)
    training = ReleaseManifest.model_validate_json(store.get(manifests[0])).training
    assert (training.image_digest, training.parameters["steps"]) == (IMAGE, 2)
    # The same checkpoint, asked for by another training.
    with pytest.raises(SystemExit) as ended:
        start(store, films.SAMPLE, tmp_path / "third" / "run", seed=1)
    assert ended.value.code == 1
    message = (tmp_path / "termination-log").read_text()
    assert "holds the checkpoint of another training" in message
    assert "give another --checkpoints" in message
    assert not (tmp_path / "third" / "run" / "checkpoints").exists()


def test_a_dataset_without_a_class_ends_the_job_with_a_sentence(store: S3Store, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    for name in ("normal", "bacteria"):
        shutil.copytree(films.SAMPLE / name, folder / name)
    with pytest.raises(SystemExit) as ended:
        start(store, folder, tmp_path / "run")
    assert ended.value.code == 2
    assert (
        (tmp_path / "termination-log")
        .read_text()
        .startswith("There is no film of class viral left to learn from; add films of more patients.")
    )
    assert released(store) == []
    assert [found.key for found in store.list("checkpoints/")] == []


def test_a_gpu_that_is_not_there_is_said_before_anything_is_done(store: S3Store, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        start(store, films.SAMPLE, tmp_path / "run", device="cuda")
    assert "There is no cuda device here" in (tmp_path / "termination-log").read_text()
    assert [found.key for found in store.list("datasets/")] == []
