"""The films a run learned from, by digest: a part of its run and of its release.

`data/manifest.json` is the dataset's manifest in canonical form, so its SHA-256 is the `data.digest` of run.json and
release.json. `data/pixels.json` has the digest of each film's prepared pixels, by which a film is known again whose
file was written anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, RootModel, StringConstraints, ValidationError

from pneumoserve.canonical import Sha256, canonical_json, digest_of
from pneumoserve.errors import PneumoserveError
from pneumoserve.release.schema import ClassName, SiteClass

Split = Literal["train", "validation", "calibration"]
MANIFEST_FILE: Final = "data/manifest.json"
PIXELS_FILE: Final = "data/pixels.json"
# Of a recalibrated one: the site's labelled films, as a manifest, or as labels of the archive.
LABELS_FILE: Final = "data/labels.json"


class DataError(PneumoserveError, ValueError):
    """A run's or release's list of films that cannot be used; the text says why."""


@dataclass(frozen=True)
class Item:
    """One film of the dataset; `sha256` is its file's digest, by which it is found and counted.

    `name` is the source's, or the beginning of the digest where that could name a person.
    """

    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    cls: ClassName
    patient: str
    split: Split
    name: str

    @property
    def has_name(self) -> bool:
        """Whether `name` is the source's, which says of what kind a film is and in which order films were made."""
        return self.name != nameless(self.sha256)

    @property
    def weight(self) -> float:
        """For how many films it stands: all of a dataset count alike."""
        return 1.0


