"""A policy for one site: calibration, threshold, band and gate, fitted to the site's labelled films.

The limits differ from those of a training (`training.policy`). A training's policy must hold on sources that nobody has
seen, so each of its limits is met on the worst of many sets. A site's films are those that the policy will judge, and
there are a few hundred of them. "One-sided bound of sensitivity at least .96" would then allow no missed patient at
all, and call a third of the normals ill. So rates of films are the limits here. A bound by patient tightens the
threshold where patients are few.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from pneumoserve.binomial import upper_limit
from pneumoserve.decision import Band, Policy
from pneumoserve.monitoring.intervals import count_effective
from pneumoserve.release.schema import Calibration
from training.dataset import DatasetError
from training.fit import Bools, Floats, calibrate, fit_platt, sigmoid
from training.policy import LEAST_SENSITIVITY, ceil_millionth, floor_millionth
from training.scores import Scores

MISSED: Final = 0.02
MISSED_CONFIDENTLY: Final = 0.015
ALARMED_CONFIDENTLY: Final = 0.035
# Where films are easy to tell apart, the two limits above would leave no band. So much reading it may always cost.
ALWAYS_REFERRED: Final = 0.10
FILMS_REFUSED: Final = 0.01
MISSED_PATIENTS_BOUND: Final = 0.06
# As many patients as show a sensitivity of .96, one-sided at 95 %, if not one of them is missed.
LEAST_SICK: Final = math.ceil(math.log(0.05) / math.log(LEAST_SENSITIVITY))
# With fewer the share of confident false alarms lies between no film and one.
LEAST_WELL: Final = math.ceil(1 / ALARMED_CONFIDENTLY)
_STEPS: Final = 20


@dataclass(frozen=True)
class SitePolicy:
    """The detector's calibration and the policy that goes with it. The typer's stay as they are."""

    calibration: Calibration
    policy: Policy


def fit_site_policy(scores: Scores, typer: Calibration, before: Policy) -> SitePolicy:
    """The policy of a site, fitted to the raw logits of its labelled films; what it leaves alone is that of `before`.

    Left alone are the type, its threshold and band, and the population: a hundred patients cannot show how often a
    stated type is wrong. The gate is only ever lowered: the films say what a chest film looks like here, and nothing of
    what is none.
    """
    detector = fit_platt(scores.detector, scores.sick, balanced=True, counts=scores.weights)
    fitted = calibrate(scores, detector, typer)
    logits, weights, ill = fitted.detector.astype(np.float64), fitted.weights, fitted.sick
    sick, well = (logits[ill], weights[ill]), (-logits[~ill], weights[~ill])
    patients = len(set(fitted.patients[ill]))
    share = allowed_share(count_patients(fitted, ill))
    threshold = quantile(*sick, share)
    low = min(quantile(*sick, MISSED_CONFIDENTLY), -quantile(*well, ALWAYS_REFERRED), threshold)
    high = max(-quantile(*well, ALARMED_CONFIDENTLY), quantile(*sick, ALWAYS_REFERRED), threshold)
    gate = before.chest_threshold
    if gate is not None:
        gate = min(gate, _floor(quantile(fitted.chest.astype(np.float64), weights, FILMS_REFUSED)))
    why = (
        f"Fitted to {len(fitted.items)} labelled films of one site, {ill.sum()} of them pneumonias of {patients} "
        f"patients{_say_weighted(fitted)}. At most {share:.1%} of pneumonias lie below the threshold ({MISSED:.0%} at "
        "most, and so few that the one-sided 95 % upper bound by patient is at most "
        f"{MISSED_PATIENTS_BOUND:.0%}). At most "
        f"{MISSED_CONFIDENTLY:.1%} of pneumonias are confidently normal, and {ALARMED_CONFIDENTLY:.1%} of normals "
        f"confidently pneumonia. The band begins no higher than where {ALWAYS_REFERRED:.0%} of normals lie above it, "
        f"and ends no lower than where {ALWAYS_REFERRED:.0%} of pneumonias lie below it. The gate takes at most "
        f"{FILMS_REFUSED:.0%} of chest films for none. These are limits on the films it was fitted to; the figures of "
        "other films are the cross-fitted ones. The type's band is that of the release before, and so is what it rests "
        "on. Probabilities assume that half of the patients have pneumonia: read them with the prevalence where they "
        "are used."
    )
    policy = before.model_copy(
        update={
            "detector_threshold": _floor(threshold),
            "detector_band": Band(low=_floor(low), high=_ceil(high)),
            "chest_threshold": gate,
            "assumed_prevalence": 0.5,
            "why": why,
        }
    )
    return SitePolicy(detector, policy)


def check_enough(scores: Scores) -> None:
    """Make sure that there are enough patients to fit a policy to.

    Raises:
        DatasetError: there are not; it says how many are missing.
    """
    sick, well = (count_patients(scores, chosen) for chosen in (scores.sick, ~scores.sick))
    missing = [
        f"{least - found} more patients {kind} ({found} of the {least} that it takes)"
        for found, least, kind in ((sick, LEAST_SICK, "with pneumonia"), (well, LEAST_WELL, "without"))
        if found < least
    ]
    if missing:
        counted = " By their weights, patients count for fewer than there are." if is_weighted(scores) else ""
        raise DatasetError(f"A policy cannot be fitted to so few films: add films of {' and '.join(missing)}.{counted}")


def is_weighted(scores: Scores) -> bool:
    """Whether films stand for several each."""
    return bool((scores.weights != 1).any())


def count_patients(scores: Scores, chosen: Bools) -> int:
    """How many patients some films are of; where films have weights, how many that count alike say as much (Kish)."""
    _, owner = np.unique(scores.patients[chosen], return_inverse=True)
    weights = np.bincount(owner, scores.weights[chosen])
    return count_effective(weights.tolist()) if is_weighted(scores) else len(weights)


def _say_weighted(scores: Scores) -> str:
    if not is_weighted(scores):
        return ""
    return (
        " (labels of the archive: each film counts by one over its probability of being read, so that the pneumonias "
        f"say as much as those of {count_patients(scores, scores.sick)} patients that count alike)"
    )


def allowed_share(patients: int) -> float:
    """The largest share of pneumonias below the threshold, at most `MISSED`, that the bound by patient allows.

    The bound is Clopper and Pearson's, at that share of so many patients (see `binomial.upper_limit`).
    """
    shares = (MISSED * step / _STEPS for step in range(_STEPS, 0, -1))
    return next(
        (share for share in shares if upper_limit(share * patients, patients, 0.05) <= MISSED_PATIENTS_BOUND), 0.0
    )


def quantile(logits: Floats, weights: Floats, share: float) -> float:
    """The logit below which a share of further films is expected, interpolated; both arrays of shape [N].

    Where all weights are equal that is type 6 of Hyndman & Fan (1996), k / (n + 1) for the k-th of n; else one more
    film of the mean weight that the weighted films have. On the scale of probabilities, points near 0 or 1 would be
    drawn towards the middle.
    """
    order = np.argsort(logits, kind="stable")
    counted = np.cumsum(weights[order])
    one_more = float((weights**2).sum() / weights.sum())
    return float(np.interp(share, counted / (counted[-1] + one_more), logits[order]))


def _floor(logit: float) -> float:
    return floor_millionth(float(sigmoid(np.array(logit))))


def _ceil(logit: float) -> float:
    return ceil_millionth(float(sigmoid(np.array(logit))))
