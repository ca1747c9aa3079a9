"""The shortcut audit: what the models say of the same films under every shift, of what is no chest film, and what
becomes of an answer where a part of the film is covered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from pneumoserve.decision import Policy
from pneumoserve.models.occlusion import cover
from pneumoserve.names import DETECTOR, TYPER
from pneumoserve.release.data import Item
from pneumoserve.release.schema import Calibration, Metric
from training.export import Graph
from training.fit import Bools, Rows, calibrate, interval, is_refused, mean, resamples, sigmoid
from training.ood import detection_rate, make_outliers
from training.scores import Scores, auc
from training.shifts import SHIFTS

Pixels = npt.NDArray[np.uint8]
Floats32 = npt.NDArray[np.float32]

_COVERED_FILMS: Final = 12
# One film of this many is made into an outlier of each kind.
_OUTLIER_STRIDE: Final = 3


@dataclass(frozen=True)
class Covered:
    """A film and how the detector's logit falls where a patch of gray covers it, float32 [13, 13] by its place."""

    item: Item
    pixels: Pixels
    falls: Floats32


@dataclass(frozen=True)
class Audit:
    """Scores of the calibration fold as it is and under each shift, gate logits of outliers by kind, covered films.

    The scores are as the graphs give them, until you call `calibrate`.
    """

    plain: Scores
    shifts: dict[str, Scores]
    outliers: dict[str, Floats32]
    covered: list[Covered]

    def calibrate(self, detector: Calibration, typer: Calibration) -> Audit:
        """The audit with calibrated logits for scores."""
        return replace(
            self,
            plain=calibrate(self.plain, detector, typer),
            shifts={name: calibrate(shifted, detector, typer) for name, shifted in self.shifts.items()},
        )

    def metrics(self, policy: Policy) -> dict[str, Metric]:
        """Figures with 95 % intervals by bootstrap over patients; a fall is that of the same films unshifted."""
        samples = list(resamples(self.plain.patients))
        found: dict[str, Metric] = {}
        for name, shifted in self.shifts.items():
            for figure, (among, figure_of) in _shift_figures(self.plain, shifted, policy).items():
                low, high = interval(figure_of(rows[among[rows]]) for rows in samples)
                value = round(figure_of(np.flatnonzero(among)), 4)
                found[f"{name}/{figure}"] = Metric(value=value, low=low, high=high, n=int(among.sum()), set=name)
        for kind, logits in self.outliers.items():
            found[f"{kind}/caught"] = detection_rate(logits, policy, kind)
        return found


def run_audit(graphs: dict[str, Graph], plain: Scores, pixels: Pixels, seed: int) -> Audit:
    """The audit of two exported models on the calibration fold, uint8 [N, 224, 224], scored before as `plain`."""
    shifts = {name: _score_shift(graphs, plain, pixels, name) for name in SHIFTS}
    made = make_outliers(pixels[::_OUTLIER_STRIDE], np.random.default_rng([seed, 1]))
    gated = {kind: graphs[DETECTOR].outputs(films, f"scoring: {kind}")[1] for kind, films in made.items()}
    places = np.linspace(0, len(pixels) - 1, min(_COVERED_FILMS, len(pixels))).astype(int)
    covered = [Covered(plain.items[place], pixels[place], _falls(graphs[DETECTOR], pixels[place])) for place in places]
    return Audit(plain, shifts, gated, covered)


def _score_shift(graphs: dict[str, Graph], plain: Scores, pixels: Pixels, name: str) -> Scores:
    films = np.stack([SHIFTS[name](film) for film in pixels])
    detector, chest = graphs[DETECTOR].outputs(films, f"scoring: {name}")
    typer = np.full(len(films), np.nan, dtype=np.float32)
    # The typer is measured on pneumonias alone.
    (typer[plain.sick],) = graphs[TYPER].outputs(films[plain.sick], f"scoring the type: {name}")
    return Scores(plain.items, detector, typer, chest)


def _shift_figures(plain: Scores, shifted: Scores, policy: Policy) -> dict[str, tuple[Bools, Callable[[Rows], float]]]:
    sick, kind = plain.sick, plain.bacterial
    called = sigmoid(shifted.detector) >= policy.detector_threshold
    refused = is_refused(shifted.chest, policy)
    everyone = np.ones_like(sick)
    return {
        "detector_auc": (everyone, lambda rows: auc(sick[rows], shifted.detector[rows])),
        "detector_auc_fall": (
            everyone,
            lambda rows: auc(sick[rows], plain.detector[rows]) - auc(sick[rows], shifted.detector[rows]),
        ),
        "detector_sensitivity": (sick, lambda rows: mean(called[rows])),
        "detector_specificity": (~sick, lambda rows: mean(~called[rows])),
        "typer_auc_fall": (
            sick,
            lambda rows: auc(kind[rows], plain.typer[rows]) - auc(kind[rows], shifted.typer[rows]),
        ),
        "not_a_chest_film": (everyone, lambda rows: mean(refused[rows])),
    }


def _falls(graph: Graph, film: Pixels) -> Floats32:
    """How far the logit falls for each place of a gray patch."""
    covered = cover(film)
    variants = np.concatenate([film[None], covered.reshape(-1, *film.shape)])
    logits = graph.outputs(variants, "covering films")[0]
    falls: Floats32 = (logits[0] - logits[1:]).reshape(covered.shape[:2])
    return falls
