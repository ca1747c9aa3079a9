"""What the readings of some studies say of all of them: how often a release is right, among studies like these.

Referred studies are all to be read; of confident ones chance draws some, each with a known probability. A study that
was read counts by one over that probability, scaled so that each kind of answer counts as often as it was given: days
without a draw, and studies that nobody read, are taken to be like the others. `Figure.bounds` says how far off that
can be: all that nobody could judge sick, and all of it well.

Two tests are measured. The *threshold* calls a study sick by its score alone. The *product* refers some: it misses a
pneumonia where it says normal with nobody asked to look, so whatever is not confidently normal counts as found.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple, Protocol

import numpy as np

from pneumoserve.decision import Finding
from pneumoserve.errors import PneumoserveError
from pneumoserve.monitoring.intervals import ALPHA, Interval, Share, Values, Weighted, limit_rate, limit_share
from pneumoserve.records import Effort, ReadingOutcome, Tested

Answer = Literal["referred", "normal", "pneumonia"]
# With fewer readings in what a share is taken of, its interval is wider than .3 and says little (0 of 10: up to .31).
LEAST: Final = 10


class PrevalenceError(PneumoserveError, ValueError):
    """A prevalence that cannot be one; the text says what to do."""

    exit_code = 2


class Study(Protocol):
    """A study that was answered, as far as its closing day.

    `stratum` is `referred`, or a finding and a score band. `probability` is that of being chosen to be read, None where
    chance did not choose it. `score` is the probability of pneumonia, None where no detector ran. `truth` is what
    blind readers found; None unless `outcome` is `read`.
    """

    @property
    def case_id(self) -> str: ...
    @property
    def patient(self) -> str | None: ...
    @property
    def stratum(self) -> str: ...
    @property
    def score(self) -> float | None: ...
    @property
    def probability(self) -> float | None: ...
    @property
    def outcome(self) -> ReadingOutcome: ...
    @property
    def truth(self) -> Finding | None: ...


class Cohort(Protocol):
    """The closed studies of one release; fields are those of `Counted`."""

    @property
    def release(self) -> str: ...
    @property
    def studies(self) -> Sequence[Study]: ...
    @property
    def open(self) -> int: ...
    @property
    def stopped(self) -> int: ...
    @property
    def effort(self) -> Effort: ...
    @property
    def tested(self) -> Mapping[str, Mapping[str, Tested]]: ...


class Cell(NamedTuple):
    """What studies of one cell have in common; `above` is None without score or threshold, `sick` without truth."""

    answer: Answer
    above: bool | None
    probability: float
    sick: bool | None


class Group(NamedTuple):
    """What counted studies of one group have in common; fields are those of `Study`, and `named`: with a patient.

    `above`: whether the score is at the release's threshold or above; None without score or threshold.
    """

    stratum: str
    above: bool | None
    probability: float | None
    outcome: ReadingOutcome
    truth: Finding | None
    named: bool


@dataclass(frozen=True)
class Stratum:
    """How many studies of a stratum there are, how many were to be read, and what came of these."""

    name: str
    studies: int
    chosen: int
    outcomes: dict[ReadingOutcome, int]


@dataclass(frozen=True)
class Tally:
    """Studies counted: how many were answered how, and how many of each cell were to be read."""

    answers: Mapping[Answer, int]
    cells: Mapping[Cell, int]
    strata: tuple[Stratum, ...] = ()
    left_out: int = 0
    without_patient: int = 0

    @property
    def studies(self) -> int:
        """How many count."""
        return sum(self.answers.values())

    @property
    def read(self) -> int:
        """How many have a truth."""
        return sum(count for cell, count in self.cells.items() if cell.sick is not None)


@dataclass(frozen=True)
class Counted:
    """The closed studies of one release: their tally, what they took, and how many are still `open`.

    `stopped`: closed studies that were answered while the release was stopped, which are in no figure.
    `tested`: by blood test or follow-up, by the kind of answer.
    """

    release: str
    tally: Tally
    open: int
    stopped: int
    effort: Effort
    tested: Mapping[str, Mapping[str, Tested]]


@dataclass(frozen=True)
class Figure:
    """A figure with its interval, of 95 % unless asked otherwise, and what is to be seen beside it.

    `interval` is None where it cannot be estimated; `why` says why, `lacking` how many readings more it takes (None:
    more readings would not help). `bounds`: its value if all that nobody could judge was sick, or all of it well,
    the lower first. `naive` counts each reading once; `always_normal` is that of a program that says nothing else.
    """

    interval: Interval | None
    why: str = ""
    lacking: int | None = None
    bounds: tuple[float, float] | None = None
    naive: float | None = None
    always_normal: float | None = None


@dataclass(frozen=True)
class Metrics:
    """All figures of a tally, by name; `per_1000` are studies of 1,000.

    `prevalence` is what `at_prevalence` is for: the given one, else None and the same figures as observed.
    """

    observed: dict[str, Figure]
    prevalence: float | None
    at_prevalence: dict[str, Figure]


def choose_one_a_patient(studies: Iterable[Study]) -> list[Study]:
    """One study of each patient, by a hash that nobody chooses; those without a patient all count."""
    chosen: dict[str, Study] = {}
    alone: list[Study] = []
    for study in studies:
        if study.patient is None:
            alone.append(study)
        elif study.patient not in chosen or rank_of(study.case_id) < rank_of(chosen[study.patient].case_id):
            chosen[study.patient] = study
    return [*alone, *chosen.values()]


def rank_of(case_id: str) -> bytes:
    """Of a patient's studies the one of the lowest rank counts; it hangs on nothing that was answered or read."""
    return hashlib.sha256(f"one study a patient\0{case_id}".encode()).digest()


