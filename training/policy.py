"""Thresholds and referral bands, chosen on stated rates that must hold on every evaluation set.

The rates are of two kinds of error, each among those whom it would hurt. An error rate among confident answers would
be met by always saying normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pneumoserve.binomial import lower_limit
from pneumoserve.decision import Band, Policy, Population
from training.fit import Bools, Floats

LEAST_SENSITIVITY: Final = 0.96
MISSED_CONFIDENTLY: Final = 0.005
# Of many sets of a few hundred pneumonias each, the worst has some more by chance alone.
MISSED_CONFIDENTLY_ELSEWHERE: Final = 0.01
ALARMED_CONFIDENTLY: Final = 0.03
FILMS_REFUSED: Final = 0.01
_POPULATION: Final = Population(min_age_years=1, below_age_years=6, unknown_dicom_age="refer")


@dataclass(frozen=True)
class EvaluationSet:
    """Calibrated probabilities of films that never trained, each array of shape [N], and what the films are.

    `name` is the set in words: the calibration fold, one of its shifts, the source that another run left out.
    """

    name: str
    pneumonia: Floats
    chest: Floats
    sick: Bools
    patients: npt.NDArray[np.str_]


def choose_policy(fold: EvaluationSet, others: Sequence[EvaluationSet]) -> Policy:
    """The policy that keeps every rate on the calibration fold and on every other evaluation set.

    It states no type yet: see `training.type_band`.
    """
    sets = [fold, *others]
    ill = [each for each in sets if each.sick.any()]
    well = [each for each in sets if not each.sick.all()]
    thresholds = {
        each.name: highest_threshold(_lowest_by_patient(fold) if each is fold else _sick(each)) for each in ill
    }
    lows = {
        each.name: _quantile(_sick(each), MISSED_CONFIDENTLY if each is fold else MISSED_CONFIDENTLY_ELSEWHERE)
        for each in ill
    }
    highs = {each.name: -_quantile(-each.pneumonia[~each.sick], ALARMED_CONFIDENTLY) for each in well}
    gates = {each.name: _quantile(each.chest, FILMS_REFUSED) for each in sets}
    threshold = min(thresholds.values())
    low = min([*lows.values(), threshold])
    high = max([*highs.values(), threshold])
    return Policy(
        detector_threshold=floor_millionth(threshold),
        detector_band=Band(low=floor_millionth(low), high=ceil_millionth(high)),
        typer_threshold=0.5,
        typer_band=Band(low=0, high=1),
        chest_threshold=floor_millionth(min(gates.values())),
        population=_POPULATION,
        assumed_prevalence=0.5,
        why=(
            f"On each of {len(sets)} sets of films that never trained (the calibration fold, its shifts, what the "
            "runs beside this one held out): from the threshold on are called so many pneumonias that the one-sided "
            f"95 % lower bound of sensitivity is at least {LEAST_SENSITIVITY}, on the fold by patient (decided by: "
            f"{_decider(thresholds, threshold)}); at most {MISSED_CONFIDENTLY:.1%} of pneumonias, "
            f"{MISSED_CONFIDENTLY_ELSEWHERE:.0%} on other sets, are confidently normal ({_decider(lows, low)}) and "
            f"{ALARMED_CONFIDENTLY:.0%} of normals confidently pneumonia "
            f"({_decider(highs, high)}); at most {FILMS_REFUSED:.0%} of chest films are taken for none "
            f"({_decider(gates, min(gates.values()))}). Probabilities assume that half of the patients have pneumonia: "
            "read them with the prevalence where they are used."
        ),
    )


def highest_threshold(lowest: Floats) -> float:
    """The highest threshold whose sensitivity has a one-sided 95 % lower bound of 0.96, given scores of what is sick.

    Where they are too few for the bound, the lowest of them.
    """
    ordered, count = np.sort(lowest), len(lowest)
    allowed = [m for m in range(count) if lower_limit(count - m, count, 0.05) >= LEAST_SENSITIVITY]
    return float(ordered[max(allowed, default=0)])


def _sick(group: EvaluationSet) -> Floats:
    return group.pneumonia[group.sick]


def _lowest_by_patient(group: EvaluationSet) -> Floats:
    """One score a patient, who is missed where any film is: several films of one patient are one observation.

    The other group are the same patients again, or too few for a bound by patient; there a film is one.
    """
    lowest: dict[str, float] = {}
    for patient, value in zip(group.patients[group.sick], group.pneumonia[group.sick], strict=True):
        lowest[patient] = min(value, lowest.get(patient, 1.0))
    return np.array(list(lowest.values()))


def _quantile(values: Floats, share: float) -> float:
    """The value below which at most `share` of the values lie."""
    return float(np.sort(values)[int(len(values) * share)])


def _decider(values: dict[str, float], chosen: float) -> str:
    return next((name for name, value in values.items() if value == chosen), "the threshold")


def floor_millionth(value: float) -> float:
    """A probability with six places, rounded down."""
    return float(np.floor(value * 1e6) / 1e6)


def ceil_millionth(value: float) -> float:
    """A probability with six places, rounded up, 1 at most."""
    return min(1.0, float(np.ceil(value * 1e6) / 1e6))
