"""From a prepared film to its verdict: which models are asked, what is decided. Front and replay run this alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from pneumoserve.archive.record import ModelUse
from pneumoserve.decision import Decision, Scores, decide, excluded, needs_type
from pneumoserve.image import PreparedImage
from pneumoserve.models.engine import Pixels
from pneumoserve.models.scorer import Score
from pneumoserve.names import DECISION, DETECTOR, TYPER
from pneumoserve.release import Release

Verdict = tuple[tuple[ModelUse, ...], Decision | None]


class Backend(Protocol):
    """Whatever runs a release's models."""

    async def score(self, model: str, pixels: Pixels) -> Score:
        """The score of one film; `pixels` is uint8 of shape [224, 224]."""
        ...


async def judge(release: Release, backend: Backend, model: str, film: PreparedImage) -> Verdict:
    """What the models said of a film, in the order they were asked; and, for the model `pneumonia`, the decision."""
    if model != DECISION:
        return (_use(release, model, await backend.score(model, film.pixels)),), None
    policy = release.manifest.policy
    is_dicom = film.format == "dicom"
    if excluded(film.facts):
        return (), decide(policy, film.facts, is_dicom, Scores())
    detector = await backend.score(DETECTOR, film.pixels)
    uses = [_use(release, DETECTOR, detector)]
    if needs_type(policy, scores_of(uses)):
        typer = await backend.score(TYPER, film.pixels)
        uses.append(_use(release, TYPER, typer))
    return tuple(uses), decide(policy, film.facts, is_dicom, scores_of(uses))


def scores_of(uses: Iterable[ModelUse]) -> Scores:
    """What the models that were asked said, as the decision takes it."""
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
