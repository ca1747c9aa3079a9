"""Following one prediction back, checking each step. Read it from `trace` downwards.

What cannot be followed or does not hold is a fault; the rest of the lineage is stated all the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pneumoserve.canonical import Sha256, digest_of
from pneumoserve.decision import Decision, Policy
from pneumoserve.ids import openlineage_run_of
from pneumoserve.inference import decide_again
from pneumoserve.records import ImageDetail, ModelUse, Record
from pneumoserve.release.data import DataError, Item, Split, TrainingData, read_data
from pneumoserve.release.fetch import download
from pneumoserve.release.holdout import DEFAULT, hold_out_of, partition
from pneumoserve.release.schema import DataFacts, Recalibration, ReleaseManifest, TrainingFacts
from pneumoserve.release.verify import ReleaseError, check_files, read_manifest, signer_of_release
from pneumoserve.store import NotFoundError, Store


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class ImagePart(_Strict):
    """The film as recorded, and what the store holds of it."""

    recorded: ImageDetail
    stored: Literal["whole", "altered", "missing"] = Field(
        description="whether the stored bytes hash to the name they have"
    )


class ModelPart(_Strict):
    """A model's part in the answer; `graph` and `in_release` are None where the release is not known.

    `in_release` is whether the release holds a model of this name with these very weights.
    """

    recorded: ModelUse
    graph: Sha256 | None
    in_release: bool | None


class DecisionPart(_Strict):
    """The recorded decision, and the one that follows from recorded scores and the release's policy."""

    recorded: Decision
    derived: Decision | None = Field(description="None where the policy is not known, or does not reach a decision")
    agrees: bool | None = Field(description="None where the policy is not known")


class ReleasePart(_Strict):
    """The release that answered. `signer` is the id of the trusted key that signed it, None where none did."""

    id: str
    digest: Sha256
    found: Literal["state", "store"] | None = Field(description="where it was read")
    intact: bool | None = Field(description="whether manifest and files have the recorded digests; None if not found")
    signer: str | None

    @property
    def verified(self) -> bool:
        """Whether a trusted key signed it and every file is whole."""
        return bool(self.intact) and self.signer is not None


class TrainingPart(_Strict):
    """The run that made the models; `openlineage_run` is its id in the run's OpenLineage events."""

    facts: TrainingFacts
    openlineage_run: str


class Seen(_Strict):
    """The training film that the asked film is: the same file, or other bytes that decode to the same pixels."""

    by: Literal["file", "pixels"]
    sha256: Sha256
    split: Split
    learned: bool = Field(description="whether the networks learned from it; a run may hold out other films")
    patient: str


class FilmsPart(_Strict):
    """The films that the release learned from, by the digests of their files, and which of them was asked about."""

    count: int
    digests: dict[Split, tuple[Sha256, ...]]
    asked: Seen | None


class Lineage(_Strict):
    """One prediction's lineage. `faults` is what could not be followed or does not hold; empty where all does."""

    schema_: Literal["pneumoserve.lineage/1"] = Field(default="pneumoserve.lineage/1", alias="schema")
    record: Record
    image: ImagePart | None
    models: tuple[ModelPart, ...]
    policy: Policy | None
    recalibration: Recalibration | None = Field(default=None, description="of a policy that was fitted to a site")
    decision: DecisionPart | None
    release: ReleasePart
    training: TrainingPart | None
    data: DataFacts | None
    films: FilmsPart | None
    software: dict[str, str]
    warnings: tuple[str, ...]
    faults: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """What was found of a release, with its faults."""

    part: ReleasePart
    manifest: ReleaseManifest | None
    data: TrainingData | None
    faults: tuple[str, ...]


def trace(record: Record, store: Store, releases: Path, trust: Path) -> Lineage:
    """The lineage of a record; its release is looked for in the folder of releases, then in the store.

    Raises:
        StoreError: the store does not answer.
    """
    found = _release(record, store, releases, trust)
    manifest = found.manifest
    image = None if record.image is None else _image(record.image, store)
    models = tuple(_model(use, manifest) for use in record.models)
    decision = _decision(record, manifest)
    films = None if found.data is None else _films(record, found.data, manifest)
    return Lineage(
        record=record,
        image=image,
        models=models,
        policy=None if manifest is None else manifest.policy,
        recalibration=None if manifest is None else manifest.recalibration,
        decision=decision,
        release=found.part,
        training=None if manifest is None else _training(manifest.training),
        data=None if manifest is None else manifest.data,
        films=films,
        software={} if manifest is None else manifest.software,
        warnings=() if films is None or films.asked is None else (_warning(films.asked),),
        faults=(*found.faults, *_faults(image, models, decision)),
    )


def _faults(image: ImagePart | None, models: tuple[ModelPart, ...], decision: DecisionPart | None) -> Iterator[str]:
    if image is not None and image.stored != "whole":
        how = {"missing": "is not in the store", "altered": "has other bytes than its name says"}[image.stored]
        yield f"The film {image.recorded.stored_key} {how}; look for its versions with `pneumoserve archive verify`."
    for model in models:
        if model.in_release is False:
            yield f"The release holds no {model.recorded.name} with the weights that the record names."
    if decision is not None and decision.agrees is False:
        yield "The recorded decision does not follow from the recorded scores and the release's policy."


