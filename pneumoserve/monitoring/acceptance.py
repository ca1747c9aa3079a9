"""Does a release do at a site what the plan asks of it? Read it from `judge_films` downwards.

A site's labelled films are judged in shadow: in this process, by the release's own models and policy. Nothing of it
gets into predictions, queues, samples or metrics. What is kept is one entry of the archive for each run.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.decision import Decision
from pneumoserve.ids import time_text, uuid7
from pneumoserve.imaging import ImageError, PreparedImage
from pneumoserve.imaging.dicom import read_device
from pneumoserve.imaging.pool import shared_pool
from pneumoserve.inference import infer, scores_of
from pneumoserve.ledger import Reader
from pneumoserve.models.inprocess import InProcess, load_scorers
from pneumoserve.monitoring.intervals import Share, count_effective
from pneumoserve.monitoring.plan import LEAST, OF_SICK, AcceptancePlan
from pneumoserve.monitoring.power import level_of_look, lower_bound, patients_needed, upper_bound
from pneumoserve.names import DECISION
from pneumoserve.records import (
    ACCEPTANCE_WRITERS,
    Acceptance,
    AcceptanceError,
    AcceptanceOutcome,
    CriterionResult,
    Record,
    read_entries,
)
from pneumoserve.release import Release
from pneumoserve.release.data import (
    ArchiveFilm,
    DataError,
    Item,
    LabelledFilm,
    manifest_of,
    pseudonym_of,
    read_data,
    read_labels,
)
from pneumoserve.release.holdout import count_learned, count_same_patients, hold_out_of
from pneumoserve.replay import BadEvidence, Replayed, replay_each
from pneumoserve.store import Store

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

# A rate of fewer films names nobody, and says nothing.
SMALLEST_CELL: Final = 10
_INTERVAL: Final = 0.05
_BINS: Final = 5


@dataclass(frozen=True)
class JudgedFilm:
    """A labelled film and what the release says of it; `probability` is None where no model ran."""

    item: LabelledFilm
    decision: Decision
    probability: float | None
    modality: str
    age: str
    device: str


@dataclass(frozen=True)
class Rate:
    """A share of films, with a two-sided 95 % interval by patient; `share` where films have weights."""

    rate: float
    low: float
    high: float
    films: int
    patients: int
    share: Share | None = None

    def lower(self, alpha: float) -> float:
        """The one-sided lower bound by patient, at level 1 - `alpha`."""
        return lower_bound(self.rate, self.patients, alpha) if self.share is None else self.share.lower(alpha)

    def upper(self, alpha: float) -> float:
        """The same for an upper bound."""
        return upper_bound(self.rate, self.patients, alpha) if self.share is None else self.share.upper(alpha)

    @property
    def facts(self) -> dict[str, Any]:
        """What the report has of it."""
        return {name: getattr(self, name) for name in ("rate", "low", "high", "films", "patients")}


@dataclass(frozen=True)
class Weighting:
    """What labels of the archive are called by digest, the `largest` weight of a study, and what the report has."""

    digest: str
    largest: float
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """What a run of `accept` found: the entry for the archive, and the document that it names."""

    entry: Acceptance
    document: dict[str, Any]


def judge_films(
    release: Release, items: Sequence[Item], read: Callable[[Item], bytes], progress: Callable[[], None]
) -> list[JudgedFilm]:
    """What a release says of labelled films, which it has not learned from.

    Raises:
        AcceptanceError: a film cannot be read, or the release learned from some of them.
    """
    pool = shared_pool()
    with load_scorers(release) as scorers, ThreadPoolExecutor(1, thread_name_prefix="accept") as thread:
        backend = InProcess(scorers, thread)
        judged, pixels = [], {}
        for item in items:
            data = read(item)
            try:
                film = pool.prepare(data)
                device = read_device(data) if film.format == "dicom" else None
            except ImageError as error:
                raise AcceptanceError(f"The film {item.name} cannot be read ({error}); remove it.") from None
            pixels[item.sha256] = film.pixels_sha256
            judged.append(_judge(release, backend, item, film, device))
            progress()
    _check_unseen(release, pixels)
    _check_unfitted(release, items)
    return judged


def judge_archive(
    release: Release,
    store: Store,
    items: Sequence[ArchiveFilm],
    records: Mapping[str, Record],
    progress: Callable[[], None],
) -> list[JudgedFilm]:
    """The same of films of the archive, by their `records`; whichever release answered them, this one judges them.

    Raises:
        AcceptanceError: the archive has not what it had, or the release learned from some of the films.
        StoreError: the store does not answer.
    """
    missing = sum(item.prediction_id not in records for item in items)
    if missing:
        raise AcceptanceError(
            f"The archive has no record of {missing} labelled predictions; `pneumoserve archive verify` shows why."
        )
    pixels = {
        image.stored_sha256: image.pixels_sha256 for record in records.values() if (image := record.image) is not None
    }
    _check_unseen(release, pixels)
    _check_unfitted(release, items)
    outcomes = asyncio.run(_replay(release, store, [records[item.prediction_id] for item in items], progress))
    faults = Counter(outcome.fault for outcome in outcomes if isinstance(outcome, BadEvidence))
    if faults:
        said = ", ".join(f"{count} {fault.replace('_', ' ')}" for fault, count in sorted(faults.items()))
        raise AcceptanceError(
            f"{faults.total()} of these {len(items)} images of the archive cannot be judged anew ({said}). See what is "
            "wrong by `pneumoserve archive verify`, or leave their days out by --since."
        )
    pairs = zip(items, outcomes, strict=True)
    return [_judged(item, outcome) for item, outcome in pairs if isinstance(outcome, Replayed)]


async def _replay(
    release: Release, store: Store, records: Sequence[Record], progress: Callable[[], None]
) -> list[Replayed | BadEvidence]:
    found = []
    with load_scorers(release) as scorers:
        async for outcome in replay_each(store, release, scorers, records):
            found.append(outcome)
            progress()
    return found


def _judged(item: ArchiveFilm, outcome: Replayed) -> JudgedFilm:
    image, found = outcome.record.image, outcome.inference
    if found.decision is None or image is None:
        raise AssertionError("the decision model decides")
    # A copy in the archive names no device.
    facts = (image.modality or "not known", _age_group(image.age_years), "not known")
    return JudgedFilm(item, found.decision, scores_of(found.models).pneumonia, *facts)


def _judge(release: Release, backend: InProcess, item: Item, film: PreparedImage, device: str | None) -> JudgedFilm:
    found = asyncio.run(infer(release, backend, DECISION, film))
    if found.decision is None:
        raise AssertionError("the decision model decides")
    probability = scores_of(found.models).pneumonia
    facts = (film.facts.modality or "not known", _age_group(film.facts.age_years), device or "not known")
    return JudgedFilm(item, found.decision, probability, *facts)


def _age_group(age: float | None) -> str:
    if age is None:
        return "not known"
    return next(
        (name for limit, name in ((1, "under 1"), (6, "1 to 5"), (18, "6 to 17")) if age < limit), "18 and over"
    )


def _check_unseen(release: Release, pixels: Mapping[str, str]) -> None:
    try:
        data = read_data(release.folder, release.manifest.data.digest)
    except DataError as error:
        raise AcceptanceError(f"Release {release.id} does not say what it learned from ({error}).") from None
    seen = count_learned(data, hold_out_of(release.manifest.training), pixels)
    if seen:
        raise AcceptanceError(
            f"Release {release.id} learned from {seen} of these {len(pixels)} films, so they show nothing; leave "
            "them out."
        )


def _check_unfitted(release: Release, items: Sequence[LabelledFilm]) -> None:
    """Refuse films of patients to whose films the release's policy was fitted: it suits them better than others."""
    fitted = release.manifest.recalibration
    if fitted is None:
        return
    try:
        known = read_labels(release.folder, fitted.labels)
    except DataError as error:
        raise AcceptanceError(
            f"Release {release.id} does not say to which films its policy was fitted ({error})."
        ) from None
    films, patients = {item.sha256 for item in known}, {pseudonym_of(item.patient) for item in known}
    same = [item for item in items if item.sha256 in films or pseudonym_of(item.patient) in patients]
    if same:
        people = len({item.patient for item in same})
        raise AcceptanceError(
            f"The policy of release {release.id} was fitted to films of {people} of these patients, whose {len(same)} "
            "films would show it too good; give films of other patients, such as those of later days."
        )


