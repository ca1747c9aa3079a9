"""What a candidate has to show before it gets any traffic: both releases answer on films whose truth is known."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from pneumoserve.decision import Decision, Finding
from pneumoserve.imaging import PreparedImage
from pneumoserve.inference import infer, scores_of
from pneumoserve.models.inprocess import InProcess, load_scorers
from pneumoserve.names import DECISION
from pneumoserve.records import GateResult, Outcome
from pneumoserve.release import Release
from pneumoserve.rollout.evidence import AdjudicatedSet
from pneumoserve.rollout.statistics import ONE_SIDED, mean_upper, pairs_needed, tango_p, tango_upper

_REPEATED: Final = 8
_BINS: Final = 10
# The bound of a mean takes so many differences to be near enough to normal.
_FEWEST_FOR_A_MEAN: Final = 30
# A rollout's state, where it began under an earlier version, still has these names; a new plan may not.
RENAMED_MARGINS: Final = {"sensitivity": "missedPneumonia", "specificity": "falseAlarm"}


class GateSettings(BaseModel):
    """How much worse than the stable release a candidate must be shown not to be, one-sided at 5 %."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    missed_pneumonia: float = Field(
        default=0.03, gt=0, lt=1, validation_alias=AliasChoices("missedPneumonia", "sensitivity"),
        serialization_alias="missedPneumonia", description="margin: added share of the sick who are called normal",
    )  # fmt: skip
    false_alarm: float = Field(
        default=0.05, gt=0, lt=1, validation_alias=AliasChoices("falseAlarm", "specificity"),
        serialization_alias="falseAlarm", description="margin: added share of the well who are called sick",
    )  # fmt: skip
    referrals: float = Field(default=0.05, gt=0, lt=1, description="margin: added share of referred films")
    brier: float = Field(default=0.02, gt=0, lt=1, description="margin: added Brier score")


@dataclass(frozen=True)
class ReleaseAnswer:
    """What a release says of one film: the decision, and the detector's probability where that ran."""

    decision: Decision
    probability: float | None
    logits: tuple[float, ...]

    @property
    def is_unreferred_normal(self) -> bool:
        """Whether it was called normal with nobody asked to look."""
        return self.decision.finding == "normal" and not self.decision.referred

    @property
    def is_unreferred_pneumonia(self) -> bool:
        """Whether it was called pneumonia with nobody asked to look."""
        return self.decision.finding == "pneumonia" and not self.decision.referred


@dataclass(frozen=True)
class Pair:
    """One film, its truth, and how each release answers on it."""

    finding: Finding
    stable: ReleaseAnswer
    candidate: ReleaseAnswer


def evaluate_candidate(
    stable: Release,
    candidate: Release,
    evidence: AdjudicatedSet,
    settings: GateSettings,
    progress: Callable[[], None] = lambda: None,
) -> tuple[GateResult, ...]:
    """All gates that films decide; `progress` is called after each film. Both releases are verified already.

    Raises:
        EvidenceError: a film of the set is not what it was.
        StoreError: the store does not answer.
        ModuleNotFoundError: there is no ONNX Runtime.
    """
    with _answers_of(stable) as by_stable, _answers_of(candidate) as by_candidate:
        pairs = []
        for film, prepared in evidence.films():
            pairs.append(Pair(film.finding, by_stable(prepared), by_candidate(prepared)))
            progress()
        repeated = [by_candidate(prepared) for _, prepared in islice(evidence.films(), _REPEATED)]
    return (_determinism(pairs, repeated), *evaluate_pairs(pairs, settings))


def evaluate_pairs(pairs: Sequence[Pair], settings: GateSettings) -> tuple[GateResult, ...]:
    """The gates on films that both releases have answered on."""
    sick = [pair for pair in pairs if pair.finding == "pneumonia"]
    well = [pair for pair in pairs if pair.finding == "normal"]
    return (
        _no_worse("missedPneumonia", "films of pneumonia are called normal with nobody asked to look",
                  [(pair.stable.is_unreferred_normal, pair.candidate.is_unreferred_normal) for pair in sick],
                  settings.missed_pneumonia),
        _no_worse("falseAlarm", "normal films are called pneumonia with nobody asked to look",
                  [(pair.stable.is_unreferred_pneumonia, pair.candidate.is_unreferred_pneumonia) for pair in well],
                  settings.false_alarm),
        _no_worse("referrals", "films are referred",
                  [(pair.stable.decision.referred, pair.candidate.decision.referred) for pair in pairs],
                  settings.referrals),
        _calibration(pairs, settings.brier),
    )  # fmt: skip