def tally(studies: Sequence[Study], threshold: float | None) -> Tally:
    """Count studies, one of each patient; `threshold` is the release's, None where nobody knows it."""
    counted = choose_one_a_patient(studies)
    groups = Counter(_group_of(study, threshold) for study in counted)
    return tally_groups(groups, len(studies) - len(counted))


def _group_of(study: Study, threshold: float | None) -> Group:
    above = None if study.score is None or threshold is None else study.score >= threshold
    named = study.patient is not None
    return Group(study.stratum, above, study.probability, study.outcome, study.truth, named)


def tally_groups(groups: Mapping[Group, int], left_out: int) -> Tally:
    """The tally of studies that count, by group; so many of the same patients are `left_out`."""
    answers: Counter[Answer] = Counter()
    cells: Counter[Cell] = Counter()
    studies: Counter[str] = Counter()
    outcomes: dict[str, Counter[ReadingOutcome]] = defaultdict(Counter)
    # In one order, so that sums of weights are the same to the last digit wherever groups come from.
    for group, count in sorted(groups.items(), key=repr):
        answer = answer_of(group.stratum)
        answers[answer] += count
        studies[group.stratum] += count
        if group.probability is not None:
            outcomes[group.stratum][group.outcome] += count
            sick = None if group.truth is None else group.truth == "pneumonia"
            cells[Cell(answer, group.above, group.probability, sick)] += count
    return Tally(
        answers=answers,
        cells=cells,
        strata=tuple(
            Stratum(name, studies[name], outcomes[name].total(), dict(sorted(outcomes[name].items())))
            for name in sorted(studies)
        ),
        left_out=left_out,
        without_patient=sum(count for group, count in groups.items() if not group.named),
    )


def count_cohorts(cohorts: Iterable[Cohort], find_threshold: Callable[[str], float | None]) -> list[Counted]:
    """Count the closed studies of releases; `find_threshold` gives a release's, None where nobody knows it."""
    return [
        Counted(
            each.release,
            tally(each.studies, find_threshold(each.release)),
            each.open,
            each.stopped,
            each.effort,
            each.tested,
        )
        for each in cohorts
    ]