def count_known_patients(release: Release, items: Iterable[LabelledFilm]) -> int:
    """Patients whose number a patient that the release learned from has too; they may be the same people."""
    data = read_data(release.folder, release.manifest.data.digest)
    return count_same_patients(data, hold_out_of(release.manifest.training), items)


# --- figures


def measure_figures(films: Sequence[JudgedFilm], threshold: float, largest: float | None = None) -> dict[str, Rate]:
    """Every figure that the films can give, and the errors among confident answers.

    `largest`: of films with weights, the largest that a study may have.
    """
    columns = _Columns(films, threshold)
    figures = {
        "sensitivity": (columns.sick, columns.called),
        "product_sensitivity": (columns.sick, ~columns.normal),
        "specificity": (~columns.sick, ~columns.called),
        "confident_false_alarms": (~columns.sick, columns.pneumonia),
        "referred_among_normals": (~columns.sick, columns.referred),
        "referred_among_pneumonias": (columns.sick, columns.referred),
        "wrong_among_confident_normals": (columns.normal, columns.sick),
        "wrong_among_confident_pneumonias": (columns.pneumonia, ~columns.sick),
    }
    return {name: columns.rate(among, event, largest) for name, (among, event) in figures.items() if among.any()}


def measure_strata(
    films: Sequence[JudgedFilm], threshold: float, largest: float | None = None
) -> dict[str, dict[str, Any]]:
    """Sensitivity, specificity and referrals by modality, age group and device; None for a cell of fewer than 10."""
    found = {}
    for kind in ("modality", "age", "device"):
        for value in sorted({str(getattr(film, kind)) for film in films}):
            columns = _Columns([film for film in films if getattr(film, kind) == value], threshold)
            cells = {
                "sensitivity": (columns.sick, columns.called),
                "specificity": (~columns.sick, ~columns.called),
                "referred_among_pneumonias": (columns.sick, columns.referred),
                "referred_among_normals": (~columns.sick, columns.referred),
            }
            found[f"{kind}: {value}"] = {
                name: columns.rate(among, event, largest).facts if among.sum() >= SMALLEST_CELL else None
                for name, (among, event) in cells.items()
            }
    return found