def _warning(seen: Seen) -> str:
    how = "The very file" if seen.by == "file" else "A film of the very same pixels"
    if seen.learned:
        use = "the models learned from it"
    elif seen.split == "calibration":
        use = "thresholds and probabilities were fitted to it"
    else:
        use = "they were measured with it"
    return f"{how} is in the release's training data: {use}, so this answer says nothing about other films."


def _image(detail: ImageDetail, store: Store) -> ImagePart:
    try:
        whole = digest_of(store.get(detail.stored_key)) == detail.stored_sha256
    except NotFoundError:
        return ImagePart(recorded=detail, stored="missing")
    return ImagePart(recorded=detail, stored="whole" if whole else "altered")


def _model(use: ModelUse, manifest: ReleaseManifest | None) -> ModelPart:
    if manifest is None:
        return ModelPart(recorded=use, graph=None, in_release=None)
    held = next((model for model in manifest.models if (model.name, model.weights) == (use.name, use.weights)), None)
    return ModelPart(recorded=use, graph=None if held is None else held.graph, in_release=held is not None)


def _decision(record: Record, manifest: ReleaseManifest | None) -> DecisionPart | None:
    if record.decision is None:
        return None
    if manifest is None or record.image is None:
        return DecisionPart(recorded=record.decision, derived=None, agrees=None)
    try:
        derived = record.restate(decide_again(manifest.policy, record.image, record.models))
    except ValueError:
        derived = None
    return DecisionPart(recorded=record.decision, derived=derived, agrees=derived == record.decision)


def _training(facts: TrainingFacts) -> TrainingPart:
    return TrainingPart(facts=facts, openlineage_run=openlineage_run_of(facts.run_id))


def _films(record: Record, data: TrainingData, manifest: ReleaseManifest | None) -> FilmsPart:
    hold_out = DEFAULT if manifest is None else hold_out_of(manifest.training)
    digests: dict[Split, list[Sha256]] = {}
    for item in data.items:
        digests.setdefault(item.split, []).append(item.sha256)
    return FilmsPart(
        count=len(data.items),
        digests={split: tuple(each) for split, each in digests.items()},
        asked=None if record.image is None else _find(record.image, data, hold_out),
    )


def _find(image: ImageDetail, data: TrainingData, hold_out: str) -> Seen | None:
    def film(by: Literal["file", "pixels"], item: Item) -> Seen:
        learned = item in partition(data.items, hold_out).learned
        return Seen(by=by, sha256=item.sha256, split=item.split, learned=learned, patient=item.patient)

    for item in data.items:
        if item.sha256 in (image.input_sha256, image.stored_sha256):
            return film("file", item)
    same = data.with_pixels(image.pixels_sha256)
    return None if same is None else film("pixels", same)


# --- the release


def _release(record: Record, store: Store, releases: Path, trust: Path) -> _Found:
    with _folder(record.release, store, releases) as (folder, where):
        if folder is None:
            fault = (
                f"Release {record.release} is not found: neither in the folder {releases} nor in the store below "
                f"releases/{record.release}/; put it there, and ask again."
            )
            part = ReleasePart(id=record.release, digest=record.release_digest, found=None, intact=None, signer=None)
            return _Found(part, None, None, (fault,))
        return _check(record, folder, where, trust)


@contextmanager
def _folder(release: str, store: Store, releases: Path) -> Iterator[tuple[Path | None, Literal["state", "store"]]]:
    if (releases / release / "release.json").is_file():
        yield releases / release, "state"
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield download(release, store, Path(temporary)), "store"


def _check(record: Record, folder: Path, where: Literal["state", "store"], trust: Path) -> _Found:
    """What a folder holds of the record's release; signature, files and films are checked one by one."""
    part = ReleasePart(id=record.release, digest=record.release_digest, found=where, intact=False, signer=None)
    named, faults = f"Release {record.release}", list[str]()
    try:
        document, manifest = read_manifest(folder)
    except ReleaseError as error:
        return _Found(part, None, None, (f"{named}: {error}",))
    if digest_of(document) != record.release_digest:
        # Whatever it is, it is not what answered: nothing of it is stated.
        return _Found(part, None, None, (f"{named}: release.json is not the one that answered; fetch it again.",))
    data = None
    with _collect(faults):
        part = part.model_copy(update={"signer": signer_of_release(folder, document, trust)})
    with _collect(faults):
        check_files(folder, manifest.files, named)
        part = part.model_copy(update={"intact": True})
    try:
        data = read_data(folder, manifest.data.digest)
    except DataError as error:
        faults.append(f"{named} does not say which films it learned from: {error}.")
    return _Found(part, manifest, data, tuple(faults))


@contextmanager
def _collect(faults: list[str]) -> Iterator[None]:
    try:
        yield
    except ReleaseError as error:
        faults.append(str(error))
