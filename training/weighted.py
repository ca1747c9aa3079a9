"""Figures of films that stand for several each: labels of the archive, weighted by their probability of being read.

Rates count weighted films. Their limits are those of metrics (`monitoring.intervals`), with a patient's films as one
unit: a bootstrap would have none where no film of a large weight was found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from pneumoserve.monitoring.intervals import Share, limit_share
from pneumoserve.release.schema import Metric
from training.fit import Bools, Floats, Verdicts, interval, resamples, sigmoid
from training.scores import Scores

_AUC: Final = "detector_auc"


def measure_weighted(films: Verdicts, name: str, largest: float) -> dict[str, Metric]:
    """Figures of films that were judged, each with a 95 % interval by patient; `n` counts films.

    `largest` is the largest weight that a study may have. What is said of types is among pneumonias whose type is
    known.
    """
    scores = films.scores
    sick, known = scores.sick, scores.typed
    stated = ~films.unsure & ~films.refused
    to_human, called = films.unsure | films.refused, films.called
    everyone = np.ones_like(sick)
    rates: dict[str, tuple[Bools, Bools]] = {
        "finding_referred_among_pneumonias": (sick, to_human),
        "finding_referred_among_normals": (~sick, to_human),
        "detector_sensitivity": (sick, called),
        "detector_specificity": (~sick, ~called),
        "not_a_chest_film": (everyone, films.refused),
        "uncertain_finding": (everyone, films.unsure & ~films.refused),
        "referred": (everyone, films.referred),
        "referred_among_pneumonias": (sick, films.referred),
        "referred_among_normals": (~sick, films.referred),
        "confident_normal_among_pneumonias": (sick, ~called & stated),
        "confident_pneumonia_among_normals": (~sick, called & stated),
        "typer_accuracy_where_stated": (known & films.asked & ~films.untyped, films.right),
    }
    found = {f"{name}/{_AUC}": _measure_auc(scores, name)}
    return found | _measure_rates(scores, rates, name, largest)


def _measure_rates(
    scores: Scores, rates: Mapping[str, tuple[Bools, Bools]], name: str, largest: float
) -> dict[str, Metric]:
    found = {}
    for figure, (among, event) in rates.items():
        if among.any():
            chosen = (event[among], scores.patients[among], scores.weights[among])
            limits = limit_share(Share.of_films(*chosen, largest))
            values = (round(each, 4) for each in (limits.value, limits.low, limits.high))
            found[f"{name}/{figure}"] = Metric(
                **dict(zip(("value", "low", "high"), values, strict=True)), n=int(among.sum()), set=name
            )
    return found


def _measure_auc(scores: Scores, name: str) -> Metric:
    predicted, sick, weights = sigmoid(scores.detector), scores.sick, scores.weights
    drawn = (weighted_auc(sick[rows], predicted[rows], weights[rows]) for rows in resamples(scores.patients))
    low, high = interval(drawn)
    value = round(weighted_auc(sick, predicted, weights), 4)
    return Metric(value=value, low=low, high=high, n=len(sick), set=name)


def weighted_auc(labels: Bools, scores: Floats, weights: Floats) -> float:
    """Area under the ROC curve of films that stand for several each; NaN where only one class is there."""
    if labels.all() or not labels.any():
        return float("nan")
    _, place = np.unique(scores, return_inverse=True)
    sick, well = (np.bincount(place, weights * chosen) for chosen in (labels, ~labels))
    below = np.cumsum(well) - well / 2
    return float((sick * below).sum() / (sick.sum() * well.sum()))


def trace_weighted_roc(labels: Bools, scores: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """False and true rates from the highest score down, both from 0 to 1, of films that stand for several each."""
    _, place = np.unique(-scores, return_inverse=True)
    well, sick = (np.cumsum(np.bincount(place, weights * chosen)) for chosen in (~labels, labels))
    return np.append(0.0, well / well[-1]), np.append(0.0, sick / sick[-1])
