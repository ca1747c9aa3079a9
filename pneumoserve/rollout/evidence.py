"""The adjudicated set: films of which the truth is known, none of which either release has learned from.

It is frozen when a rollout first uses it: one film of each patient, by digest, in canonical JSON whose SHA-256 names
it. Uses are counted, since a set that many candidates were tried on no longer tells of new patients.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from pneumoserve.archive.find import find_records
from pneumoserve.archive.label import Label
from pneumoserve.archive.read import entries
from pneumoserve.archive.store import ObjectStore
from pneumoserve.decision import Finding
from pneumoserve.image import ImageError, PreparedImage, prepare
from pneumoserve.release import Release
from pneumoserve.release.data import DataError, Item, film_key, items_of, read_data
from pneumoserve.release.schema import Sha256, canonical_json, digest_of

FOLDER: Final = "rollouts/evidence"


class EvidenceError(ValueError):
    """An adjudicated set that cannot be used; the text says what to do."""


class Film(BaseModel):
    """One film: where its bytes are in the store, their digest, that of the prepared pixels, and the truth."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    sha256: Sha256
    pixels_sha256: Sha256
    finding: Finding


class Frozen(BaseModel):
    """The set as it is stored."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["pneumoserve.evidence/1"] = Field(default="pneumoserve.evidence/1", alias="schema")
    source: str = Field(description="labels, or the digest of the dataset's manifest")
    bucket: str
    films: tuple[Film, ...]


@dataclass(frozen=True)
class Evidence:
    """A frozen set, and how to read its films. `patients` are known of a dataset only, and are stored nowhere."""

    frozen: Frozen
    store: ObjectStore
    patients: frozenset[str]

    @property
    def digest(self) -> Sha256:
        return digest_of(canonical_json(self.frozen))

    def films(self) -> Iterator[tuple[Film, PreparedImage]]:
        """Each film, prepared.

        Raises:
            EvidenceError: one is not what it was.
            StoreError: the store does not answer.
        """
        for film in self.frozen.films:
            prepared = _prepared(self.store, film.key, film.sha256)
            if prepared.pixels_sha256 != film.pixels_sha256:
                raise EvidenceError("A film's pixels are not what they were; use a set of this version's own.")
            yield film, prepared


def of_dataset(store: ObjectStore, key: str, progress: Callable[[], None] = lambda: None) -> Evidence:
    """The set of an ingested dataset, whose manifest is the object `key` of the store's bucket.

    Raises:
        EvidenceError: it is no manifest, or a film of it is missing or not what it was.
        StoreError: the store does not answer.
    """
    manifest = store.get(key)
    try:
        items = items_of(manifest)
    except DataError as error:
        raise EvidenceError(f"This is no dataset manifest ({error}); make one with `pneumoserve ingest`.") from None
    prefix = key.rpartition("/")[0]
    films = []
    for item in _one_each(items):
        at = film_key(prefix, item.sha256)
        pixels = _prepared(store, at, item.sha256).pixels_sha256
        finding: Finding = "normal" if item.cls == "normal" else "pneumonia"
        films.append(Film(key=at, sha256=item.sha256, pixels_sha256=pixels, finding=finding))
        progress()
    frozen = Frozen(source=digest_of(manifest), bucket=store.settings.bucket, films=tuple(films))
    return Evidence(frozen, store, frozenset(item.patient for item in items))


def _one_each(items: Iterable[Item]) -> list[Item]:
    """One film of each patient: the one whose digest is the smallest, which hangs on nothing that a model says."""
    first: dict[str, Item] = {}
    for item in sorted(items, key=lambda item: item.sha256):
        first.setdefault(item.patient, item)
    return list(first.values())


def of_labels(store: ObjectStore, since: datetime | None = None) -> Evidence:
    """The set of all labelled predictions on record, whichever release made them.

    A prediction whose labels contradict each other is left out, and so is one whose film was not kept. Films without
    a patient reference count as patients of their own.

    Raises:
        EvidenceError: there is none.
        StoreError: the store does not answer.
        ValueError: an entry cannot be read.
    """
    told: dict[str, set[Finding]] = defaultdict(set)
    for entry in entries(store, since):
        if isinstance(entry, Label) and entry.finding is not None:
            told[entry.prediction_id].add(entry.finding)
    agreed = {each: next(iter(findings)) for each, findings in told.items() if len(findings) == 1}
    films: dict[str, Film] = {}
    records = find_records(store, agreed)
    for prediction_id in sorted(records, key=lambda each: hashlib.sha256(each.encode()).digest()):
        record = records[prediction_id]
        if record.image is None:
            continue
        film = Film(
            key=record.image.stored_key,
            sha256=record.image.stored_sha256,
            pixels_sha256=record.image.pixels_sha256,
            finding=agreed[prediction_id],
        )
        films.setdefault(record.call.patient or film.pixels_sha256, film)
    if not films:
        raise EvidenceError("No prediction has a label; record some with `pneumoserve label`, or name a dataset.")
    ordered = sorted(films.values(), key=lambda film: film.sha256)
    return Evidence(Frozen(source="labels", bucket=store.settings.bucket, films=tuple(ordered)), store, frozenset())


def check_unseen(evidence: Evidence, release: Release) -> None:
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
    known = sum(film.sha256 in files or film.pixels_sha256 in pixels for film in evidence.frozen.films)
    patients = len(evidence.patients & {item.patient for item in data.items})
    if known or patients:
        raise EvidenceError(
            f"{known} films and {patients} patients of the adjudicated set stand in the training manifest of release "
            f"{release.id}, so its figures on them say nothing; take them out of the set."
        )


def freeze(evidence: Evidence, store: ObjectStore, rollout_id: str) -> int:
    """Store the set, and count this rollout's use of it; how many rollouts have used it, this one included.

    Raises:
        StoreError: the store does not take it.
    """
    folder = f"{FOLDER}/{evidence.digest}"
    store.put(f"{folder}/set.json", canonical_json(evidence.frozen), "application/json")
    store.put(f"{folder}/uses/{rollout_id}.json", canonical_json({"rollout": rollout_id}), "application/json")
    return sum(1 for _ in store.list(f"{folder}/uses/"))


def _prepared(store: ObjectStore, key: str, sha256: Sha256) -> PreparedImage:
    data = store.get(key)
    if digest_of(data) != sha256:
        raise EvidenceError("A film of the adjudicated set is not what it was; ingest the set again.")
    try:
        return prepare(data)
    except ImageError as error:
        raise EvidenceError(f"A film of the adjudicated set cannot be read ({error}); remove it.") from None
