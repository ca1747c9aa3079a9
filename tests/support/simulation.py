"""A service whose truth is known: patients, scores, the product's own referral, draw and estimate, and readers who err.

Scores are normal variables on the logit scale. `decide` and `stratum_of` say once what each score gets; a run then
takes patients from that table, draws by a key of its own with the probabilities that the product would choose, and
counts one study of each patient.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from statistics import NormalDist
from typing import Final

import numpy as np
from scipy.special import ndtr

from pneumoserve.decision import Band, Policy, Population, Scores, decide
from pneumoserve.imaging import Facts
from pneumoserve.monitoring import (
    Cell,
    Figure,
    Interval,
    Share,
    Tally,
    Weighted,
    answer_of,
    limit_share,
    measure,
    rank_of,
)
from pneumoserve.review import Chance, choose_probabilities, edges_of, stratum_of
from pneumoserve.review.chance import NUMBERS
from pneumoserve.review.room import SECOND_SHARE

POLICY: Final = Policy(
    detector_threshold=0.3,
    detector_band=Band(low=0.15, high=0.6),
    typer_threshold=0.5,
    typer_band=Band(low=0.5, high=0.5),
    population=Population(min_age_years=0, below_age_years=200, unknown_dicom_age="accept"),
    assumed_prevalence=0.5,
    why="a simulation",
)
_ROWS: Final = 4000
_WELL_SPREAD: Final = 1.4
_SICK_SPREAD: Final = 1.6
# How alike the scores of a patient's two studies are.
_SAME_PATIENT: Final = 0.8


@dataclass(frozen=True)
class World:
    """What is true: `sensitivity` is the product's, `each` how many studies a patient has.

    `even`: confident normals are all drawn with one probability, and every other study is read. `well` is the mean
    logit of the well.
    """

    sensitivity: float
    prevalence: float = 0.01
    studies: int = 20_000
    each: int = 1
    even: bool = False
    well: float = -3.5

    @cached_property
    def strata(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """The strata's names, and for well and sick the stratum and whether the score is above the threshold."""
        low = math.log(POLICY.detector_band.low / (1 - POLICY.detector_band.low))
        sick = NormalDist(low - _SICK_SPREAD * NormalDist().inv_cdf(1 - self.sensitivity), _SICK_SPREAD)
        edges, names = edges_of(POLICY), []
        strata, above = np.zeros((2, _ROWS), int), np.zeros((2, _ROWS), bool)
        for kind, scores in enumerate((NormalDist(self.well, _WELL_SPREAD), sick)):
            for row in range(_ROWS):
                score = 1 / (1 + math.exp(-scores.inv_cdf((row + 0.5) / _ROWS)))
                decision = decide(POLICY, Facts(), False, Scores(pneumonia=score, bacterial=0.99))
                name = "referred" if decision.referred else stratum_of(str(decision.finding), score, edges)
                if name not in names:
                    names.append(name)
                strata[kind, row], above[kind, row] = names.index(name), score >= POLICY.detector_threshold
        return names, strata, above

    @cached_property
    def truth(self) -> dict[str, float]:
        """The figures as they are."""
        names, strata, above = self.strata
        normal = np.array([answer_of(name) == "normal" for name in names])[strata].mean(axis=1)
        referred = np.array([name == "referred" for name in names])[strata].mean(axis=1)
        p, sensitivity, specificity = self.prevalence, 1 - normal[1], normal[0]
        called, silent = p * sensitivity + (1 - p) * (1 - specificity), p * (1 - sensitivity) + (1 - p) * specificity
        return {
            "product_sensitivity": sensitivity,
            "product_specificity": specificity,
            "product_ppv": p * sensitivity / called,
            "product_npv": (1 - p) * specificity / silent,
            "threshold_sensitivity": float(above[1].mean()),
            "threshold_specificity": 1 - float(above[0].mean()),
            "misses_per_1000": 1000 * p * normal[1],
            "referral_rate": p * referred[1] + (1 - p) * referred[0],
            "prevalence": p,
        }

    @cached_property
    def case_ids(self) -> list[str]:
        """The same in every run, whose draws are by other keys."""
        return [f"study {number}" for number in range(self.studies)]

    @cached_property
    def counted(self) -> np.ndarray:
        """Which studies count: one of each patient, whose studies stand one after the other."""
        ranks = [rank_of(each) for each in self.case_ids]
        groups = range(0, self.studies, self.each)
        first = [min(range(start, start + self.each), key=ranks.__getitem__) for start in groups]
        found = np.zeros(self.studies, bool)
        found[first] = True
        return found


@dataclass(frozen=True)
class Studies:
    """What was answered in a run, [study]: who is sick, the stratum's number, above the threshold, chance's number."""

    sick: np.ndarray
    stratum: np.ndarray
    above: np.ndarray
    number: np.ndarray


def numbers_of(world: World, run: int) -> np.ndarray:
    """Chance's number of each study, from 0 to 1, by the key of a run."""
    chance = Chance(f"the key of run {run}".encode() + b"." * 32)
    return np.array([chance.number("sample", each) / NUMBERS for each in world.case_ids])


def answer_all(world: World, random: np.random.Generator, number: np.ndarray) -> Studies:
    """Patients come, and are answered."""
    _, strata, above = world.strata
    patients = world.studies // world.each
    sick = random.random(patients) < world.prevalence
    common = random.standard_normal(patients)
    own = random.standard_normal((patients, world.each))
    mixed = own if world.each == 1 else _SAME_PATIENT * common[:, None] + math.sqrt(1 - _SAME_PATIENT**2) * own
    # Through the distribution function to places in the table.
    places = np.clip((ndtr(mixed) * _ROWS).astype(int), 0, _ROWS - 1).ravel()
    ill = np.repeat(sick, world.each)
    return Studies(ill, strata[ill.astype(int), places], above[ill.astype(int), places], number)