@contextlib.contextmanager
def _answers_of(release: Release) -> Iterator[Callable[[PreparedImage], ReleaseAnswer]]:
    with load_scorers(release) as scorers, ThreadPoolExecutor(1, thread_name_prefix="gate") as thread:
        backend = InProcess(scorers, thread)

        def answer(film: PreparedImage) -> ReleaseAnswer:
            found = asyncio.run(infer(release, backend, DECISION, film))
            if found.decision is None:
                raise AssertionError("the model `pneumonia` always decides")
            logits = tuple(use.logit for use in found.models)
            return ReleaseAnswer(found.decision, scores_of(found.models).pneumonia, logits)

        yield answer


def _determinism(pairs: Sequence[Pair], repeated: Sequence[ReleaseAnswer]) -> GateResult:
    differing = sum(first.candidate != again for first, again in zip(pairs, repeated, strict=False))
    return GateResult(
        gate="determinism",
        outcome="fail" if differing else "pass",
        sentence=f"{differing} of {len(repeated)} films were answered otherwise the second time.",
        numbers={"films": len(repeated), "differing": differing},
    )


def _no_worse(gate: str, what: str, bad: Sequence[tuple[bool, bool]], margin: float) -> GateResult:
    """Tango's test of a share of bad outcomes, (stable, candidate) for each film."""
    pairs, needed = len(bad), pairs_needed(margin)
    lost = sum(candidate and not stable for stable, candidate in bad)
    gained = sum(stable and not candidate for stable, candidate in bad)
    numbers: dict[str, float | int | str | None] = {
        "films": pairs, "needed": needed, "margin": margin, "only_candidate": lost, "only_stable": gained,
        "stable": sum(stable for stable, _ in bad), "candidate": sum(candidate for _, candidate in bad),
    }  # fmt: skip
    if pairs < needed:
        sentence = f"{pairs} films are too few for a margin of {margin:g}: it takes {needed} at least."
        return GateResult(gate=gate, outcome="insufficient", sentence=sentence, numbers=numbers)
    bound, p = tango_upper(lost, gained, pairs), tango_p(lost, gained, pairs, margin)
    outcome: Outcome = "pass" if p <= ONE_SIDED else "fail"
    return GateResult(
        gate=gate,
        outcome=outcome,
        sentence=f"Of {pairs}, {numbers['candidate']} {what} by the candidate, {numbers['stable']} by the stable "
        f"release: at most {bound:.3f} more (margin {margin:g}, p = {p:.2g}).",
        numbers={**numbers, "at_most": bound, "p": p},
    )


def _calibration(pairs: Sequence[Pair], margin: float) -> GateResult:
    """The paired difference of Brier scores (Brier GW. Monthly Weather Review 1950; 78: 1-3), a proper score."""
    known = [
        (float(pair.finding == "pneumonia"), pair.stable.probability, pair.candidate.probability)
        for pair in pairs
        if pair.stable.probability is not None and pair.candidate.probability is not None
    ]
    if len(known) < _FEWEST_FOR_A_MEAN:
        return GateResult(
            gate="calibration",
            outcome="insufficient",
            sentence=f"{len(known)} films are too few to bound a mean: it takes {_FEWEST_FOR_A_MEAN} at least.",
            numbers={"films": len(known), "needed": _FEWEST_FOR_A_MEAN},
        )
    truth, stable, candidate = np.array(known, float).T
    scores = [(probabilities - truth) ** 2 for probabilities in (stable, candidate)]
    bound = mean_upper(scores[1] - scores[0])
    return GateResult(
        gate="calibration",
        outcome="pass" if bound < margin else "fail",
        sentence=f"The Brier score is {scores[1].mean():.4f} by the candidate, {scores[0].mean():.4f} by the stable "
        f"release: at most {bound:.4f} more (margin {margin:g}).",
        numbers={
            "films": len(known),
            "margin": margin,
            "at_most": bound,
            "stable": float(scores[0].mean()),
            "candidate": float(scores[1].mean()),
            "stable_ece": expected_calibration_error(truth, stable),
            "candidate_ece": expected_calibration_error(truth, candidate),
        },
    )


def expected_calibration_error(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean distance of probability and frequency over ten bins of equal width, weighted by their films."""
    bins = np.minimum((probabilities * _BINS).astype(int), _BINS - 1)
    errors = [abs(float((truth[bins == each] - probabilities[bins == each]).sum())) for each in range(_BINS)]
    return sum(errors) / len(truth)
