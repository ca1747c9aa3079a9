"""Which types are stated: the band outside of which a stated type is wrong rarely enough.

The typer tells bacterial from viral patterns far worse than the detector finds pneumonia. So a type is stated only from
a probability on at which stated types were seldom wrong on patients that never trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from pneumoserve.binomial import lower_limit, upper_limit
from pneumoserve.decision import Band, Policy, TypeEvidence
from training.fit import Bools, is_typed, sigmoid
from training.scores import Scores

# Near the least that some 200 patients can show: of the reference run no band brings the bound below .135, and the
# bounds below .145 leave out five of six types. See the table in its report.
WRONG_TYPES: Final = 0.15
_LEAST_PROBABILITIES: Final = tuple(round(0.5 + step / 100, 2) for step in range(50))


@dataclass(frozen=True)
class StatedTypes:
    """What is stated where a type needs a probability of `least`, of the pneumonias whose type is asked for.

    `stated` and `wrong` [N] say it of each of those, `bacterial` which type; `patients` are theirs.
    """

    least: float
    stated: Bools
    wrong: Bools
    bacterial: Bools
    rate: float
    patients: int

    @property
    def share(self) -> float:
        """The share of types that are stated."""
        return float(self.stated.mean())

    @property
    def bound(self) -> float:
        """One-sided 95 % upper bound of the rate."""
        return upper_limit(self.rate * self.patients, self.patients, 0.05)

    @property
    def interval(self) -> tuple[float, float]:
        """Two-sided 95 % interval of the rate."""
        wrong = self.rate * self.patients
        return lower_limit(wrong, self.patients, 0.025), upper_limit(wrong, self.patients, 0.025)

    @property
    def band(self) -> Band:
        """The probabilities of a bacterial type at which none is stated."""
        return Band(low=round(1 - self.least, 2), high=self.least)

    def count(self, kind: Bools) -> str:
        """How many stated types of a kind [N] are wrong, of how many."""
        return f"{(self.stated & self.wrong & kind).sum()} of {(self.stated & kind).sum()}"


def choose_type_band(policy: Policy, scores: Scores) -> Policy:
    """The policy with the widest statement of types that is wrong rarely enough, by calibrated logits.

    Where there are too few patients to show that, no type is stated.
    """
    allowed = [each for each in trade_off(policy, scores) if each.bound <= WRONG_TYPES]
    asked = int(is_typed(scores, policy).sum())
    if not allowed:
        evidence = TypeEvidence(target=WRONG_TYPES, rate=None, bound=None, asked=asked, images=0, patients=0)
        return policy.model_copy(update={"typer_band": Band(low=0, high=1), "type_evidence": evidence})
    chosen = allowed[0]
    evidence = TypeEvidence(
        target=WRONG_TYPES,
        rate=round(chosen.rate, 4),
        bound=round(chosen.bound, 4),
        asked=asked,
        images=int(chosen.stated.sum()),
        patients=chosen.patients,
    )
    return policy.model_copy(update={"typer_band": chosen.band, "type_evidence": evidence})


def trade_off(policy: Policy, scores: Scores) -> Iterator[StatedTypes]:
    """What is stated from each probability on, from 1/2 upwards, as long as anything is."""
    asked = is_typed(scores, policy)
    probability, patients = sigmoid(scores.typer[asked]), scores.patients[asked]
    bacterial = probability >= policy.typer_threshold
    wrong = bacterial != scores.bacterial[asked]
    for least in _LEAST_PROBABILITIES:
        stated = np.where(bacterial, probability >= least, 1 - probability >= least)
        if not stated.any():
            return
        rate, count = rate_by_patient(wrong[stated], patients[stated])
        yield StatedTypes(least, stated, wrong, bacterial, rate, count)


def rate_by_patient(wrong: Bools, patients: np.ndarray) -> tuple[float, int]:
    """The mean over patients of the share of their images that is wrong, and how many patients there are."""
    _, owner = np.unique(patients, return_inverse=True)
    shares = np.bincount(owner, weights=wrong) / np.bincount(owner)
    return float(shares.mean()), len(shares)
