"""Gates before any traffic: real releases, real films whose truth is known, a real store."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.archive.append import append
from pneumoserve.archive.films import image_detail, image_key
from pneumoserve.archive.label import Label
from pneumoserve.archive.read import entries
from pneumoserve.archive.reading import open_requests
from pneumoserve.archive.record import Record
from pneumoserve.archive.store import ObjectStore, S3Settings
from pneumoserve.ids import uuid7
from pneumoserve.image import prepare
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.release import Release, verify
from pneumoserve.release.data import items_of, manifest_of
from pneumoserve.release.package import package
from pneumoserve.release.schema import canonical_json, digest_of
from pneumoserve.release.signing import generate_key, write_public_key
from pneumoserve.rollout.evidence import (
    FOLDER,
    Evidence,
    EvidenceError,
    check_unseen,
    freeze,
    of_dataset,
    of_labels,
)
from pneumoserve.rollout.gates import GateSettings, judge_candidate
from pneumoserve.rollout.records import RolloutEvent, events_of
from pneumoserve.rollout.shadow import ShadowSettings, shadow
from pneumoserve.rollout.verdict import Verdict
from tests.archive.data import label_of, prediction
from tests.films import SAMPLE
from tests.rollout import releases
from training.ingest import ingest

KEY = Ed25519PrivateKey.generate()
# The sample has 40 films of pneumonia, of 32 patients, and 20 normal ones.
ROLLOUT = uuid7()
SETTINGS = GateSettings(sensitivity=0.08, specificity=0.15, referrals=0.1, brier=0.03)


@dataclass(frozen=True)
class Bench:
    """A store that holds the sample as a dataset, and releases to try on it."""

    store: ObjectStore
    manifest: str
    folder: Path

    def release(self, run: Path) -> Release:
        key = generate_key(self.folder / f"{os.urandom(4).hex()}.pem")
        write_public_key(key, self.folder / "trust")
        return verify(package(run, self.folder / "releases", key), self.folder / "trust")

    def evidence(self) -> Evidence:
        return of_dataset(self.store, self.manifest)


@pytest.fixture(scope="module")
def bench(s3_server: S3Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    settings = s3_server.in_bucket(f"rollout-{os.urandom(4).hex()}")
    store = ObjectStore(settings)
    store.set_up()
    report = ingest(SAMPLE, f"s3://{settings.bucket}/datasets", settings)
    yield Bench(store, report.manifest.partition(f"{settings.bucket}/")[2], tmp_path_factory.mktemp("rollout"))
    store.close()


@pytest.fixture(scope="module")
def stable(bench: Bench) -> Release:
    return bench.release(REFERENCE_RUN)


def verdicts(
    bench: Bench, stable: Release, run: Callable[[Path], Path], settings: GateSettings = SETTINGS
) -> dict[str, Verdict]:
    candidate = bench.release(run(bench.folder / f"run-{os.urandom(4).hex()}"))
    told: list[None] = []
    found = judge_candidate(stable, candidate, bench.evidence(), settings, lambda: told.append(None))
    assert len(told) == len(bench.evidence().frozen.films)
    return {verdict.gate: verdict for verdict in found}


def test_an_equal_candidate_passes_every_gate(bench: Bench, stable: Release) -> None:
    found = verdicts(bench, stable, releases.equal)
    assert {each.outcome for each in found.values()} == {"pass"}
    assert set(found) == {"determinism", "sensitivity", "specificity", "referrals", "calibration"}
    assert found["sensitivity"].numbers["films"] == 32
    assert found["sensitivity"].numbers["needed"] == 32


def test_negated_scores_do_not_pass(bench: Bench, stable: Release) -> None:
    found = verdicts(bench, stable, releases.negated)
    assert found["sensitivity"].outcome == found["calibration"].outcome == "fail"


def test_a_threshold_of_99_percent_does_not_pass(bench: Bench, stable: Release) -> None:
    assert verdicts(bench, stable, releases.hardly_ever)["sensitivity"].outcome == "fail"


def test_referring_every_film_does_not_pass(bench: Bench, stable: Release) -> None:
    found = verdicts(bench, stable, releases.always_asking)
    assert found["sensitivity"].outcome == "pass"
    assert found["referrals"].outcome == "fail"


def test_too_few_films_for_the_margin_are_insufficient_whatever_they_say(bench: Bench, stable: Release) -> None:
    found = verdicts(bench, stable, releases.equal, GateSettings(specificity=0.15, referrals=0.1, brier=0.03))
    assert found["sensitivity"].outcome == "insufficient"
    assert found["sensitivity"].sentence == "32 films are too few for a margin of 0.03: it takes 88 at least."


# --- the adjudicated set


def test_one_film_of_each_patient_frozen_by_digest(bench: Bench) -> None:
    first, again = bench.evidence(), bench.evidence()
    assert first.digest == again.digest
    items = items_of(bench.store.get(bench.manifest))
    assert len(first.frozen.films) == len({item.patient for item in items})
    assert [freeze(first, bench.store, rollout) for rollout in ("one", "two", "two")] == [1, 2, 2]
    stored = bench.store.get(f"{FOLDER}/{first.digest}/set.json")
    assert digest_of(stored) == first.digest
    assert not any(item.patient.encode() in stored or item.name.encode() in stored for item in items)


@pytest.mark.parametrize("by", ["patient", "pixels"])
def test_a_set_that_a_release_has_learned_from_is_refused(bench: Bench, stable: Release, by: str) -> None:
    check_unseen(bench.evidence(), stable)
    learned = items_of((REFERENCE_RUN / "data" / "manifest.json").read_bytes())[0]
    items = list(items_of(bench.store.get(bench.manifest)))
    if by == "patient":
        items[0] = type(items[0])(**{**vars(items[0]), "patient": learned.patient})
        key = bench.manifest.rpartition("/")[0] + "/other.json"
        bench.store.put(key, manifest_of(items), "application/json")
        evidence = of_dataset(bench.store, key)
    else:
        known = json.loads((REFERENCE_RUN / "data" / "pixels.json").read_bytes())["pixels"][learned.sha256]
        frozen = bench.evidence().frozen
        films = (frozen.films[0].model_copy(update={"pixels_sha256": known}), *frozen.films[1:])
        evidence = Evidence(frozen.model_copy(update={"films": films}), bench.store, frozenset())
    expected = "0 films and 1 patients" if by == "patient" else "1 films and 0 patients"
    with pytest.raises(EvidenceError, match=expected):
        check_unseen(evidence, stable)


def test_a_film_that_was_exchanged_is_refused(bench: Bench, stable: Release) -> None:
    evidence = bench.evidence()
    first = evidence.frozen.films[0]
    kept = bench.store.get(first.key)
    bench.store.put(first.key, bench.store.get(evidence.frozen.films[1].key), "application/octet-stream")
    try:
        with pytest.raises(EvidenceError, match="not what it was"):
            judge_candidate(stable, stable, evidence, SETTINGS)
    finally:
        bench.store.put(first.key, kept, "application/octet-stream")


def test_a_manifest_of_something_else_is_refused(bench: Bench) -> None:
    bench.store.put("datasets/none.json", b"{}", "application/json")
    with pytest.raises(EvidenceError, match="no dataset manifest"):
        of_dataset(bench.store, "datasets/none.json")


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


def test_labels_are_a_set_of_what_is_agreed_on(store: ObjectStore, stable: Release) -> None:
    with pytest.raises(EvidenceError, match="No prediction has a label"):
        of_labels(store)
    films = sorted(SAMPLE.rglob("*.jpeg"))[:5]
    records = [
        recorded(stable, film.read_bytes(), patient)
        for film, patient in zip(films, ("a" * 64, "a" * 64, None, None, None), strict=True)
    ]
    for film, record in zip(films, records, strict=True):
        prepared = prepare(film.read_bytes())
        store.put(image_key(prepared.stored_sha256), prepared.stored, "image/jpeg")
        assert record.image is not None
    labels = [label_of(record) for record in records[:4]]
    contradiction = Label.model_validate(
        {**labels[3].model_dump(by_alias=True), "label_id": uuid7(), "finding": "normal", "pneumonia_type": None}
    )
    append(store, KEY, records, "test")
    append(store, KEY, [*labels, contradiction], "label")
    evidence = of_labels(store)
    # Two films of one patient are one; the fourth is contradicted, the fifth has no label.
    assert len(evidence.frozen.films) == 2
    assert {film.finding for film in evidence.frozen.films} == {labels[0].finding}
    assert len(list(evidence.films())) == 2


# --- shadow, records


def test_a_shadow_is_on_record_and_names_what_differs(store: ObjectStore, bench: Bench, stable: Release) -> None:
    films = [path.read_bytes() for path in sorted(SAMPLE.rglob("*.jpeg"))[:6]]
    for data in films:
        prepared = prepare(data)
        store.put(image_key(prepared.stored_sha256), prepared.stored, "image/jpeg")
    records = [recorded(stable, data) for data in films]
    append(store, KEY, records, "test")
    candidate = bench.release(releases.always_asking(bench.folder / "asking"))
    found = shadow(store, KEY, stable, candidate, ShadowSettings(films=4), ROLLOUT)
    assert found.verdict.outcome == "fail"
    last = sorted(records, key=lambda record: record.time)[-4:]
    assert set(found.disagreements) <= {record.prediction_id for record in records}
    made = [entry for entry in entries(store) if isinstance(entry, Record) and entry.arm == "shadow"]
    assert len(made) == len(last) == 4
    assert {entry.release for entry in made} == {candidate.id}
    assert {entry.call.call_id for entry in made} <= {record.call.call_id for record in records}
    assert all(entry.decision is not None and entry.decision.referred for entry in made)
    requests = open_requests(store, datetime.now(UTC) - timedelta(days=1))
    assert {request.prediction_id for request in requests} == set(found.disagreements) != set()
    assert {(request.release, request.rollout_id) for request in requests} == {(stable.id, ROLLOUT)}


def test_events_come_back_in_order(store: ObjectStore) -> None:
    def event(rollout: str, number: int, what: str, percent: int) -> RolloutEvent:
        return RolloutEvent.model_validate(
            {"event_id": uuid7(), "rollout_id": rollout, "number": number, "time": datetime.now(UTC).isoformat(),
             "release": "0" * 12, "stable": "1" * 12, "what": what, "percent": percent,
             "verdicts": (Verdict(gate="errors", outcome="pass", sentence="None."),)}
        )  # fmt: skip

    events = [event("r1", 1, "started", 0), event("r1", 2, "step", 1), event("r1", 3, "rolled_back", 0)]
    for each in (events[0], event("r2", 1, "started", 0), events[1], events[2]):
        append(store, KEY, [each], "rollout")
    assert events_of(store, datetime.now(UTC) - timedelta(days=1), "r1") == events
    assert canonical_json(events[0]).startswith(b'{"disagreements":[]')
