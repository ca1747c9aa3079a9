"""What a candidate has to show before it gets any traffic: both releases judge the same films, whose truth is known."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pneumoserve.decision import Decision, Finding
from pneumoserve.image import PreparedImage
from pneumoserve.judging import judge, scores_of
from pneumoserve.models.inprocess import InProcess, loaded
from pneumoserve.names import DECISION
from pneumoserve.release import Release
from pneumoserve.rollout.evidence import Evidence
from pneumoserve.rollout.statistics import ONE_SIDED, mean_upper, pairs_needed, tango_p, tango_upper
from pneumoserve.rollout.verdict import Outcome, Verdict

_REPEATED: Final = 8
_BINS: Final = 10
# The bound of a mean takes so many differences to be near enough to normal.
_FEWEST_FOR_A_MEAN: Final = 30


class GateSettings(BaseModel):
    """How much worse than the stable release a candidate must be shown not to be, one-sided at 5 %."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    sensitivity: float = Field(default=0.03, gt=0, lt=1, description="margin: loss of sensitivity")
    specificity: float = Field(default=0.05, gt=0, lt=1, description="margin: loss of specificity")
    referrals: float = Field(default=0.05, gt=0, lt=1, description="margin: added share of referred films")
    brier: float = Field(default=0.02, gt=0, lt=1, description="margin: added Brier score")


@dataclass(frozen=True)
class Judged:
    """One film as a release sees it: the decision, and the detector's probability where it was asked."""

    decision: Decision
    probability: float | None
    logits: tuple[float, ...]

    @property
    def cleared(self) -> bool:
        """Whether it was called normal with nobody asked to look."""
        return self.decision.finding == "normal" and not self.decision.referred

    @property
    def alarmed(self) -> bool:
        """Whether it was called pneumonia with nobody asked to look."""
        return self.decision.finding == "pneumonia" and not self.decision.referred


@dataclass(frozen=True)
class Pair:
    """One film, its truth, and how each release judges it."""

    finding: Finding
    stable: Judged
    candidate: Judged


def judge_candidate(
    stable: Release,
    candidate: Release,
    evidence: Evidence,
    settings: GateSettings,
    progress: Callable[[], None] = lambda: None,
) -> tuple[Verdict, ...]:
    """All gates that films decide; `progress` is called after each film. Both releases are verified already.

    Raises:
        EvidenceError: a film of the set is not what it was.
        StoreError: the store does not answer.
        ModuleNotFoundError: there is no ONNX Runtime.
    """
    with _judges(stable) as by_stable, _judges(candidate) as by_candidate:
        pairs = []
        for film, prepared in evidence.films():
            pairs.append(Pair(film.finding, by_stable(prepared), by_candidate(prepared)))
            progress()
        repeated = [by_candidate(prepared) for _, prepared in islice(evidence.films(), _REPEATED)]
    return (_determinism(pairs, repeated), *judge_pairs(pairs, settings))


def judge_pairs(pairs: Sequence[Pair], settings: GateSettings) -> tuple[Verdict, ...]:
    """The gates on films that both releases have judged."""
    sick = [pair for pair in pairs if pair.finding == "pneumonia"]
    well = [pair for pair in pairs if pair.finding == "normal"]
    return (
        _no_worse("sensitivity", "films of pneumonia are called normal with nobody asked to look",
                  [(pair.stable.cleared, pair.candidate.cleared) for pair in sick], settings.sensitivity),
        _no_worse("specificity", "normal films are called pneumonia with nobody asked to look",
                  [(pair.stable.alarmed, pair.candidate.alarmed) for pair in well], settings.specificity),
        _no_worse("referrals", "films are referred",
                  [(pair.stable.decision.referred, pair.candidate.decision.referred) for pair in pairs],
                  settings.referrals),
        _calibration(pairs, settings.brier),
    )  # fmt: skip


@contextlib.contextmanager
def _judges(release: Release) -> Iterator[Callable[[PreparedImage], Judged]]:
    with loaded(release) as scorers, ThreadPoolExecutor(1, thread_name_prefix="gate") as thread:
        backend = InProcess(scorers, thread)

        def judged(film: PreparedImage) -> Judged:
            uses, decision = asyncio.run(judge(release, backend, DECISION, film))
            if decision is None:
                raise AssertionError("the model `pneumonia` always decides")
            return Judged(decision, scores_of(uses).pneumonia, tuple(use.logit for use in uses))

        yield judged


def _determinism(pairs: Sequence[Pair], repeated: Sequence[Judged]) -> Verdict:
    differing = sum(first.candidate != again for first, again in zip(pairs, repeated, strict=False))
    return Verdict(
        gate="determinism",
        outcome="fail" if differing else "pass",
        sentence=f"{differing} of {len(repeated)} films were answered otherwise the second time.",
        numbers={"films": len(repeated), "differing": differing},
    )


def _no_worse(gate: str, what: str, bad: Sequence[tuple[bool, bool]], margin: float) -> Verdict:
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
        return Verdict(gate=gate, outcome="insufficient", sentence=sentence, numbers=numbers)
    bound, p = tango_upper(lost, gained, pairs), tango_p(lost, gained, pairs, margin)
    outcome: Outcome = "pass" if p <= ONE_SIDED else "fail"
    return Verdict(
        gate=gate,
        outcome=outcome,
        sentence=f"Of {pairs}, {numbers['candidate']} {what} by the candidate, {numbers['stable']} by the stable "
        f"release: at most {bound:.3f} more (margin {margin:g}, p = {p:.2g}).",
        numbers={**numbers, "at_most": bound, "p": p},
    )


def _calibration(pairs: Sequence[Pair], margin: float) -> Verdict:
    """The paired difference of Brier scores (Brier GW. Monthly Weather Review 1950; 78: 1-3), a proper score."""
    known = [
        (float(pair.finding == "pneumonia"), pair.stable.probability, pair.candidate.probability)
        for pair in pairs
        if pair.stable.probability is not None and pair.candidate.probability is not None
    ]
    if len(known) < _FEWEST_FOR_A_MEAN:
        return Verdict(
            gate="calibration",
            outcome="insufficient",
            sentence=f"{len(known)} films are too few to bound a mean: it takes {_FEWEST_FOR_A_MEAN} at least.",
            numbers={"films": len(known), "needed": _FEWEST_FOR_A_MEAN},
        )
    truth, stable, candidate = np.array(known, float).T
    scores = [(probabilities - truth) ** 2 for probabilities in (stable, candidate)]
    bound = mean_upper(scores[1] - scores[0])
    return Verdict(
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
