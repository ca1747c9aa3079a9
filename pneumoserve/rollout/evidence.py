"""The adjudicated set: films of which the truth is known, none of which either release has learned from.

It is frozen when a rollout first uses it: one film of each patient, by digest, in canonical JSON whose SHA-256 names
it. Uses are counted, since a set that many candidates were tried on no longer stands for new patients.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from pneumoserve.canonical import Sha256, canonical_json, digest_of
from pneumoserve.decision import Finding
from pneumoserve.errors import PneumoserveError
from pneumoserve.imaging import ImageError, PreparedImage
from pneumoserve.imaging.pool import shared_pool
from pneumoserve.ledger import Reader
from pneumoserve.records import LABEL_WRITERS, REVIEW_WRITERS, Adjudication, Label, find_records, read_entries
from pneumoserve.release import Release
from pneumoserve.release.data import DataError, Item, film_key, items_of, pseudonym_of, read_data
from pneumoserve.store import Store

FOLDER: Final = "rollouts/evidence"


class EvidenceError(PneumoserveError, ValueError):
    """An adjudicated set that cannot be used; the text says what to do."""


class AdjudicatedFilm(BaseModel):
    """One film: where its bytes are in the store, their digest, that of the prepared pixels, and the truth."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    sha256: Sha256
    pixels_sha256: Sha256
    finding: Finding


class StoredSet(BaseModel):
    """The set as it is stored."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["pneumoserve.evidence/1"] = Field(default="pneumoserve.evidence/1", alias="schema")
    source: str = Field(description="labels, or the digest of the dataset's manifest")
    bucket: str
    films: tuple[AdjudicatedFilm, ...]


@dataclass(frozen=True)
class AdjudicatedSet:
    """A frozen set, and how to read its films. `patients` are known of a dataset only, and are stored nowhere."""

    stored: StoredSet
    store: Store
    patients: frozenset[str]

    @property
    def digest(self) -> Sha256:
        return digest_of(canonical_json(self.stored))

    def films(self) -> Iterator[tuple[AdjudicatedFilm, PreparedImage]]:
        """Each film, prepared.

        Raises:
            EvidenceError: one is not what it was.
            StoreError: the store does not answer.
        """
        for film in self.stored.films:
            prepared = _prepare(self.store, film.key, film.sha256)
            if prepared.pixels_sha256 != film.pixels_sha256:
                raise EvidenceError("A film's pixels are not what they were; use a set of this version's own.")
            yield film, prepared


def set_from_dataset(store: Store, key: str) -> AdjudicatedSet:
    """The set of an ingested dataset, whose manifest is the object `key` of the store's bucket.

    Raises:
        EvidenceError: it is no manifest, not the one of its name, or a film of it is missing or not what it was.
        StoreError: the store does not answer.
    """
    manifest = store.get(key)
    try:
        items = items_of(manifest)
    except DataError as error:
        raise EvidenceError(f"This is no dataset manifest ({error}); make one with `pneumoserve ingest`.") from None
    prefix, _, name = key.rpartition("/")
    # Nobody signs a dataset. The plan names its digest, and so says what it holds.
    if name != f"{digest_of(manifest)}.json":
        raise EvidenceError("The dataset's manifest is not the one that its name says; ingest the set again.")
    films = []
    for item in _one_film_per_patient(items):
        at = film_key(prefix, item.sha256)
        pixels = _prepare(store, at, item.sha256).pixels_sha256
        finding: Finding = "normal" if item.cls == "normal" else "pneumonia"
        films.append(AdjudicatedFilm(key=at, sha256=item.sha256, pixels_sha256=pixels, finding=finding))
    stored = StoredSet(source=digest_of(manifest), bucket=store.bucket, films=tuple(films))
    return AdjudicatedSet(stored, store, frozenset(item.patient for item in items))


def _one_film_per_patient(items: Iterable[Item]) -> list[Item]:
    """One film of each patient: the one whose digest is the smallest, which hangs on nothing that a model says."""
    first: dict[str, Item] = {}
    for item in sorted(items, key=lambda item: item.sha256):
        first.setdefault(item.patient, item)
    return list(first.values())


def set_from_labels(reader: Reader) -> AdjudicatedSet:
    """The set of all images on record that people have read, whichever release answered.

    What a lead decided counts; else what all readers found. An image whose readers differ is left out, and so is one
    that was not kept. Blood tests and follow-ups do not count: they speak of the patient, not of the image. Images
    without a patient reference count as patients of their own, those of one study as one.

    Raises:
        EvidenceError: there is none.
        StoreError: the store does not answer.
        ValueError: an entry cannot be read.
    """
    agreed = _read_findings(reader)
    films: dict[str, AdjudicatedFilm] = {}
    records = find_records(reader, agreed)
    for prediction_id in sorted(records, key=lambda each: hashlib.sha256(each.encode()).digest()):
        record = records[prediction_id]
        if record.image is None:
            continue
        film = AdjudicatedFilm(
            key=record.image.stored_key,
            sha256=record.image.stored_sha256,
            pixels_sha256=record.image.pixels_sha256,
            finding=agreed[prediction_id],
        )
        films.setdefault(record.call.patient or record.call.study or film.pixels_sha256, film)
    if not films:
        raise EvidenceError(
            "No prediction has a label of a reader; record some with `pneumoserve label`, or name a dataset."
        )
    ordered = sorted(films.values(), key=lambda film: film.sha256)
    stored = StoredSet(source="labels", bucket=reader.store.bucket, films=tuple(ordered))
    return AdjudicatedSet(stored, reader.store, frozenset())


def _read_findings(reader: Reader) -> dict[str, Finding]:
    """What each prediction's image shows, of those of which that is settled."""
    read: dict[str, set[Finding | None]] = defaultdict(set)
    decided: dict[str, Adjudication] = {}
    for entry in read_entries(reader, roles=(LABEL_WRITERS, REVIEW_WRITERS)):
        if isinstance(entry, Adjudication):
            for each in entry.prediction_ids:
                decided[each] = max(decided.get(each, entry), entry, key=lambda made: (made.time, made.adjudication_id))
        # In a sheet, "unknown" is no reading; in the reading room it is one, and may differ from another.
        elif isinstance(entry, Label) and entry.source == "radiologist" and (entry.finding or entry.reading):
            for each in entry.prediction_ids:
                read[each].add(entry.finding)
    read.update({each: {made.finding} for each, made in decided.items()})
    settled = {each: next(iter(findings)) for each, findings in read.items() if len(findings) == 1}
    return {each: finding for each, finding in settled.items() if finding is not None}


