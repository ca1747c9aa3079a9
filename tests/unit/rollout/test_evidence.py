"""The adjudicated set, and a rollout's events on record: both in a store in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.ids import uuid7
from pneumoserve.imaging.prepare import prepare
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.records import (
    Adjudication,
    GateResult,
    Label,
    ReadingDetail,
    Record,
    RolloutEvent,
    append,
    image_detail,
    image_key,
)
from pneumoserve.release.data import Item, film_key, items_of, manifest_of, pseudonym_of
from pneumoserve.rollout.events import events_of
from pneumoserve.rollout.evidence import (
    FOLDER,
    AdjudicatedSet,
    EvidenceError,
    check_unseen,
    freeze_set,
    set_from_dataset,
    set_from_frozen,
    set_from_labels,
    store_set,
)
from pneumoserve.store import MemoryStore
from tests.support.archives import reader_of
from tests.support.entries import label_of, prediction
from tests.support.films import sample_films, truth

KEY = Ed25519PrivateKey.generate()
# Two films of the first patient, one of each other.
PATIENTS = ("a", "a", "b", "c")


def store_dataset(store: MemoryStore, items: Iterable[Item]) -> str:
    """A dataset's manifest; returns its key."""
    manifest = manifest_of(items)
    key = f"datasets/{digest_of(manifest)}.json"
    store.put(key, manifest, "application/json")
    return key


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def items(store: MemoryStore) -> list[Item]:
    """The films of a dataset that the store holds."""
    made = []
    for path, patient in zip(sample_films()[:: 60 // len(PATIENTS)], PATIENTS, strict=False):
        film = path.read_bytes()
        digest = digest_of(film)
        store.put(film_key("datasets", digest), film, "application/octet-stream")
        made.append(Item(digest, truth(path), pseudonym_of(patient), "train", digest[:12]))  # type: ignore[arg-type]
    return made


@pytest.fixture
def evidence(store: MemoryStore, items: list[Item]) -> AdjudicatedSet:
    return set_from_dataset(store, store_dataset(store, items))


@pytest.fixture(scope="module")
def reference() -> Any:
    """What a set asks of the reference release: where it is, and what it learned from."""
    facts = json.loads((REFERENCE_RUN / "run.json").read_bytes())
    data = SimpleNamespace(digest=facts["data"]["digest"])
    return SimpleNamespace(id="0" * 12, folder=REFERENCE_RUN, manifest=SimpleNamespace(data=data))


def test_one_film_of_each_patient_stored_by_digest(
    store: MemoryStore, items: list[Item], evidence: AdjudicatedSet
) -> None:
    assert set_from_dataset(store, store_dataset(store, items)).digest == evidence.digest
    assert len(evidence.stored.films) == len(set(PATIENTS))
    assert [store_set(evidence, store, rollout) for rollout in ("one", "two", "two")] == [1, 2, 2]
    stored = store.get(f"{FOLDER}/{evidence.digest}/set.json")
    assert digest_of(stored) == evidence.digest
    assert not any(item.patient.encode() in stored for item in items)


@pytest.mark.parametrize("by", ["patient", "pseudonym", "pixels"])
def test_a_set_that_a_release_has_learned_from_is_refused(
    store: MemoryStore, items: list[Item], evidence: AdjudicatedSet, reference: Any, by: str
) -> None:
    check_unseen(evidence, reference)
    learned = items_of((REFERENCE_RUN / "data" / "manifest.json").read_bytes())[0]
    if by != "pixels":
        # The reference learned from a folder; a set is ingested, of late without the names of its patients.
        patient = learned.patient if by == "patient" else pseudonym_of(learned.patient)
        items[-1] = Item(**{**vars(items[-1]), "patient": patient})
        known = set_from_dataset(store, store_dataset(store, items))
    else:
        pixels = json.loads((REFERENCE_RUN / "data" / "pixels.json").read_bytes())["pixels"][learned.sha256]
        films = (evidence.stored.films[0].model_copy(update={"pixels_sha256": pixels}), *evidence.stored.films[1:])
        known = AdjudicatedSet(evidence.stored.model_copy(update={"films": films}), store, frozenset())
    expected = "1 films and 0 patients" if by == "pixels" else "0 films and 1 patients"
    with pytest.raises(EvidenceError, match=expected):
        check_unseen(known, reference)


def test_a_release_that_does_not_say_what_it_learned_from_cannot_be_tried(
    evidence: AdjudicatedSet, reference: Any, tmp_path: Path
) -> None:
    silent = SimpleNamespace(id="1" * 12, folder=tmp_path, manifest=reference.manifest)
    with pytest.raises(EvidenceError, match="Release 111111111111 cannot be tried on any set"):
        check_unseen(evidence, silent)  # type: ignore[arg-type]


def test_a_film_that_was_exchanged_is_refused(store: MemoryStore, evidence: AdjudicatedSet) -> None:
    first, second = evidence.stored.films[:2]
    store.put(first.key, store.get(second.key), "application/octet-stream")
    with pytest.raises(EvidenceError, match="not what it was"):
        list(evidence.films())


def test_pixels_that_are_prepared_otherwise_are_refused(evidence: AdjudicatedSet) -> None:
    films = tuple(film.model_copy(update={"pixels_sha256": "0" * 64}) for film in evidence.stored.films)
    other = AdjudicatedSet(evidence.stored.model_copy(update={"films": films}), evidence.store, frozenset())
    with pytest.raises(EvidenceError, match="pixels are not what they were"):
        list(other.films())


def test_a_manifest_of_something_else_is_refused(store: MemoryStore, items: list[Item]) -> None:
    store.put("datasets/none.json", b"{}", "application/json")
    with pytest.raises(EvidenceError, match="no dataset manifest"):
        set_from_dataset(store, "datasets/none.json")
    store.put("datasets/other.json", manifest_of(items), "application/json")
    with pytest.raises(EvidenceError, match="not the one that its name says"):
        set_from_dataset(store, "datasets/other.json")


def recorded(data: bytes, patient: str | None) -> Record:
    """A prediction on record, as if a front had made it: some answer, of a real film."""
    record = prediction(release="0" * 12)
    call = record.call.model_copy(update={"patient": patient})
    return record.model_copy(update={"image": image_detail(prepare(data)), "call": call})


def test_labels_are_a_set_of_what_is_agreed_on(store: MemoryStore) -> None:
    with pytest.raises(EvidenceError, match="No prediction has a label"):
        set_from_labels(reader_of(store, KEY))
    films = [path.read_bytes() for path in sample_films()[:5]]
    patients = ("a" * 64, "a" * 64, None, None, None)
    records = [recorded(film, patient) for film, patient in zip(films, patients, strict=True)]
    for film in films:
        prepared = prepare(film)
        store.put(image_key(prepared.stored_sha256), prepared.stored, "image/jpeg")
    labels = [label_of(record) for record in records[:4]]
    contradiction = Label.model_validate(
        {**labels[3].model_dump(by_alias=True), "label_id": uuid7(), "finding": "normal", "pneumonia_type": None}
    )
    append(store, KEY, records, "test")
    append(store, KEY, [*labels, contradiction], "label")
    evidence = set_from_labels(reader_of(store, KEY))
    # Two films of one patient are one; the fourth is contradicted, the fifth has no label.
    assert len(evidence.stored.films) == 2
    assert {film.finding for film in evidence.stored.films} == {labels[0].finding}
    assert len(list(evidence.films())) == 2


def reading_of(record: Record, author: str, finding: str | None) -> Label:
    detail = ReadingDetail(
        case_id="c" * 64, prediction_ids=(record.prediction_id,), asked="referral", no_result_seen=True, not_blind=(),
        probability=1.0,
    )  # fmt: skip
    said = {"label_id": uuid7(), "finding": finding, "pneumonia_type": None, "reading": detail}
    return label_of(record, author).model_copy(update=said)


def adjudication_of(record: Record, finding: str | None, time: str) -> Adjudication:
    return Adjudication(
        adjudication_id=uuid7(), case_id="c" * 64, time=time, release=record.release, by="lead", finding=finding,
        prediction_ids=(record.prediction_id,), label_ids=(uuid7(), uuid7()),
    )  # fmt: skip


def test_a_lead_decides_where_readers_differ_and_a_blood_test_is_no_reading(store: MemoryStore) -> None:
    films = [path.read_bytes() for path in sample_films()[:5]]
    differ, undecided, agreed, unclear, by_blood = records = [recorded(film, None) for film in films]
    readings = [
        reading_of(differ, "r.1", "pneumonia"), reading_of(differ, "r.2", "normal"),
        reading_of(undecided, "r.1", "pneumonia"), reading_of(undecided, "r.2", None),
        reading_of(agreed, "r.1", "pneumonia"), reading_of(agreed, "r.2", "pneumonia"),
        reading_of(unclear, "r.1", "pneumonia"),
        label_of(by_blood).model_copy(update={"source": "blood_test"}),
    ]  # fmt: skip
    append(store, KEY, records, "test")
    append(store, KEY, readings, "label")
    decided = [
        adjudication_of(differ, "pneumonia", "2026-01-01T00:00:00.000Z"),
        adjudication_of(differ, "normal", "2026-01-02T00:00:00.000Z"),
        adjudication_of(unclear, None, "2026-01-01T00:00:00.000Z"),
    ]
    append(store, KEY, decided, "review")
    evidence = set_from_labels(reader_of(store, KEY))
    found = {film.pixels_sha256: film.finding for film in evidence.stored.films}
    assert differ.image is not None
    assert agreed.image is not None
    assert found == {differ.image.pixels_sha256: "normal", agreed.image.pixels_sha256: "pneumonia"}


def test_images_of_one_study_are_one_film(store: MemoryStore) -> None:
    records = [recorded(path.read_bytes(), None) for path in sample_films()[:2]]
    call = records[0].call.model_copy(update={"study": "c" * 64})
    records = [each.model_copy(update={"call": call}) for each in records]
    detail = reading_of(records[0], "r.1", "normal").reading
    assert detail is not None
    both = detail.model_copy(update={"prediction_ids": tuple(each.prediction_id for each in records)})
    reading = reading_of(records[0], "r.1", "normal").model_copy(update={"reading": both})
    append(store, KEY, records, "test")
    append(store, KEY, [reading], "label")
    assert len(set_from_labels(reader_of(store, KEY)).stored.films) == 1


def test_a_frozen_set_stays_what_it_was(store: MemoryStore) -> None:
    record = recorded(sample_films()[0].read_bytes(), None)
    append(store, KEY, [record], "test")
    append(store, KEY, [label_of(record)], "label")
    frozen = set_from_labels(reader_of(store, KEY))
    key = freeze_set(frozen, store)
    assert key == f"rollouts/evidence/{frozen.digest}/set.json"
    append(store, KEY, [reading_of(record, "r.2", "normal")], "label")
    assert set_from_frozen(store, key) == frozen
    # To freeze a set is no use of it.
    assert store_set(frozen, store, "r1") == 1
    store.put(key, canonical_json(frozen.stored.model_copy(update={"source": "other"})), "application/json")
    with pytest.raises(EvidenceError, match="not the one that its name says"):
        set_from_frozen(store, key)
    store.put(key, b"{}", "application/json")
    with pytest.raises(EvidenceError, match="no adjudicated set"):
        set_from_frozen(store, key)


def test_events_come_back_in_order(store: MemoryStore) -> None:
    def event(rollout: str, number: int, what: str, percent: int) -> RolloutEvent:
        return RolloutEvent.model_validate(
            {"event_id": uuid7(), "rollout_id": rollout, "number": number, "time": datetime.now(UTC).isoformat(),
             "release": "0" * 12, "stable": "1" * 12, "what": what, "percent": percent,
             "verdicts": (GateResult(gate="errors", outcome="pass", sentence="None."),)}
        )  # fmt: skip

    events = [event("r1", 1, "started", 0), event("r1", 2, "step", 1), event("r1", 3, "rolled_back", 0)]
    for each in (events[0], event("r2", 1, "started", 0), events[1], events[2]):
        append(store, KEY, [each], "rollout")
    assert events_of(reader_of(store, KEY), datetime.now(UTC) - timedelta(days=1), "r1") == events
    assert canonical_json(events[0]).startswith(b'{"disagreements":[]')