def answer_of(stratum: str) -> Answer:
    """The kind of answer that the studies of a stratum got."""
    name = stratum.partition("/")[0]
    return "normal" if name == "normal" else "pneumonia" if name == "pneumonia" else "referred"


# --- figures

_Is = Callable[[Cell], bool]
_WHY_NOT_READ: Final = "no study with the answer {} was read"
_WHY_NO_THRESHOLD: Final = "the release's threshold is not known"
_WHY_FEW: Final = "too few readings"


def _flagged(cell: Cell) -> bool:
    return cell.answer != "normal"


def _above(cell: Cell) -> bool:
    return cell.above is True


def _sick(cell: Cell) -> bool:
    return cell.sick is True


def _well(cell: Cell) -> bool:
    return cell.sick is False


def _referred(cell: Cell) -> bool:
    return cell.answer == "referred"


def _stated(cell: Cell) -> bool:
    return cell.answer == "pneumonia"


def _any(_: Cell) -> bool:
    return True


def _both(first: _Is, second: _Is) -> _Is:
    return lambda cell: first(cell) and second(cell)


def _not(first: _Is) -> _Is:
    return lambda cell: not first(cell)


@dataclass(frozen=True)
class _Definition:
    """A share: of the studies that are `of`, those that are `part`. Of the threshold's, only what has a score."""

    of: _Is
    part: _Is
    scored: bool = False
    always_normal: float | None = None

    def knows(self, cell: Cell) -> bool:
        """Whether studies of a cell have what it takes to say to which side they belong."""
        return not self.scored or cell.above is not None


_SHARES: Final[dict[str, _Definition]] = {
    "product_sensitivity": _Definition(_sick, _flagged, always_normal=0.0),
    "product_specificity": _Definition(_well, _not(_flagged), always_normal=1.0),
    "product_ppv": _Definition(_flagged, _sick),
    "product_npv": _Definition(_not(_flagged), _well),
    "threshold_sensitivity": _Definition(_sick, _above, scored=True, always_normal=0.0),
    "threshold_specificity": _Definition(_well, _not(_above), scored=True, always_normal=1.0),
    "threshold_ppv": _Definition(_above, _sick, scored=True),
    "threshold_npv": _Definition(_not(_above), _well, scored=True),
    "stated_pneumonia_ppv": _Definition(_stated, _sick),
    "false_alarm_rate": _Definition(_well, _stated, always_normal=0.0),
    "referral_rate_sick": _Definition(_sick, _referred, always_normal=0.0),
    "referral_rate_well": _Definition(_well, _referred, always_normal=0.0),
    "prevalence": _Definition(_any, _sick),
}
# Of 1,000 studies: where nobody is asked to look at a pneumonia, and where people look at somebody well.
_COUNTS: Final[dict[str, _Definition]] = {
    "misses_per_1000": _Definition(_any, _both(_sick, _not(_flagged))),
    "needless_referrals_per_1000": _Definition(_any, _both(_well, _referred), always_normal=0.0),
}


class _Weights:
    """How much each cell counts."""

    def __init__(self, given: Tally, sick: bool | None = None) -> None:
        """`sick`: what to take those for that nobody could judge; None leaves them out."""
        self._given = given
        self._cells: Counter[Cell] = Counter()
        for cell, count in given.cells.items():
            found = cell if cell.sick is not None else cell._replace(sick=sick)
            if found.sick is not None:
                self._cells[found] += count
        weights: Counter[Answer] = Counter()
        for cell, count in self._cells.items():
            weights[cell.answer] += count / cell.probability  # type: ignore[assignment]
        self._factors = {answer: given.answers[answer] / weight for answer, weight in weights.items()}

    def of(self, wanted: _Is) -> Weighted:
        """The weighted count of some cells. Its largest weight is that of any chosen study that could be in them."""
        found = [(self._weight(cell), count) for cell, count in self._cells.items() if wanted(cell)]
        possible = [
            self._weight(cell)
            for cell in self._given.cells
            if cell.answer in self._factors and any(wanted(cell._replace(sick=sick)) for sick in (False, True))
        ]
        return Weighted.of(found, max(possible, default=0.0))

    def share(self, definition: _Definition) -> Share:
        """The share of a definition, among the cells of which it is known."""
        of = _both(definition.knows, definition.of)
        return Share(self.of(_both(of, definition.part)), self.of(_both(of, _not(definition.part))))

    def count(self, wanted: _Is) -> int:
        """How many readings, each counted once."""
        return sum(count for cell, count in self._cells.items() if wanted(cell))

    def _weight(self, cell: Cell) -> float:
        return self._factors[cell.answer] / cell.probability