def measure_calibration(films: Sequence[JudgedFilm]) -> list[dict[str, float]]:
    """Stated probabilities against the share that is sick, in fifths of the films; both classes weigh the same."""
    known = [film for film in films if film.probability is not None]
    stated = np.array([film.probability for film in known], dtype=np.float64)
    sick = np.array([film.item.cls != "normal" for film in known])
    if sick.all() or not sick.any():
        return []
    counts = np.array([film.item.weight for film in known])
    share = np.average(sick, weights=counts)
    weights = counts * np.where(sick, 0.5 / share, 0.5 / (1 - share))
    points = []
    for rows in np.array_split(np.argsort(stated, kind="stable"), _BINS):
        if len(rows):
            values = (np.average(each[rows], weights=weights[rows]) for each in (stated, sick))
            points.append(dict(zip(("stated", "sick"), (round(float(value), 4) for value in values), strict=True)))
    return points


class _Columns:
    """Films as arrays of shape [N]. A film that no model scored is not called."""

    def __init__(self, films: Sequence[JudgedFilm], threshold: float) -> None:
        self.sick: Bools = np.array([film.item.cls != "normal" for film in films], dtype=bool)
        self.called: Bools = np.array([(film.probability or 0.0) >= threshold for film in films], dtype=bool)
        self.normal: Bools = np.array([film.decision.finding == "normal" for film in films], dtype=bool)
        self.pneumonia: Bools = np.array([film.decision.finding == "pneumonia" for film in films], dtype=bool)
        self.referred: Bools = ~self.normal & ~self.pneumonia
        self.patients = np.array([film.item.patient for film in films])
        self.weights: Floats = np.array([film.item.weight for film in films], dtype=np.float64)

    def rate(self, among: Bools, event: Bools, largest: float | None) -> Rate:
        """The share of an event among some films; `largest` as `measure_figures` takes it."""
        events, patients, weights = event[among], self.patients[among], self.weights[among]
        count = len(set(patients.tolist()))
        share = None if largest is None else Share.of_films(events, patients, weights, largest)
        exact = Rate(float(np.average(events, weights=weights)), 0.0, 1.0, len(events), count, share)
        low, high = exact.lower(_INTERVAL / 2), exact.upper(_INTERVAL / 2)
        return replace(exact, rate=round(exact.rate, 4), low=round(low, 4), high=round(high, 4))