def choose(world: World, studies: Studies, readings: float) -> tuple[np.ndarray, np.ndarray]:
    """Who is to be read, and with which probability: all that are referred, and on average `readings` others."""
    names = world.strata[0]
    counted = Counter({name: int(count) for name, count in zip(names, _count(studies, names), strict=True)})
    confident = {name: count for name, count in counted.items() if name != "referred"}
    if world.even:
        normal = [name for name in confident if answer_of(name) == "normal"]
        share = min(1.0, readings / sum(confident[name] for name in normal))
        probabilities = {name: share if name in normal else 1.0 for name in confident}
    else:
        probabilities = choose_probabilities(confident, 1, readings)
    probabilities["referred"] = 1.0
    each = np.array([probabilities[name] for name in names])[studies.stratum]
    return studies.number < each, each


def _count(studies: Studies, names: list[str]) -> np.ndarray:
    return np.bincount(studies.stratum, minlength=len(names))


def count(world: World, studies: Studies, readings: float, found: np.ndarray | None = None) -> Tally:
    """What `tally` would make of the studies, faster; `found` is what readers say, by default the truth."""
    names = world.strata[0]
    chosen, probability = choose(world, studies, readings)
    chosen = chosen & world.counted
    found = studies.sick if found is None else found
    code = studies.stratum * 4 + studies.above * 2 + found
    cells: Counter[Cell] = Counter()
    for value, amount in zip(*np.unique(code[chosen], return_counts=True), strict=True):
        stratum, rest = divmod(int(value), 4)
        at = float(probability[studies.stratum == stratum][0])
        cells[Cell(answer_of(names[stratum]), bool(rest & 2), at, bool(rest & 1))] += int(amount)
    answers: Counter[str] = Counter()
    for name, amount in zip(names, np.bincount(studies.stratum[world.counted], minlength=len(names)), strict=True):
        answers[answer_of(name)] += int(amount)
    return Tally(answers, cells)


# --- how often an interval holds the truth


@dataclass
class Cover:
    """Of one figure: how often its interval was shown and held the truth, how wide it was; the naive one beside it."""

    truth: float
    shown: int = 0
    held: int = 0
    widths: list[float] = field(default_factory=list)
    naive_held: int = 0
    naive_values: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, figure: Figure, naive: Interval | None) -> None:
        if figure.interval is None or naive is None:
            return
        self.shown += 1
        self.held += bool(figure.interval.low <= self.truth <= figure.interval.high)
        self.widths.append(figure.interval.high - figure.interval.low)
        self.values.append(figure.interval.value)
        self.naive_held += bool(naive.low <= self.truth <= naive.high)
        self.naive_values.append(naive.value)

    def summarise(self) -> dict[str, float]:
        return {
            "truth": round(self.truth, 5),
            "shown": self.shown,
            "coverage": round(self.held / self.shown, 4),
            "median_width": round(float(np.median(self.widths)), 5),
            "naive_coverage": round(self.naive_held / self.shown, 4),
            "naive_median": round(float(np.median(self.naive_values)), 5),
        }


# Of the product's 2 x 2 table: what a figure takes a share of, and what of that counts.
_NAIVE: Final[dict[str, tuple[Callable[[bool, bool], bool], Callable[[bool, bool], bool]]]] = {
    "product_sensitivity": (lambda _, sick: sick, lambda flagged, _: flagged),
    "product_specificity": (lambda _, sick: not sick, lambda flagged, _: not flagged),
    "product_ppv": (lambda flagged, _: flagged, lambda _, sick: sick),
    "product_npv": (lambda flagged, _: not flagged, lambda _, sick: not sick),
}
FIGURES: Final = tuple(_NAIVE)


def naive_interval(given: Tally, name: str) -> Interval | None:
    """The exact interval of somebody who counts each reading once."""
    of, part = _NAIVE[name]
    counted: Counter[bool] = Counter()
    for cell, amount in given.cells.items():
        kind = (cell.answer != "normal", bool(cell.sick))
        if of(*kind):
            counted[part(*kind)] += amount
    if not counted:
        return None
    return limit_share(Share(*(Weighted.of([(1.0, counted[each])], 1.0) for each in (True, False))))


def simulate_run(world: World, run: int, number: np.ndarray, readings: int, covers: dict[str, Cover]) -> None:
    """One run of a world: patients, answers, draw and estimate."""
    kind = (int(world.sensitivity * 1000), world.each, int(world.even), readings)
    studies = answer_all(world, np.random.default_rng((run, *kind)), number)
    given = count(world, studies, readings)
    found = measure(given).observed
    for name in FIGURES:
        covers[name].add(found[name], naive_interval(given, name))


def covers_of(world: World) -> dict[str, Cover]:
    """Where the runs of a world are counted."""
    return {name: Cover(float(world.truth[name])) for name in FIGURES}


# --- readers who err


def read_once(sick: np.ndarray, random: np.random.Generator, sensitivity: float, specificity: float) -> np.ndarray:
    """What a reader says of each study, right as often as this."""
    return random.random(len(sick)) < np.where(sick, sensitivity, 1 - specificity)


def read_by_rule(sick: np.ndarray, random: np.random.Generator, sensitivity: float, specificity: float) -> np.ndarray:
    """What the reading room's rule makes of it.

    Whoever is found sick, and a fifth of the others, has a second reader; a third decides where these two differ.
    """
    first, second, third = (read_once(sick, random, sensitivity, specificity) for _ in range(3))
    twice = first | (random.random(len(sick)) < SECOND_SHARE)
    return np.where(twice, np.where(first == second, first, third), first)