def set_from_frozen(store: Store, key: str) -> AdjudicatedSet:
    """The set that was frozen as the object `key`, which names its digest.

    Raises:
        EvidenceError: it is no set, or not the one of its name.
        StoreError: the store does not answer.
    """
    document = store.get(key)
    try:
        stored = StoredSet.model_validate_json(document)
    except ValueError:
        raise EvidenceError("This is no adjudicated set; make one with `pneumoserve review freeze`.") from None
    if key != set_key(digest_of(document)):
        raise EvidenceError("The adjudicated set is not the one that its name says; freeze one again.")
    return AdjudicatedSet(stored, store, frozenset())


def freeze_set(evidence: AdjudicatedSet, store: Store) -> str:
    """Store a set under its digest; the key, which a plan names as its evidence.

    Raises:
        StoreError: the store does not take it.
    """
    key = set_key(evidence.digest)
    store.put(key, canonical_json(evidence.stored), "application/json")
    return key


def set_key(digest: Sha256) -> str:
    """Where a set is kept."""
    return f"{FOLDER}/{digest}/set.json"


def check_unseen(evidence: AdjudicatedSet, release: Release) -> None:
    """Make sure that a release has learned from no film and no patient of the set.

    Raises:
        EvidenceError: it has, or it does not say what it learned from.
    """
    try:
        data = read_data(release.folder, release.manifest.data.digest)
    except DataError as error:
        raise EvidenceError(
            f"Release {release.id} cannot be tried on any set: {error}; train and package it with this version."
        ) from None
    files, pixels = {item.sha256 for item in data.items}, set(data.pixels.values())
    known = sum(film.sha256 in files or film.pixels_sha256 in pixels for film in evidence.stored.films)
    # One of them may come from a folder, the other from the store, where patients have other names.
    of_set, of_release = (
        {pseudonym_of(patient) for patient in each}
        for each in (evidence.patients, [item.patient for item in data.items])
    )
    patients = len(of_set & of_release)
    if known or patients:
        raise EvidenceError(
            f"{known} films and {patients} patients of the adjudicated set stand in the training manifest of release "
            f"{release.id}, so its figures on them say nothing; take them out of the set."
        )


def store_set(evidence: AdjudicatedSet, store: Store, rollout_id: str) -> int:
    """Store the set, and count this rollout's use of it; how many rollouts have used it, this one included.

    Raises:
        StoreError: the store does not take it.
    """
    folder = f"{FOLDER}/{evidence.digest}"
    freeze_set(evidence, store)
    store.put(f"{folder}/uses/{rollout_id}.json", canonical_json({"rollout": rollout_id}), "application/json")
    return sum(1 for _ in store.list(f"{folder}/uses/"))


def _prepare(store: Store, key: str, sha256: Sha256) -> PreparedImage:
    data = store.get(key)
    if digest_of(data) != sha256:
        raise EvidenceError("A film of the adjudicated set is not what it was; ingest the set again.")
    try:
        return shared_pool().prepare(data)
    except ImageError as error:
        raise EvidenceError(f"A film of the adjudicated set cannot be read ({error}); remove it.") from None
