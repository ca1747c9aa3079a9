"""From calibrated scores and facts to an answer: the only place where a finding is decided.

`decide` is a pure function of the policy in the release, the facts of the film and the models' calibrated
probabilities, so that any recorded answer can be derived again from its record.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pneumoserve.imaging import Facts

__all__ = [
    "LATERAL_VIEWS",
    "STOPPED",
    "Band",
    "Decision",
    "Finding",
    "PneumoniaType",
    "Policy",
    "Population",
    "Reason",
    "Scores",
    "TypeEvidence",
    "at_prevalence",
    "complete",
    "decide",
    "is_excluded",
    "logit_of",
    "needs_type",
    "of_study",
]  # fmt: skip

Finding = Literal["normal", "pneumonia"]
PneumoniaType = Literal["bacterial", "viral"]
Reason = Literal[
    "uncertain_finding",
    "uncertain_type",
    "not_a_chest_film",
    "outside_population",
    "lateral_view",
    "release_stopped",
]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]

_CHEST: Final = {"CHEST", "THORAX", "LUNG", "RIB", "RIBS", "STERNUM", "HEART"}
# A logit of 0 or 1 would be infinite.
_LEAST_PROBABILITY: Final = 1e-6
LATERAL_VIEWS: Final = {"LL", "RL", "LATERAL", "LAT", "RLD", "LLD"}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Band(_Frozen):
    """Probabilities `low <= p < high` in which a human decides."""

    low: Probability
    high: Probability

    @model_validator(mode="after")
    def _check_order(self) -> Band:
        if self.low > self.high:
            raise ValueError("a referral band's low must not be above its high")
        return self

    def holds(self, probability: float) -> bool:
        """Whether `probability` lies in the band."""
        return self.low <= probability < self.high


class Population(_Frozen):
    """The patients the models were trained on; `min_age_years <= age < below_age_years`."""

    min_age_years: float
    below_age_years: float
    # A DICOM object can state the age; one that does not is a case for a human unless the policy says otherwise.
    unknown_dicom_age: Literal["refer", "accept"]


class TypeEvidence(_Frozen):
    """How often stated types were wrong on pneumonias of patients that never trained; each patient counts once."""

    target: Probability = Field(description="what `bound` may be at most")
    rate: Probability | None = Field(description="share of the stated types that were wrong; null: none is stated")
    bound: Probability | None = Field(description="one-sided 95 % upper bound of `rate`")
    asked: int = Field(description="images whose type was asked for")
    images: int = Field(description="those of them whose type is stated")
    patients: int = Field(description="patients whose type is stated")


class Policy(_Frozen):
    """Thresholds and referral bands of a release, and the reasons for them in words."""

    detector_threshold: Probability
    detector_band: Band
    typer_threshold: Probability
    typer_band: Band
    chest_threshold: Probability | None = Field(
        default=None, description="films less likely an upright chest film are referred; null: the release has no gate"
    )
    type_evidence: TypeEvidence | None = Field(
        default=None, description="what the typer's band rests on; null: the release states no error rate of types"
    )
    population: Population
    assumed_prevalence: Probability
    why: str


class Decision(_Frozen):
    """The answer for one image.

    `confidence` is the calibrated probability of `leaning`. Both are None where no detector ran on a chest X-ray, and
    while the release is stopped.
    """

    finding: Finding | None
    pneumonia_type: PneumoniaType | None
    confidence: Probability | None
    referred: bool
    reasons: tuple[Reason, ...]
    leaning: Finding | None = Field(
        default=None, description="the finding; where none is stated, the likelier one (1/2 or more)"
    )
    type_probability: Probability | None = Field(
        default=None, description="calibrated probability of the stated type; null: none is stated"
    )


# The answer in the place of any other while a release is stopped: what it would have said is on record in its scores.
STOPPED: Final = Decision(
    finding=None, pneumonia_type=None, confidence=None, referred=True, reasons=("release_stopped",)
)


@dataclass(frozen=True)
class Scores:
    """What the models say of a film, each a calibrated probability; None where a model, or its gate, did not run.

    `chest`: it is an upright chest film; `pneumonia`; `bacterial`: of pneumonias.
    """

    pneumonia: float | None = None
    bacterial: float | None = None
    chest: float | None = None


def logit_of(probability: float) -> float:
    """The logit of a probability, which is taken to lie between 1e-6 and 1 - 1e-6."""
    inside = min(max(probability, _LEAST_PROBABILITY), 1 - _LEAST_PROBABILITY)
    return math.log(inside / (1 - inside))


def at_prevalence(probability: float, assumed: float, prevalence: float) -> float:
    """What a probability of pneumonia, calibrated where a share `assumed` is sick, is where `prevalence` are.

    By Bayes' theorem on odds: those of the patient change as those of the population do. It holds as far as the sick
    and the well look alike in both places.

    Raises:
        ValueError: a prevalence is not between 0 and 1.
    """
    if not 0 < assumed < 1 or not 0 < prevalence < 1:
        raise ValueError("a prevalence lies between 0 and 1")
    sick = probability * prevalence / assumed
    return sick / (sick + (1 - probability) * (1 - prevalence) / (1 - assumed))


def is_excluded(facts: Facts) -> bool:
    """Whether the file itself says that it shows no chest, so that no model is asked."""
    return facts.body_part is not None and facts.body_part not in _CHEST


def needs_type(policy: Policy, scores: Scores) -> bool:
    """Whether the typer is to be asked, given what the detector says.

    Raises:
        ValueError: where a probability that this needs is missing.
    """
    if scores.pneumonia is None:
        raise ValueError("the detector's probability is missing")
    return (
        not _is_no_chest(policy, scores)
        and scores.pneumonia >= policy.detector_threshold
        and not policy.detector_band.holds(scores.pneumonia)
    )


def decide(policy: Policy, facts: Facts, is_dicom: bool, scores: Scores) -> Decision:
    """The answer, from what the file says and what the models say.

    Raises:
        ValueError: where a probability that the decision needs is missing.
    """
    if is_excluded(facts) or _is_no_chest(policy, scores):
        return Decision(
            finding=None, pneumonia_type=None, confidence=None, referred=True, reasons=("not_a_chest_film",)
        )
    if scores.pneumonia is None:
        raise ValueError("the detector's probability is missing")
    pneumonia = scores.pneumonia
    unfit = _unfit(policy.population, facts, is_dicom)
    uncertain: tuple[Reason, ...] = ("uncertain_finding",) if policy.detector_band.holds(pneumonia) else ()
    if unfit or uncertain:
        return Decision(
            finding=None,
            pneumonia_type=None,
            confidence=max(pneumonia, 1.0 - pneumonia),
            referred=True,
            reasons=unfit + uncertain,
            leaning=_lean(pneumonia),
        )
    if not needs_type(policy, scores):
        return Decision(
            finding="normal",
            pneumonia_type=None,
            confidence=1.0 - pneumonia,
            referred=False,
            reasons=(),
            leaning="normal",
        )
    if scores.bacterial is None:
        raise ValueError("the typer's probability is missing")
    return _decide_type(policy, pneumonia, scores.bacterial)


def of_study(decisions: Sequence[Decision]) -> Decision:
    """The answer for several films of one study: the most serious one, referred if any is, for all reasons.

    Pneumonia is more serious than a film that a human must look at, and that more than normal. Of equally serious films
    the one likeliest to show pneumonia counts.

    Raises:
        ValueError: there is no decision.
    """
    gravest = max(decisions, key=_gravity)
    given = {reason for decision in decisions for reason in decision.reasons}
    return Decision(
        finding=gravest.finding,
        pneumonia_type=gravest.pneumonia_type,
        confidence=gravest.confidence,
        referred=any(decision.referred for decision in decisions),
        reasons=tuple(reason for reason in get_args(Reason) if reason in given),
        leaning=gravest.leaning,
        type_probability=gravest.type_probability,
    )


def complete(decision: Decision, scores: Scores) -> Decision:
    """A decision with what one from before version 5 of records does not state, and the review database does not keep.

    That is what it leans to, and its type's own probability where the typer's is known.
    """
    if decision.confidence is None or decision.leaning is not None or scores.pneumonia is None:
        return decision
    bacterial = scores.bacterial
    if decision.pneumonia_type == "viral" and bacterial is not None:
        bacterial = 1.0 - bacterial
    return decision.model_copy(
        update={
            "leaning": decision.finding or _lean(scores.pneumonia),
            "type_probability": bacterial if decision.pneumonia_type else None,
        }
    )


def _lean(pneumonia: float) -> Finding:
    return "pneumonia" if pneumonia >= 1.0 - pneumonia else "normal"


def _is_no_chest(policy: Policy, scores: Scores) -> bool:
    """Whether the gate says that the film is no upright chest film.

    Raises:
        ValueError: the release has a gate, and its probability is missing though the detector ran.
    """
    if policy.chest_threshold is None or scores.pneumonia is None:
        return False
    if scores.chest is None:
        raise ValueError("the gate's probability is missing")
    return scores.chest < policy.chest_threshold


def _gravity(decision: Decision) -> tuple[int, float]:
    rank = {"normal": 0, None: 1, "pneumonia": 2}[decision.finding]
    if decision.confidence is None:
        return rank, 0.0
    return rank, decision.confidence if decision.leaning == "pneumonia" else 1.0 - decision.confidence


def _decide_type(policy: Policy, pneumonia: float, bacterial: float) -> Decision:
    unsure = policy.typer_band.holds(bacterial)
    kind: PneumoniaType = "bacterial" if bacterial >= policy.typer_threshold else "viral"
    return Decision(
        finding="pneumonia",
        pneumonia_type=None if unsure else kind,
        confidence=pneumonia,
        referred=unsure,
        reasons=("uncertain_type",) if unsure else (),
        leaning="pneumonia",
        type_probability=None if unsure else bacterial if kind == "bacterial" else 1.0 - bacterial,
    )


def _unfit(population: Population, facts: Facts, is_dicom: bool) -> tuple[Reason, ...]:
    reasons: list[Reason] = []
    if facts.view_position in LATERAL_VIEWS:
        reasons.append("lateral_view")
    age = facts.age_years
    unknown = age is None and is_dicom and population.unknown_dicom_age == "refer"
    outside = age is not None and not population.min_age_years <= age < population.below_age_years
    if unknown or outside:
        reasons.append("outside_population")
    return tuple(reasons)