def _add_weights(items: Iterable[LabelledFilm]) -> dict[str, float]:
    """The weights of each patient's films together."""
    found: dict[str, float] = {}
    for item in items:
        found[item.patient] = found.get(item.patient, 0.0) + item.weight
    return found


# --- the outcome


def run_look(
    release: Release,
    plan: AcceptancePlan,
    films: Sequence[JudgedFilm],
    earlier: Sequence[Acceptance],
    same: int,
    weighting: Weighting | None = None,
) -> Run:
    """The next look of a plan; `earlier` are its runs so far (`read_runs`), `same` is from `count_known_patients`.

    `weighting` goes with labels of the archive. There are enough patients where as many that count alike would do.
    With fewer patients than the look takes, nothing is shown and no look is spent.

    Raises:
        AcceptanceError: no film is sick or none is well, these very films were looked at, or no look is left.
    """
    items = [film.item for film in films]
    labels = _digest_of_labels(items) if weighting is None else weighting.digest
    sick, well = _count(items)
    enough = (sick, well) if weighting is None else _count_effective(items)
    look = _next_look(plan, earlier, labels)
    if not sick or not well:
        raise AcceptanceError("There are no films of patients with pneumonia, or none without; add films of both.")
    missing = tuple(max(0, least - found) for least, found in zip(plan.patients_at(look), enough, strict=True))
    results: tuple[CriterionResult, ...] = ()
    outcome: AcceptanceOutcome = "insufficient"
    figures: dict[str, Any] = {"withheld": "too few patients for a look, so that none is spent"}
    if any(missing):
        look = 0
    else:
        threshold = release.manifest.policy.detector_threshold
        largest = None if weighting is None else weighting.largest
        measured = measure_figures(films, threshold, largest)
        level = level_of_look(plan.alpha, plan.looks, look)
        results = tuple(_result(name, limit, measured[name], level) for name, limit in plan.criteria.named.items())
        outcome = _decide(plan, look, results, measured, level)
        missing = _missing(plan, look, results, enough) if outcome == "insufficient" else (0, 0)
        figures = {
            "figures": {name: rate.facts for name, rate in measured.items()},
            "strata": measure_strata(films, threshold, largest),
            "calibration": measure_calibration(films),
            "level": level,
        }
    made = {
        "acceptance_id": uuid7(),
        "time": time_text(datetime.now(UTC)),
        "release": release.id,
        "site": plan.site,
        "look": look,
        "outcome": outcome,
        "sick_patients": sick,
        "well_patients": well,
        "missing_sick": missing[0],
        "missing_well": missing[1],
    }
    criteria = [result.model_dump() for result in results]
    document = {
        "schema": "pneumoserve.acceptance_report/1",
        **made,
        "plan": plan.model_dump(mode="json", by_alias=True),
        "power": {name: round(value, 3) for name, value in plan.power().items()},
        "labels": labels,
        "films": len(items),
        "same_patient_numbers": same,
        "assumed_prevalence": release.manifest.policy.assumed_prevalence,
        "criteria": criteria,
        **figures,
    }
    if weighting is not None:
        document["archive"] = {**weighting.facts, "effective_sick": enough[0], "effective_well": enough[1]}
    digests = {"plan": plan.digest, "labels": labels, "report": digest_of(canonical_json(document))}
    return Run(Acceptance.model_validate({**made, **digests, "criteria": criteria}), document)


