"""The dataset: films by digest, each with class, patient and split, in a manifest whose digest names it.

A patient is never in two splits. Kermany's files name patients by number, separately for bacterial and viral
pneumonia; half of the numbers occur in both. Nobody knows whether they are the same child, so the number alone is
the patient, which is the cautious reading.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pneumoserve.release.data import DataError, Item, Split, items_of, manifest_of
from pneumoserve.release.schema import ClassName, Count, DataFacts, digest_of

SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "calibration")
CLASSES: Final[tuple[ClassName, ...]] = ("normal", "bacterial", "viral")
HELD_OUT_FILE: Final = Path(__file__).with_name("held_out_patients.txt")
GROUPING: Final = "patient number alone (person<N> of either type is one patient; normals by the number after IM-)"

_FOLDERS: Final[dict[str, ClassName]] = {
    "normal": "normal",
    "bacteria": "bacterial",
    "bacterial": "bacterial",
    "virus": "viral",
    "viral": "viral",
}
_SUFFIXES: Final = {".jpeg", ".jpg", ".png", ".dcm"}
_CALIBRATION_SHARE, _VALIDATION_SHARE = 0.15, 0.15


class DatasetError(ValueError):
    """A dataset that cannot be used; its text says what to do."""


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


def class_and_patient(path: Path) -> tuple[ClassName, str] | None:
    """What a file's name and folders say of it, None where they name no class.

    A file whose name follows no known pattern is a patient of its own.
    """
    if match := re.match(r"person(\d+)_(bacteria|virus)_", path.name):
        return _FOLDERS[match[2]], f"person-{int(match[1])}"
    if match := re.match(r"(?:NORMAL2-)?IM-(\d+)-", path.name):
        return "normal", f"normal-{int(match[1])}"
    for folder in reversed(path.parts[:-1]):
        if cls := _FOLDERS.get(folder.lower()):
            return cls, f"file-{path.stem}"
    return None


def split_of(patient: str) -> Split:
    """A patient's split, by a hash of the patient alone: it stays when films are added."""
    place = int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8], "big") / 2**64
    if place < _CALIBRATION_SHARE:
        return "calibration"
    return "validation" if place < _CALIBRATION_SHARE + _VALIDATION_SHARE else "train"


def films_in(directory: Path) -> list[tuple[Path, ClassName, str]]:
    """Every film file below a folder with its class and patient, in the order of names.

    Raises:
        DatasetError: where there is none.
    """
    found = []
    for path in sorted(directory.rglob("*")):
        if path.suffix.lower() in _SUFFIXES and (told := class_and_patient(path.relative_to(directory))):
            found.append((path, *told))
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


def held_out(path: Path | None) -> frozenset[str]:
    """The patients a file of one patient a line names; none for None."""
    if path is None:
        return frozenset()
    lines = (line.strip() for line in path.read_text().splitlines())
    return frozenset(line for line in lines if line and not line.startswith("#"))