def check_prevalence(prevalence: float | None) -> None:
    """See that a prevalence, if there is one, can be one.

    Raises:
        PrevalenceError: it cannot.
    """
    if prevalence is not None and not 0 < prevalence < 1:
        raise PrevalenceError("A prevalence is a share between 0 and 1, such as 0.01 for one patient of a hundred.")


def measure(given: Tally, prevalence: float | None = None, alpha: float = ALPHA) -> Metrics:
    """All figures of a tally, and what they come to at a prevalence.

    Each limit of an interval is wrong with probability `alpha` / 2 at most.

    Raises:
        PrevalenceError: the prevalence is not between 0 and 1.
    """
    check_prevalence(prevalence)
    read, sick, well = _Weights(given), _Weights(given, sick=True), _Weights(given, sick=False)
    observed = {name: _figure(given, each, read, (sick, well), alpha) for name, each in _SHARES.items()}
    for name, each in _COUNTS.items():
        observed[name] = _scale(_figure(given, each, read, (sick, well), alpha), 1000)
    observed["referral_rate"] = _referral_rate(given, alpha)
    share = observed["prevalence"].interval
    if share is not None:
        observed["misses_per_1000"] = replace(observed["misses_per_1000"], always_normal=1000 * share.value)
        for name in ("product_npv", "threshold_npv"):
            observed[name] = replace(observed[name], always_normal=1 - share.value)
    rates = {} if prevalence is None else _at(prevalence, observed, read, alpha)
    return Metrics(observed, prevalence, rates)


def _figure(
    given: Tally, definition: _Definition, read: _Weights, extremes: tuple[_Weights, _Weights], alpha: float
) -> Figure:
    always = definition.always_normal
    if definition.scored and given.cells and not any(map(definition.knows, given.cells)):
        return Figure(None, _WHY_NO_THRESHOLD, always_normal=always)
    unread = _find_unread(given, definition)
    if unread is not None:
        return Figure(None, _WHY_NOT_READ.format(unread), LEAST, always_normal=always)
    of = _both(definition.knows, definition.of)
    lacking = LEAST - read.count(of)
    if lacking > 0:
        return Figure(None, _WHY_FEW, lacking, always_normal=always)
    naive = read.count(_both(of, definition.part)) / read.count(of)
    ends = sorted(each.share(definition).value for each in extremes)
    found = limit_share(read.share(definition), alpha)
    return Figure(found, bounds=(ends[0], ends[1]), naive=naive, always_normal=always)


def _find_unread(given: Tally, definition: _Definition) -> Answer | None:
    """An answer whose studies may belong to what a share is taken of, and of which not one was read."""
    for answer, count in given.answers.items():
        kinds = [Cell(answer, above, 1.0, sick) for above in (False, True) for sick in (False, True)]
        is_read = any(cell.answer == answer and cell.sick is not None for cell in given.cells)
        if count and not is_read and any(map(definition.of, kinds)):
            return answer
    return None


def _referral_rate(given: Tally, alpha: float) -> Figure:
    """The share of studies that were referred: it takes no reading."""
    total, referred = given.studies, given.answers.get("referred", 0)
    if not total:
        return Figure(None, "there is no study", None, always_normal=0.0)
    counts = (Weighted.of([(1.0, count)], 1.0) for count in (referred, total - referred))
    found = limit_share(Share(*counts), alpha)
    return Figure(found, bounds=(found.value, found.value), naive=found.value, always_normal=0.0)