def _digest_of_labels(items: Sequence[LabelledFilm]) -> str:
    return digest_of(manifest_of(item for item in items if isinstance(item, Item)))


def _count(items: Sequence[LabelledFilm]) -> tuple[int, int]:
    sick = {item.patient for item in items if item.cls != "normal"}
    return len(sick), len({item.patient for item in items if item.cls == "normal"})


def _count_effective(items: Sequence[LabelledFilm]) -> tuple[int, int]:
    """How many patients that count alike say as much, of the sick and of the well."""
    sick, well = (
        count_effective(_add_weights(item for item in items if (item.cls != "normal") == is_sick).values())
        for is_sick in (True, False)
    )
    return sick, well


def _next_look(plan: AcceptancePlan, earlier: Sequence[Acceptance], labels: str) -> int:
    looks = [run for run in earlier if run.look]
    for run in looks:
        if run.outcome != "insufficient":
            raise AcceptanceError(
                f"This plan has ended: look {run.look} of {plan.looks} says {run.outcome} ({run.acceptance_id}). "
                "Another try takes a new plan and new films."
            )
        if run.labels == labels:
            raise AcceptanceError(
                f"Look {run.look} was at these very films ({run.acceptance_id}); add films before the next one."
            )
    if len(looks) >= plan.looks:
        raise AcceptanceError(
            f"All {plan.looks} looks of this plan are used; another try takes a new plan and new films."
        )
    return len(looks) + 1


def _result(name: str, limit: float, measured: Rate, level: float) -> CriterionResult:
    bound = measured.lower(level) if name in LEAST else measured.upper(level)
    shown = bound >= limit if name in LEAST else bound <= limit
    return CriterionResult(
        figure=name, limit=limit, rate=measured.rate, bound=round(bound, 4), patients=measured.patients, shown=shown
    )


def _decide(
    plan: AcceptancePlan, look: int, results: Sequence[CriterionResult], measured: Mapping[str, Rate], level: float
) -> AcceptanceOutcome:
    if all(result.shown for result in results):
        return "accepted"
    if look == plan.looks or any(_is_contradicted(result, measured[result.figure], level) for result in results):
        return "refused"
    return "insufficient"


def _is_contradicted(result: CriterionResult, measured: Rate, level: float) -> bool:
    """Whether even the bound on the other side lies on the wrong side of the limit."""
    if result.figure in LEAST:
        return measured.upper(level) < result.limit
    return measured.lower(level) > result.limit


def _missing(
    plan: AcceptancePlan, look: int, results: Sequence[CriterionResult], found: tuple[int, int]
) -> tuple[int, int]:
    """Patients that the next look takes, or that the rates seen so far would take at it, if those are more."""
    sick, well = plan.patients_at(look + 1)
    level = level_of_look(plan.alpha, plan.looks, look + 1)
    for result in results:
        least, rate = (result.limit, result.rate) if result.figure in LEAST else (1 - result.limit, 1 - result.rate)
        needed = 0 if result.shown else patients_needed(least, rate, level) or 0
        if result.figure in OF_SICK:
            sick = max(sick, needed)
        else:
            well = max(well, needed)
    return max(0, sick - found[0]), max(0, well - found[1])


# --- what is on record


def read_runs(reader: Reader, plan: AcceptancePlan, release: str) -> list[Acceptance]:
    """The runs of a plan for a release so far, in their order.

    Raises:
        StoreError: the store does not answer.
    """
    found = (entry for entry in read_entries(reader, release=release, roles=(f"{ACCEPTANCE_WRITERS}-",)))
    runs = [entry for entry in found if isinstance(entry, Acceptance) and entry.plan == plan.digest]
    return sorted(runs, key=lambda run: (run.time, run.acceptance_id))
