"""Gates before any traffic: real releases, real films whose truth is known, a real store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.ids import uuid7
from pneumoserve.imaging.prepare import prepare
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.records import GateResult, ReadingRequest, Record, append, image_detail, image_key, read_entries
from pneumoserve.release import Release, verify
from pneumoserve.release.package import package
from pneumoserve.rollout.evidence import (
    AdjudicatedSet,
    set_from_dataset,
)
from pneumoserve.rollout.gates import GateSettings, evaluate_candidate
from pneumoserve.rollout.shadow import ShadowSettings, run_shadow
from pneumoserve.signing import generate_key, write_public_key
from pneumoserve.store import S3Settings, S3Store, Store
from tests.support import releases
from tests.support.archives import reader_of
from tests.support.entries import prediction
from tests.support.films import SAMPLE
from training.ingest import ingest

KEY = Ed25519PrivateKey.generate()
# The sample has 40 films of pneumonia, of 32 patients, and 20 normal ones.
ROLLOUT = uuid7()
SETTINGS = GateSettings(missed_pneumonia=0.08, false_alarm=0.15, referrals=0.1, brier=0.03)


@dataclass(frozen=True)
class Bench:
    """A store that holds the sample as a dataset, and releases to try on it."""

    store: Store
    manifest: str
    folder: Path

    def release(self, run: Path) -> Release:
        key = generate_key(self.folder / f"{os.urandom(4).hex()}.pem")
        write_public_key(key, self.folder / "trust")
        return verify(package(run, self.folder / "releases", key), self.folder / "trust")

    def evidence(self) -> AdjudicatedSet:
        return set_from_dataset(self.store, self.manifest)


@pytest.fixture(scope="module")
def bench(s3_server: S3Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    settings = s3_server.in_bucket(f"rollout-{os.urandom(4).hex()}")
    store = S3Store(settings)
    S3Store(store.settings, patient=True).set_up()
    report = ingest(SAMPLE, f"s3://{settings.bucket}/datasets", settings)
    yield Bench(store, report.manifest.partition(f"{settings.bucket}/")[2], tmp_path_factory.mktemp("rollout"))
    store.close()


@pytest.fixture(scope="module")
def stable(bench: Bench) -> Release:
    return bench.release(REFERENCE_RUN)


def results_of(
    bench: Bench, stable: Release, run: Callable[[Path], Path], settings: GateSettings = SETTINGS
) -> dict[str, GateResult]:
    candidate = bench.release(run(bench.folder / f"run-{os.urandom(4).hex()}"))
    seen: list[None] = []
    found = evaluate_candidate(stable, candidate, bench.evidence(), settings, lambda: seen.append(None))
    assert len(seen) == len(bench.evidence().stored.films)
    return {result.gate: result for result in found}


def test_an_equal_candidate_passes_every_gate(bench: Bench, stable: Release) -> None:
    found = results_of(bench, stable, releases.equal)
    assert {each.outcome for each in found.values()} == {"pass"}
    assert set(found) == {"determinism", "missedPneumonia", "falseAlarm", "referrals", "calibration"}
    assert found["missedPneumonia"].numbers["films"] == 32
    assert found["missedPneumonia"].numbers["needed"] == 32


def test_negated_scores_do_not_pass(bench: Bench, stable: Release) -> None:
    found = results_of(bench, stable, releases.negated)
    assert found["missedPneumonia"].outcome == found["calibration"].outcome == "fail"


def test_a_threshold_of_99_percent_does_not_pass(bench: Bench, stable: Release) -> None:
    assert results_of(bench, stable, releases.hardly_ever)["missedPneumonia"].outcome == "fail"


def test_referring_every_film_does_not_pass(bench: Bench, stable: Release) -> None:
    found = results_of(bench, stable, releases.always_asking)
    assert found["missedPneumonia"].outcome == "pass"
    assert found["referrals"].outcome == "fail"


def test_too_few_films_for_the_margin_are_insufficient_whatever_they_say(bench: Bench, stable: Release) -> None:
    found = results_of(bench, stable, releases.equal, GateSettings(false_alarm=0.15, referrals=0.1, brier=0.03))
    assert found["missedPneumonia"].outcome == "insufficient"
    assert found["missedPneumonia"].sentence == "32 films are too few for a margin of 0.03: it takes 88 at least."


# --- shadow


def recorded(release: Release, data: bytes, patient: str | None = None) -> Record:
    """A prediction on record, as if a front had made it: some answer, of a real film."""
    record = prediction(release=release.id)
    film = prepare(data)
    return record.model_copy(
        update={
            "release_digest": release.digest,
            "image": image_detail(film),
            "call": record.call.model_copy(update={"patient": patient}),
            "preprocessing_version": release.manifest.preprocessing_version,
        }
    )


def test_a_shadow_is_on_record_and_names_what_differs(store: Store, bench: Bench, stable: Release) -> None:
    films = [path.read_bytes() for path in sorted(SAMPLE.rglob("*.jpeg"))[:6]]
    for data in films:
        prepared = prepare(data)
        store.put(image_key(prepared.stored_sha256), prepared.stored, "image/jpeg")
    records = [recorded(stable, data) for data in films]
    append(store, KEY, records, "test")
    candidate = bench.release(releases.always_asking(bench.folder / "asking"))
    found = run_shadow(reader_of(store, KEY), KEY, stable, candidate, ShadowSettings(films=4), ROLLOUT)
    assert found.result.outcome == "fail"
    last = sorted(records, key=lambda record: record.time)[-4:]
    assert set(found.disagreements) <= {record.prediction_id for record in records}
    made = [
        entry for entry in read_entries(reader_of(store, KEY)) if isinstance(entry, Record) and entry.arm == "shadow"
    ]
    assert len(made) == len(last) == 4
    assert {entry.release for entry in made} == {candidate.id}
    assert {entry.call.call_id for entry in made} <= {record.call.call_id for record in records}
    assert all(entry.decision is not None and entry.decision.referred for entry in made)
    requests = [entry for entry in read_entries(reader_of(store, KEY)) if isinstance(entry, ReadingRequest)]
    assert {request.prediction_id for request in requests} == set(found.disagreements) != set()
    assert {(request.release, request.rollout_id) for request in requests} == {(stable.id, ROLLOUT)}
