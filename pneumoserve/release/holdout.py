"""What becomes of the films of a dataset in a training: which are learned from, and which are held out."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pneumoserve.canonical import Sha256
from pneumoserve.release.data import DataError, Item, LabelledFilm, TrainingData, pseudonym_of
from pneumoserve.release.schema import TrainingFacts

DEFAULT: Final = "validation"
WAYS: Final = (
    "validation (that split), none, fold-1 to fold-3 (a third of the patients outside the calibration fold), earliest "
    "(the lowest numbers of each kind of file name), prefix:TEXT (names that begin so)"
)
_FOLDS: Final = 3
_EARLIEST_SHARE: Final = 0.12


@dataclass(frozen=True)
class Parts:
    """The films that are learned from, those that calibrate and those held out; the latter two never train.

    The other films of a held out film's patient are in none of the parts.
    """

    learned: list[Item]
    calibration: list[Item]
    held_out: list[Item]

    @property
    def measured_on(self) -> list[Item]:
        """What a run is measured on: the held out films, and of a class that they lack the calibration fold's."""
        there = {item.cls for item in self.held_out}
        return self.held_out and self.held_out + [item for item in self.calibration if item.cls not in there]


def partition(items: Sequence[Item], hold_out: str) -> Parts:
    """The parts of a dataset for a training that holds films out in one of the `WAYS`.

    Of the calibration fold only `prefix:` takes films, since a whole source is to be unseen.

    Raises:
        DataError: there is no such way, or it holds out nothing.
    """
    held = _choose_held_out(items, hold_out)
    unseen, patients = {item.sha256 for item in held}, {item.patient for item in held}
    return Parts(
        learned=[item for item in items if item.split != "calibration" and item.patient not in patients],
        calibration=[item for item in items if item.split == "calibration" and item.sha256 not in unseen],
        held_out=held,
    )


def count_learned(data: TrainingData, hold_out: str, films: Mapping[Sha256, Sha256]) -> int:
    """How many films, digests of pixels by those of files, a run that held films out so has learned from."""
    learned = {item.sha256 for item in partition(data.items, hold_out).learned}
    pixels = {data.pixels[file] for file in learned}
    return sum(file in learned or decoded in pixels for file, decoded in films.items())


def count_same_patients(data: TrainingData, hold_out: str, items: Iterable[LabelledFilm]) -> int:
    """How many patients of some films have a number that a patient has of whom such a run has learned.

    They may be the same people.
    """
    theirs = {pseudonym_of(item.patient) for item in partition(data.items, hold_out).learned}
    return len({item.patient for item in items if pseudonym_of(item.patient) in theirs})


def hold_out_of(training: TrainingFacts) -> str:
    """In which of the `WAYS` a run held films out."""
    return str(training.parameters.get("hold_out", DEFAULT))


def _choose_held_out(items: Sequence[Item], hold_out: str) -> list[Item]:
    kind, _, text = hold_out.partition(":")
    open_to_training = [item for item in items if item.split != "calibration"]
    if hold_out == "none":
        return []
    if hold_out == "validation":
        found = [item for item in items if item.split == "validation"]
    elif re.fullmatch(rf"fold-[1-{_FOLDS}]", hold_out):
        found = [item for item in open_to_training if _fold_of(item.patient) == int(hold_out[-1])]
    elif hold_out == "earliest":
        found = _earliest(open_to_training)
    elif kind == "prefix" and text:
        found = [item for item in items if item.has_name and item.name.startswith(text)]
    else:
        raise DataError(f"{hold_out} is no way to hold films out; give one of: {WAYS}.")
    if not found:
        raise DataError(
            f"Holding out {hold_out} holds out no film of this dataset; give another --hold-out. "
            "A dataset that was ingested has no file names to go by."
        )
    return found


def _fold_of(patient: str) -> int:
    return int.from_bytes(hashlib.sha256(f"fold {patient}".encode()).digest()[:8], "big") % _FOLDS + 1


def _earliest(items: list[Item]) -> list[Item]:
    """Files are numbered in the order in which the source made them, each kind of name by itself."""
    numbered: dict[str, list[tuple[int, Item]]] = defaultdict(list)
    for item in items:
        if item.has_name and (match := re.match(r"((?:NORMAL2-)?\D+)(\d+)", item.name)):
            numbered[match[1]].append((int(match[2]), item))
    found = []
    for rows in numbered.values():
        numbers = sorted({number for number, _ in rows})
        last = numbers[int(len(numbers) * _EARLIEST_SHARE)]
        found += [item for number, item in rows if number < last]
    return found
