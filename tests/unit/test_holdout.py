"""What becomes of a dataset's films in a training."""

from __future__ import annotations

import pytest

from pneumoserve.release.data import DataError, Item, Split, TrainingData
from pneumoserve.release.holdout import count_learned, partition


def item(name: str, patient: str, split: Split = "train") -> Item:
    return Item(name, "normal", patient, split, name)


ITEMS = [
    *(item(f"IM-{number}-0001.jpeg", f"normal-{number}") for number in range(100, 200)),
    *(item(f"NORMAL2-IM-{number}-0001.jpeg", f"normal-{number}") for number in range(150, 250)),
    *(item(f"person{number}_virus_1.jpeg", f"person-{number}", "validation") for number in range(1, 101)),
    *(item(f"person{number}_virus_1.jpeg", f"person-{number}", "calibration") for number in range(101, 150)),
]


@pytest.mark.parametrize("hold_out", ["none", "validation", "fold-1", "fold-2", "fold-3", "earliest", "prefix:IM-"])
def test_no_patient_is_on_both_sides(hold_out: str) -> None:
    parts = partition(ITEMS, hold_out)
    unseen = {item.patient for item in (*parts.held_out, *parts.calibration)}
    assert not unseen & {item.patient for item in parts.learned}
    assert parts.learned


def test_folds_hold_out_every_patient_once() -> None:
    held = [item for fold in (1, 2, 3) for item in partition(ITEMS, f"fold-{fold}").held_out]
    assert sorted(held, key=lambda item: item.name) == sorted(
        (item for item in ITEMS if item.split != "calibration"), key=lambda item: item.name
    )


def test_without_a_hold_out_only_the_calibration_fold_does_not_train() -> None:
    parts = partition(ITEMS, "none")
    assert (len(parts.learned), len(parts.calibration), parts.held_out) == (300, 49, [])
    assert len(partition(ITEMS, "validation").learned) == 200


def test_the_earliest_are_those_of_the_lowest_numbers_of_each_kind_of_name() -> None:
    held = {item.name.partition("_")[0].partition("-0001")[0] for item in partition(ITEMS, "earliest").held_out}
    assert {"IM-100", "IM-111", "NORMAL2-IM-150", "NORMAL2-IM-161", "person1", "person12"} <= held
    assert not {"IM-112", "NORMAL2-IM-162", "person13", "person101"} & held


def test_a_source_is_held_out_with_all_that_may_be_its_patients() -> None:
    parts = partition(ITEMS, "prefix:IM-")
    assert {item.name[:3] for item in parts.held_out} == {"IM-"}
    assert min(int(item.patient[7:]) for item in parts.learned if item.patient.startswith("normal-")) == 200


@pytest.mark.parametrize(
    ("hold_out", "sentence"),
    [("fold-4", "no way to hold films out"), ("prefix:", "no way"), ("prefix:X", "holds out no film")],
)
def test_what_holds_nothing_out_is_refused(hold_out: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        partition(ITEMS, hold_out)


def test_films_that_were_learned_from_are_known_by_file_and_by_pixels() -> None:
    splits: tuple[Split, ...] = ("train", "validation", "calibration")
    items = [item(f"n{number}", f"p{number}", split) for number, split in enumerate(splits)]
    data = TrainingData(tuple(items), {item.sha256: f"pixels of {item.sha256}" for item in items})
    learned, validated, calibrated = (item.sha256 for item in items)
    films = {learned: "x", "other": f"pixels of {learned}", validated: "y", calibrated: "z", "new": "new"}
    assert count_learned(data, "none", films) == 3
    assert count_learned(data, "validation", films) == 2
