"""The dataset: films by digest, each with class, patient and split, in a manifest whose digest names it.

A patient is never in two splits. Kermany's files name patients by number, separately for bacterial and viral
pneumonia; half of the numbers occur in both. Nobody knows whether they are the same child, so the number alone is
the patient, which is the cautious reading.

A film of any other name is a patient of its own, called by its digest: such a name may be a person's.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pneumoserve.canonical import Sha256, digest_of
from pneumoserve.errors import PneumoserveError
from pneumoserve.release.data import DataError, Item, Split, items_of, manifest_of, nameless, pseudonym_of
from pneumoserve.release.schema import ClassName, Count, DataFacts

SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "calibration")
CLASSES: Final[tuple[ClassName, ...]] = ("normal", "bacterial", "viral")
EXCLUDED_PATIENTS_FILE: Final = Path(__file__).with_name("excluded_patients.txt")
GROUPING: Final = "patient number alone (person<N> of either type is one patient; normals by the number after IM-)"

_FOLDERS: Final[dict[str, ClassName]] = {
    "normal": "normal",
    "bacteria": "bacterial",
    "bacterial": "bacterial",
    "virus": "viral",
    "viral": "viral",
}
# A name of the public source holds numbers of that source and nothing else.
_SOURCE_NAME: Final = re.compile(r"(person\d+_(bacteria|virus)_\d+|(NORMAL2-)?IM-\d+(-\d+)+)\.\w+")
_SUFFIXES: Final = {".jpeg", ".jpg", ".png", ".dcm"}
_CALIBRATION_SHARE, _VALIDATION_SHARE = 0.15, 0.15


class DatasetError(PneumoserveError, ValueError):
    """A dataset that cannot be used; its text says what to do."""

    exit_code = 2


@dataclass(frozen=True)
class Dataset:
    """Films in the order of their digests. `digest` is the SHA-256 of the canonical manifest."""

    items: tuple[Item, ...]

    @property
    def manifest(self) -> bytes:
        """The manifest as canonical JSON."""
        return manifest_of(self.items)

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    def of(self, *splits: Split) -> list[Item]:
        """The films of some splits."""
        return [item for item in self.items if item.split in splits]

    def without(self, patients: frozenset[str]) -> Dataset:
        """The dataset less some patients."""
        return Dataset(tuple(item for item in self.items if item.patient not in patients))

    def facts(self, source: str, excluded: int) -> DataFacts:
        """What a run and a release say of their data."""
        return DataFacts(
            digest=self.digest,
            source=source,
            grouping=GROUPING,
            counts={split: {cls: self._count(split, cls) for cls in CLASSES} for split in SPLITS},
            excluded_patients=excluded,
        )

    def _count(self, split: Split, cls: ClassName) -> Count:
        items = [item for item in self.items if item.split == split and item.cls == cls]
        return Count(images=len(items), patients=len({item.patient for item in items}))


@dataclass(frozen=True)
class Origin:
    """What a film's place in a folder says of it; `patient` and `name` are None where they are not the source's."""

    cls: ClassName
    patient: str | None
    name: str | None


def origin_of(path: Path) -> Origin | None:
    """What a file's name and folders say of it, None where they name no class."""
    name = path.name if _SOURCE_NAME.fullmatch(path.name) else None
    if match := re.match(r"person(\d+)_(bacteria|virus)_", path.name):
        return Origin(_FOLDERS[match[2]], f"person-{int(match[1])}", name)
    if match := re.match(r"(?:NORMAL2-)?IM-(\d+)-", path.name):
        return Origin("normal", f"normal-{int(match[1])}", name)
    for folder in reversed(path.parts[:-1]):
        if cls := _FOLDERS.get(folder.lower()):
            return Origin(cls, None, None)
    return None


def item_of(origin: Origin, digest: Sha256) -> Item:
    """A film of a folder of one's own: numbers and names of the public source stay, what else it is called does not."""
    patient = origin.patient or _film_patient(digest)
    return Item(digest, origin.cls, patient, split_of(patient), origin.name or nameless(digest))


def anonymous_item_of(origin: Origin, digest: Sha256) -> Item:
    """A film as the store may know it: its name and its patient's are digests, and its split is as in the folder."""
    patient = origin.patient or _film_patient(digest)
    stored = patient if origin.patient is None else pseudonym_of(patient)
    return Item(digest, origin.cls, stored, split_of(patient), nameless(digest))


def _film_patient(digest: Sha256) -> str:
    return f"film-{digest[:16]}"


def split_of(patient: str) -> Split:
    """A patient's split, by a hash of the patient alone: it stays when films are added."""
    place = int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8], "big") / 2**64
    if place < _CALIBRATION_SHARE:
        return "calibration"
    return "validation" if place < _CALIBRATION_SHARE + _VALIDATION_SHARE else "train"


def films_in(directory: Path) -> list[tuple[Path, Origin]]:
    """Every film file below a folder and what its place says of it, in the order of names.

    Raises:
        DatasetError: where there is none.
    """
    found = []
    for path in sorted(directory.rglob("*")):
        if path.suffix.lower() in _SUFFIXES and (origin := origin_of(path.relative_to(directory))):
            found.append((path, origin))
    if not found:
        raise DatasetError(
            f"No films found in {directory.name}: put them into folders named normal, bacteria and virus."
        )
    return found


def dataset_of(items: Iterable[Item]) -> Dataset:
    """A checked dataset; a film given twice counts once.

    Raises:
        DatasetError: where a patient is in two splits, or one film has two classes.
    """
    by_digest: dict[str, Item] = {}
    splits: dict[str, set[str]] = defaultdict(set)
    for item in sorted(items, key=lambda item: (item.sha256, item.name)):
        first = by_digest.setdefault(item.sha256, item)
        if first.cls != item.cls:
            raise DatasetError(f"The films {first.name} and {item.name} are the same file in two classes; remove one.")
        splits[item.patient].add(item.split)
    torn = [patient for patient, seen in splits.items() if len(seen) > 1]
    if torn:
        raise DatasetError(f"{len(torn)} patients are in two splits, {torn[0]} first; give each patient one split.")
    return Dataset(tuple(by_digest.values()))


def dataset_from_manifest(document: bytes) -> Dataset:
    """The dataset a manifest describes.

    Raises:
        DatasetError: where it is no manifest, or breaks a rule of `dataset_of`.
    """
    try:
        items = items_of(document)
    except DataError as error:
        raise DatasetError(f"This is no dataset manifest ({error}); make one with `pneumoserve ingest`.") from error
    return dataset_of(items)


def excluded_patients(path: Path | None) -> frozenset[str]:
    """The patients a file of one patient a line names, and what an ingest calls them; none for None."""
    if path is None:
        return frozenset()
    lines = (line.strip() for line in path.read_text().splitlines())
    named = frozenset(line for line in lines if line and not line.startswith("#"))
    return named | {pseudonym_of(patient) for patient in named}
