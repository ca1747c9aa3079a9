"""Heat maps by the reference release, which lies in a real store, of real images."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from pneumoserve.console.heat_maps import HeatMapError, HeatMaps
from pneumoserve.imaging.pool import shared_pool
from pneumoserve.imaging.prepare import prepare
from pneumoserve.inference import infer
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.models.inprocess import InProcess, load_scorers
from pneumoserve.models.occlusion import cover
from pneumoserve.models.scorer import Scorer
from pneumoserve.names import DECISION, DETECTOR
from pneumoserve.records import Record, image_detail
from pneumoserve.release import Release, verify
from pneumoserve.release.package import package
from pneumoserve.release.push import upload
from pneumoserve.signing import generate_key, write_public_key
from pneumoserve.signing.trust import revoke
from pneumoserve.store import S3Store
from tests.support.films import CHEST_DICOM, SAMPLE
from tests.support.releases import equal
from tests.support.reviews import answer

FILM = SAMPLE / "bacteria" / "person587_bacteria_2421.jpeg"


@dataclass
class Ward:
    """Two releases of the same models, in the store alone, and what the console has."""

    store: S3Store
    releases: tuple[Release, Release]
    folder: Path
    trust: Path

    def maps(self, name: str = "console") -> HeatMaps:
        return HeatMaps(self.store, shared_pool(), self.folder / name, self.trust)

    def answered(self, path: Path, scorers: dict[str, Scorer], number: int = 0) -> Record:
        """The record of an image, which is in the store."""
        film, release = prepare(path.read_bytes()), self.releases[number]
        with ThreadPoolExecutor(1) as threads:
            inference = asyncio.run(infer(release, InProcess(scorers, threads), DECISION, film))
        self.store.put(image_detail(film).stored_key, film.stored, "application/octet-stream")
        of_release = {"release": release.id, "release_digest": release.digest}
        given = {"image": image_detail(film), "models": inference.models, "decision": inference.decision}
        return answer("a", "normal", datetime.now(UTC)).model_copy(update={**of_release, **given})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Release, Release]:
    root = tmp_path_factory.mktemp("releases")
    key = generate_key(root / "key.pem")
    write_public_key(key, root / "trust")
    runs = (REFERENCE_RUN, equal(root / "run"))
    first, second = (verify(package(run, root / "releases", key), root / "trust") for run in runs)
    return first, second


@pytest.fixture(scope="module")
def scorers(made: tuple[Release, Release]) -> Iterator[dict[str, Scorer]]:
    with load_scorers(made[0]) as loaded:
        yield loaded


@pytest.fixture
def ward(made: tuple[Release, Release], store: S3Store, tmp_path: Path) -> Ward:
    for release in made:
        list(upload(release.folder, store))
    trust = tmp_path / "trust"
    trust.mkdir()
    for file in (made[0].folder.parents[1] / "trust").iterdir():
        (trust / file.name).write_bytes(file.read_bytes())
    return Ward(store, made, tmp_path, trust)


@pytest.mark.parametrize("path", [FILM, CHEST_DICOM], ids=["jpeg", "dicom"])
def test_a_map_says_what_the_models_say_of_covered_images(path: Path, ward: Ward, scorers: dict[str, Scorer]) -> None:
    record = ward.answered(path, scorers)
    first = ward.maps().make(record)
    started = time.monotonic()
    again = ward.maps("elsewhere").make(record)
    print(f"{time.monotonic() - started:.1f} s; {first.describe()}")
    assert first.to_json() == again.to_json()
    (detector,) = [use for use in record.models if use.name == DETECTOR]
    assert first.probability == detector.probability
    assert first.lowest < first.probability < first.highest
    place = tuple(np.unravel_index(first.falls.argmax(), first.falls.shape))
    (hottest,) = scorers[DETECTOR].scores([cover(prepare(path.read_bytes()).pixels)[place]])
    assert hottest.probability == first.lowest


def test_an_earlier_release_answers_for_itself(ward: Ward, scorers: dict[str, Scorer]) -> None:
    maps = ward.maps()
    found = [maps.make(ward.answered(FILM, scorers, number)).to_json() for number in (0, 1)]
    assert found[0] == found[1]
    assert {each.name for each in (ward.folder / "console").iterdir()} == {each.id for each in ward.releases}


def test_a_release_that_is_revoked_later_draws_no_more(ward: Ward, scorers: dict[str, Scorer]) -> None:
    record, maps = ward.answered(FILM, scorers), ward.maps()
    assert maps.make(record)
    revoke(ward.trust, ward.releases[0].digest)
    with pytest.raises(HeatMapError, match=f"Release {record.release} is revoked"):
        maps.make(record)


@pytest.mark.parametrize("copied", [False, True])
def test_a_release_that_was_altered_draws_none(copied: bool, ward: Ward, scorers: dict[str, Scorer]) -> None:
    """In the store, or in the console's folder after it was fetched."""
    record, maps = ward.answered(FILM, scorers), ward.maps()
    if copied:
        maps.make(record)
        file = ward.folder / "console" / record.release / "model-store" / f"{DETECTOR}.mar"
        file.write_bytes(file.read_bytes() + b"x")
    else:
        key = f"releases/{record.release}/model-store/{DETECTOR}.mar"
        ward.store.put(key, ward.store.get(key) + b"x", "application/octet-stream")
    with pytest.raises(HeatMapError, match="was altered; fetch the release again"):
        maps.make(record)
    assert copied or not (ward.folder / "console" / record.release).exists()


def test_a_release_of_nobody_who_is_trusted_draws_none(ward: Ward, scorers: dict[str, Scorer]) -> None:
    for file in ward.trust.iterdir():
        file.unlink()
    write_public_key(generate_key(ward.folder / "other.pem"), ward.trust)
    with pytest.raises(HeatMapError, match="is not signed by a trusted key"):
        ward.maps().make(ward.answered(FILM, scorers))


def test_a_release_that_is_not_there_draws_none(ward: Ward, scorers: dict[str, Scorer]) -> None:
    record = ward.answered(FILM, scorers)
    gone = record.model_copy(update={"release": "f" * 12, "release_digest": "f" * 64})
    with pytest.raises(HeatMapError, match="There is no release ffffffffffff here, nor in the store"):
        ward.maps().make(gone)