class LabelledFilm(Protocol):
    """A film and what it shows, wherever its label comes from; `weight` is for how many films it stands."""

    @property
    def sha256(self) -> str: ...
    @property
    def cls(self) -> SiteClass: ...
    @property
    def patient(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def weight(self) -> float: ...


@dataclass(frozen=True)
class ArchiveFilm:
    """A film of the archive, with the label that blind readers gave its study.

    `sha256` is the digest of its stored bytes, `patient` a pseudonym. `release` answered it with `answer`.
    `probability` is that of its study being chosen to be read, `weight` how many studies of such an answer it stands
    for: one over the probability, scaled for those that were not read.
    """

    prediction_id: str
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    cls: SiteClass
    patient: str
    release: str
    answer: Literal["referred", "normal", "pneumonia"]
    probability: float
    weight: float

    @property
    def name(self) -> str:
        """What stands for its name."""
        return nameless(self.sha256)


@dataclass(frozen=True)
class ArchiveLabels:
    """Films of the archive in the order of their predictions; `largest` weight that a study of theirs may have."""

    items: tuple[ArchiveFilm, ...]
    largest: float

    @property
    def document(self) -> bytes:
        """All of it as canonical JSON, whose SHA-256 names these labels."""
        items = [asdict(item) for item in self.items]
        return canonical_json({"schema": "pneumoserve.labels/1", "items": items, "largest": self.largest})


class _Manifest(BaseModel):
    schema_: Literal["pneumoserve.dataset/1"] = Field(alias="schema")
    items: tuple[Item, ...]

    model_config = ConfigDict(extra="forbid")


class _Labels(BaseModel):
    schema_: Literal["pneumoserve.labels/1"] = Field(alias="schema")
    items: tuple[ArchiveFilm, ...]
    largest: float

    model_config = ConfigDict(extra="forbid")


class _SiteLabels(RootModel[Annotated[_Manifest | _Labels, Field(discriminator="schema_")]]):
    """Either form of `data/labels.json`."""


class _Pixels(BaseModel):
    schema_: Literal["pneumoserve.pixels/1"] = Field(alias="schema")
    pixels: dict[Sha256, Sha256] = Field(description="digest of a film's file: digest of its prepared pixels")

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class TrainingData:
    """The films a run learned from, and the digest of the pixels of each, by the digest of its file."""

    items: tuple[Item, ...]
    pixels: Mapping[Sha256, Sha256]

    def with_pixels(self, pixels_sha256: Sha256) -> Item | None:
        """The film that has these prepared pixels, whatever its file; None where none has."""
        return next((item for item in self.items if self.pixels[item.sha256] == pixels_sha256), None)


def nameless(digest: Sha256) -> str:
    """What stands for a film's name where nobody may know that."""
    return digest[:12]


def pseudonym_of(patient: str) -> str:
    """What a patient of the public source is called in the store.

    Whoever knows the numbers can count through them, so it keeps apart and hides nobody; names never get here. A
    pseudonym stays as it is.
    """
    if patient.startswith(("patient-", "film-")):
        return patient
    return f"patient-{digest_of(f'pneumoserve patient {patient}'.encode())[:16]}"


def film_key(prefix: str, digest: Sha256) -> str:
    """Where an ingested dataset's film stands below the prefix, by its digest."""
    return f"{prefix}/images/sha256/{digest[:2]}/{digest}".lstrip("/")


def manifest_of(items: Iterable[Item]) -> bytes:
    """The manifest of a dataset as canonical JSON."""
    return canonical_json({"schema": "pneumoserve.dataset/1", "items": [asdict(item) for item in items]})


def items_of(manifest: bytes) -> tuple[Item, ...]:
    """The films a manifest names.

    Raises:
        DataError: it is no manifest.
    """
    try:
        return _Manifest.model_validate_json(manifest).items
    except ValidationError as error:
        # A class or split of another name must not pass: whatever is not normal would be learned as pneumonia.
        raise DataError(_fault_in(error)) from error


def _fault_in(error: ValidationError) -> str:
    place = ".".join(str(part) for part in error.errors()[0]["loc"]) or "its beginning"
    return f"wrong at {place}"


def write_data(folder: Path, items: Iterable[Item], pixels: Mapping[Sha256, Sha256]) -> None:
    """Write both files below the folder of a run."""
    (folder / "data").mkdir(exist_ok=True)
    (folder / MANIFEST_FILE).write_bytes(manifest_of(items))
    (folder / PIXELS_FILE).write_bytes(canonical_json({"schema": "pneumoserve.pixels/1", "pixels": dict(pixels)}))


def read_data(folder: Path, digest: Sha256) -> TrainingData:
    """The films of a run or release whose `data.digest` is given.

    Raises:
        DataError: the files are missing, or are not those of that digest.
    """
    try:
        manifest = (folder / MANIFEST_FILE).read_bytes()
        pixels = (folder / PIXELS_FILE).read_bytes()
    except OSError:
        raise DataError(f"it holds no {MANIFEST_FILE} with {PIXELS_FILE}, the films it learned from") from None
    if digest_of(manifest) != digest:
        raise DataError(f"{MANIFEST_FILE} is not the dataset that it states as {digest[:12]}")
    data = TrainingData(items_of(manifest), _pixels_of(pixels))
    if {item.sha256 for item in data.items} != data.pixels.keys():
        raise DataError(f"{PIXELS_FILE} does not name the films of {MANIFEST_FILE}")
    return data


def read_labels(folder: Path, digest: Sha256) -> tuple[LabelledFilm, ...]:
    """The labelled films that the policy of a run or release was fitted to; `digest` is the file's.

    Raises:
        DataError: the file is missing, or is not the one of that digest.
    """
    try:
        labels = (folder / LABELS_FILE).read_bytes()
    except OSError:
        raise DataError(f"it holds no {LABELS_FILE}, the films that its policy was fitted to") from None
    if digest_of(labels) != digest:
        raise DataError(f"{LABELS_FILE} does not hold the labels that it states as {digest[:12]}")
    try:
        return _SiteLabels.model_validate_json(labels).root.items
    except ValidationError as error:
        raise DataError(_fault_in(error)) from error


def _pixels_of(document: bytes) -> dict[Sha256, Sha256]:
    try:
        return _Pixels.model_validate_json(document).pixels
    except ValidationError:
        raise DataError(f"{PIXELS_FILE} is not of a form this version reads") from None