def _scale(figure: Figure, factor: float) -> Figure:
    def times(value: float | None) -> float | None:
        return None if value is None else value * factor

    return replace(
        figure,
        interval=None if figure.interval is None else figure.interval.scale(factor),
        bounds=None if figure.bounds is None else (figure.bounds[0] * factor, figure.bounds[1] * factor),
        naive=times(figure.naive),
        always_normal=times(figure.always_normal),
    )


# --- at a prevalence that somebody names


def _at(prevalence: float, observed: Mapping[str, Figure], read: _Weights, alpha: float) -> dict[str, Figure]:
    """The figures that hang on how many are sick, where the sick and the well are answered as those that were read."""

    def npv(sensitivity: Values, specificity: Values) -> Values:
        return _part((1 - prevalence) * specificity, prevalence * (1 - sensitivity))

    def referral_rate(sick: Values, well: Values) -> Values:
        return prevalence * sick + (1 - prevalence) * well

    def rate(rule: Callable[..., Values], always: float | None, *names: str) -> Figure:
        missing = next((observed[name] for name in names if observed[name].interval is None), None)
        if missing is not None:
            return Figure(None, missing.why, missing.lacking, always_normal=always)
        shares = [read.share(_SHARES[name]) for name in names]
        found = limit_rate(rule, shares, alpha)
        naive = float(rule(*(np.array(observed[name].naive) for name in names)))
        ends = [observed[name].bounds or (0.0, 1.0) for name in names]
        low, high = (float(rule(*(np.array(end[side]) for end in ends))) for side in (0, 1))
        return Figure(found, bounds=(low, high), naive=naive, always_normal=always)

    found: dict[str, Figure] = {}
    for test in ("product", "threshold"):
        both = (f"{test}_sensitivity", f"{test}_specificity")
        found[f"{test}_ppv"] = rate(functools.partial(_ppv, prevalence), None, *both)
        found[f"{test}_npv"] = rate(npv, 1 - prevalence, *both)
    found["referral_rate"] = rate(referral_rate, 0.0, "referral_rate_sick", "referral_rate_well")
    found["misses_per_1000"] = _misses(prevalence, observed["product_sensitivity"])
    needless = _scale(observed["referral_rate_well"], 1000 * (1 - prevalence))
    found["needless_referrals_per_1000"] = needless
    return found


def trace_ppv(given: Tally, prevalences: Sequence[float]) -> list[Interval]:
    """The product's PPV at each prevalence; of a tally whose sensitivity and specificity `measure` gives."""
    read = _Weights(given)
    shares = [read.share(_SHARES[f"product_{name}"]) for name in ("sensitivity", "specificity")]
    return [limit_rate(functools.partial(_ppv, prevalence), shares) for prevalence in prevalences]


def _ppv(prevalence: float, sensitivity: Values, specificity: Values) -> Values:
    return _part(prevalence * sensitivity, (1 - prevalence) * (1 - specificity))


def _misses(prevalence: float, sensitivity: Figure) -> Figure:
    """Of 1,000 studies, the pneumonias that nobody is asked to look at."""
    factor = 1000 * prevalence
    if sensitivity.interval is None:
        return Figure(None, sensitivity.why, sensitivity.lacking, always_normal=factor)
    found, ends = sensitivity.interval, sensitivity.bounds or (0.0, 1.0)
    missed = Interval(1 - found.value, 1 - found.high, 1 - found.low).scale(factor)
    bounds = (factor * (1 - ends[1]), factor * (1 - ends[0]))
    naive = None if sensitivity.naive is None else factor * (1 - sensitivity.naive)
    return Figure(missed, bounds=bounds, naive=naive, always_normal=factor)


def _part(first: Values, second: Values) -> Values:
    """The share of `first` in both; 1 where both are 0: then nobody is called so, and nobody wrongly."""
    whole = first + second
    return np.where(whole > 0, first / np.where(whole > 0, whole, 1.0), 1.0)
