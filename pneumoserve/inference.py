"""From a prepared film to what a release says of it: which models run, what is decided. Front and replay share it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from pneumoserve.decision import Decision, Policy, Scores, decide, is_excluded, needs_type
from pneumoserve.imaging import PreparedImage
from pneumoserve.models.engine import Pixels
from pneumoserve.models.scorer import Score
from pneumoserve.names import DECISION, DETECTOR, TYPER
from pneumoserve.records import ImageDetail, ModelUse
from pneumoserve.release import Release
from pneumoserve.tracing import span

__all__ = ["Backend", "Inference", "decide_again", "infer", "scores_of"]


class Backend(Protocol):
    """Whatever runs a release's models."""

    async def score(self, model: str, pixels: Pixels) -> Score:
        """The score of one film; `pixels` is uint8 of shape [224, 224]."""
        ...


@dataclass(frozen=True)
class Inference:
    """What a release says of one film.

    `models` has one entry for each model that ran, in their order. `decision` is None where only scores were asked for.
    """

    models: tuple[ModelUse, ...]
    decision: Decision | None


async def infer(release: Release, backend: Backend, model: str, film: PreparedImage) -> Inference:
    """Run the models that `model` needs on a film; the model `pneumonia` decides too.

    The typer counts only where the detector finds pneumonia: else it is not asked, or what it said in the detector's
    run is left out. No model runs on a film that the policy excludes.
    """
    if model != DECISION:
        return Inference((_use(release, model, await backend.score(model, film.pixels)),), None)
    policy = release.manifest.policy
    if is_excluded(film.facts):
        return Inference((), _decide(policy, film, Scores()))
    detector = await backend.score(DETECTOR, film.pixels)
    uses = [_use(release, DETECTOR, detector)]
    if needs_type(policy, scores_of(uses)):
        typer = detector.typer or await backend.score(TYPER, film.pixels)
        uses.append(_use(release, TYPER, typer))
    return Inference(tuple(uses), _decide(policy, film, scores_of(uses)))


def _decide(policy: Policy, film: PreparedImage, scores: Scores) -> Decision:
    with span("decision") as traced:
        decision = decide(policy, film.facts, film.format == "dicom", scores)
        traced.set(finding=decision.finding or "none", reasons=list(decision.reasons))
    return decision


def decide_again(policy: Policy, image: ImageDetail, uses: Iterable[ModelUse]) -> Decision:
    """The decision that follows from what is on record of an image, as if the release had not been stopped.

    Raises:
        ValueError: a score is missing.
    """
    return decide(policy, image.facts, image.format == "dicom", scores_of(uses))


def scores_of(uses: Iterable[ModelUse]) -> Scores:
    """The scores of the models that ran, as the decision takes them; None for a model that did not."""
    by_name = {use.name: use for use in uses}
    detector, typer = by_name.get(DETECTOR), by_name.get(TYPER)
    return Scores(
        pneumonia=None if detector is None else detector.probability,
        bacterial=None if typer is None else typer.probability,
        chest=None if detector is None else detector.chest_probability,
    )


def _use(release: Release, model: str, score: Score) -> ModelUse:
    facts = next(facts for facts in release.manifest.models if facts.name == model)
    return ModelUse(
        name=model,
        version=facts.version,
        weights=facts.weights,
        probability=score.probability,
        logit=score.logit,
        chest_probability=score.chest_probability,
        profile=score.profile,
    )
