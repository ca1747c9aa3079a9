"""Calibration, and figures with intervals, from films that never trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit
from torch import Tensor

from pneumoserve.decision import Band, Policy
from pneumoserve.release.schema import Calibration, Metric
from training.scores import Scores, auc

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

_REPLICATES: Final = 1000
_BINS: Final = 10


def fit_platt(scores: npt.NDArray[Any], labels: Bools, *, balanced: bool, counts: Floats | None = None) -> Calibration:
    """Platt scaling of logits [N] to labels [N] by maximum likelihood; `balanced` weighs both classes the same.

    `counts` [N]: for how many films each one stands; None: all count alike.
    """
    values = torch.from_numpy(scores.astype(np.float64))[:, None]
    # A whisper of a prior, so that perfectly separated films of a tiny fold do not run to infinity.
    stands_for = None if counts is None else torch.from_numpy(counts)
    weights, bias = fit_logistic(values, torch.from_numpy(labels), balanced=balanced, prior=1e-4, counts=stands_for)
    return Calibration(slope=round(float(weights[0]), 6), intercept=round(bias, 6))


def fit_logistic(
    values: Tensor, labels: Tensor, *, balanced: bool, prior: float, counts: Tensor | None = None
) -> tuple[Tensor, float]:
    """Weights [D] and bias of a logistic regression of labels [N] on float64 values [N, D], with a quadratic prior."""
    wanted = labels.double()
    count = torch.ones_like(wanted) if counts is None else counts / counts.mean()
    share = float((count * wanted).mean())
    balance = count * (torch.where(wanted > 0, 0.5 / share, 0.5 / (1 - share)) if balanced else 1.0)
    parameters = torch.zeros(values.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        predicted = values @ parameters[:-1] + parameters[-1]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(predicted, wanted, balance)
        loss = loss + prior * parameters.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    found = parameters.detach()
    return found[:-1], float(found[-1])


def calibrate(scores: Scores, detector: Calibration, typer: Calibration) -> Scores:
    """Scores whose logits are calibrated ones, so that those of several runs are of one scale."""
    return Scores(scores.items, _scale(detector, scores.detector), _scale(typer, scores.typer), scores.chest)


def _scale(calibration: Calibration, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return (calibration.slope * logits.astype(np.float64) + calibration.intercept).astype(np.float32)


def sigmoid(values: npt.NDArray[Any]) -> Floats:
    """1 / (1 + exp(-x)) in float64."""
    probabilities: Floats = expit(values.astype(np.float64))
    return probabilities


@dataclass(frozen=True)
class Verdicts:
    """What a policy makes of films, each array of shape [N]; `scores` are their calibrated logits (`calibrate`).

    `called`: at or above the threshold; `unsure`: inside the detector's band; `refused`: taken for no chest film;
    `asked`: a pneumonia whose type is asked for; `untyped`: inside the typer's band; `right`: the typer names the kind
    of the label; `referred`: to a human, for whichever reason.
    """

    scores: Scores
    called: Bools
    unsure: Bools
    refused: Bools
    asked: Bools
    untyped: Bools
    right: Bools
    referred: Bools

    @classmethod
    def concatenate(cls, parts: Sequence[Verdicts]) -> Verdicts:
        """Those of several sets of films as one; each may be by another policy."""
        arrays = [field.name for field in fields(cls) if field.name != "scores"]
        return cls(
            Scores.concatenate([part.scores for part in parts]),
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays},
        )


def judge(scores: Scores, policy: Policy) -> Verdicts:
    """What a policy makes of films, by calibrated logits (`calibrate`)."""
    pneumonia, bacterial = sigmoid(scores.detector), sigmoid(scores.typer)
    return Verdicts(
        scores,
        called=pneumonia >= policy.detector_threshold,
        unsure=_within(policy.detector_band, pneumonia),
        refused=is_refused(scores.chest, policy),
        asked=is_typed(scores, policy),
        untyped=_within(policy.typer_band, bacterial),
        right=(bacterial >= policy.typer_threshold) == scores.bacterial,
        referred=is_referred(scores, policy),
    )


def measure(scores: Scores, name: str, policy: Policy) -> dict[str, Metric]:
    """Figures of one set of films, by calibrated logits (`calibrate`), under a policy; see `measure_verdicts`."""
    return measure_verdicts(judge(scores, policy), name)


def measure_verdicts(films: Verdicts, name: str) -> dict[str, Metric]:
    """Figures of films that were judged.

    Each has a 95 % interval by bootstrap over patients (Efron 1979, percentiles).

    `n` counts the films a figure is about, the pneumonias for sensitivity and the typer. A figure that the set has no
    films for, such as the sensitivity among normals alone, is left out.
    """
    scores = films.scores
    pneumonia, bacterial = sigmoid(scores.detector), sigmoid(scores.typer)
    sick, kind = scores.sick, scores.bacterial
    called, unsure, refused, referred = films.called, films.unsure, films.refused, films.referred
    typed, untyped, right = films.asked, films.untyped, films.right
    stated = ~unsure & ~refused
    everyone = np.ones_like(sick)
    # Each figure with the films it is about; it is given rows of such films alone.
    figures: dict[str, tuple[Bools, Callable[[Rows], float]]] = {
        "detector_auc": (everyone, lambda rows: auc(sick[rows], pneumonia[rows])),
        "detector_sensitivity": (sick, lambda rows: mean(called[rows])),
        "detector_specificity": (~sick, lambda rows: mean(~called[rows])),
        "detector_accuracy": (everyone, lambda rows: mean((called == sick)[rows])),
        "detector_ece_balanced": (everyone, lambda rows: ece(pneumonia[rows], sick[rows], balanced=True)),
        "detector_brier_balanced": (everyone, lambda rows: _brier(pneumonia[rows], sick[rows], balanced=True)),
        "not_a_chest_film": (everyone, lambda rows: mean(refused[rows])),
        "uncertain_finding": (everyone, lambda rows: mean((unsure & ~refused)[rows])),
        "referred": (everyone, lambda rows: mean(referred[rows])),
        "referred_among_pneumonias": (sick, lambda rows: mean(referred[rows])),
        "referred_among_normals": (~sick, lambda rows: mean(referred[rows])),
        "confident_normal_among_pneumonias": (sick, lambda rows: mean((~called & stated)[rows])),
        "confident_pneumonia_among_normals": (~sick, lambda rows: mean((called & stated)[rows])),
        "typer_auc": (sick, lambda rows: auc(kind[rows], bacterial[rows])),
        "typer_ece": (sick, lambda rows: ece(bacterial[rows], kind[rows], balanced=False)),
        "typer_brier": (sick, lambda rows: _brier(bacterial[rows], kind[rows], balanced=False)),
        "typer_accuracy": (sick, lambda rows: mean(right[rows])),
        "uncertain_type": (sick, lambda rows: mean((typed & untyped)[rows])),
        "typer_accuracy_where_stated": (typed & ~untyped, lambda rows: mean(right[rows])),
    }
    return _estimate(figures, scores, name)


def measure_findings(films: Verdicts, name: str) -> dict[str, Metric]:
    """How many films go to a human for their finding, or for being no chest film, by label; the type plays no part."""
    to_human = films.unsure | films.refused
    sick = films.scores.sick
    figures: dict[str, tuple[Bools, Callable[[Rows], float]]] = {
        "finding_referred_among_pneumonias": (sick, lambda rows: mean(to_human[rows])),
        "finding_referred_among_normals": (~sick, lambda rows: mean(to_human[rows])),
    }
    return _estimate(figures, films.scores, name)


def _estimate(
    figures: dict[str, tuple[Bools, Callable[[Rows], float]]], scores: Scores, name: str
) -> dict[str, Metric]:
    samples = list(resamples(scores.patients))
    metrics = {}
    for figure_name, (among, figure) in figures.items():
        value = figure(np.flatnonzero(among))
        if not np.isnan(value):
            low, high = interval(figure(rows[among[rows]]) for rows in samples)
            metrics[f"{name}/{figure_name}"] = Metric(
                value=round(value, 4), low=low, high=high, n=int(among.sum()), set=name
            )
    return metrics


def is_typed(scores: Scores, policy: Policy) -> Bools:
    """Which pneumonias, by calibrated logits, have their type asked for: those that are called so confidently."""
    pneumonia = sigmoid(scores.detector)
    stated = ~_within(policy.detector_band, pneumonia) & ~is_refused(scores.chest, policy)
    return scores.sick & stated & (pneumonia >= policy.detector_threshold)


def is_refused(chest: npt.NDArray[np.float32], policy: Policy) -> Bools:
    """Which films, by the gate's logits [N], are taken for no chest film; none by a release without a gate."""
    return sigmoid(chest) < (policy.chest_threshold or 0.0)


def is_referred(scores: Scores, policy: Policy) -> Bools:
    """Which films, by calibrated logits, go to a human: for their finding, their type, or for being no chest film."""
    pneumonia, bacterial = sigmoid(scores.detector), sigmoid(scores.typer)
    unsure = _within(policy.detector_band, pneumonia)
    untyped = (pneumonia >= policy.detector_threshold) & _within(policy.typer_band, bacterial)
    return unsure | untyped | is_refused(scores.chest, policy)


def _within(band: Band, probabilities: Floats) -> Bools:
    return (probabilities >= band.low) & (probabilities < band.high)


def interval(drawn: Iterable[float]) -> tuple[float, float]:
    """The middle 95 % of replicates of a figure."""
    low, high = np.percentile([value for value in drawn if not np.isnan(value)], [2.5, 97.5])
    return round(float(low), 4), round(float(high), 4)


def resamples(patients: npt.NDArray[np.str_]) -> Iterator[Rows]:
    """Rows of replicates in which whole patients are drawn with replacement."""
    _, owner = np.unique(patients, return_inverse=True)
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], np.arange(owner.max() + 2))
    generator = np.random.default_rng(0)
    for _ in range(_REPLICATES):
        drawn = generator.integers(0, owner.max() + 1, owner.max() + 1)
        yield np.concatenate([order[starts[patient] : starts[patient + 1]] for patient in drawn])


def mean(values: Bools) -> float:
    """The share of values that are true; NaN where there is none."""
    return float(values.mean()) if len(values) else float("nan")


def weigh_classes(labels: Bools, counts: Floats | None = None) -> Floats:
    """Weights by which both classes count the same; `counts` says for how many films each one stands."""
    share = float(labels.mean() if counts is None else np.average(labels, weights=counts))
    weights = np.where(labels, 0.5 / share, 0.5 / (1 - share))
    return weights if counts is None else weights * counts / counts.mean()


def _weights(labels: Bools, *, balanced: bool, counts: Floats | None = None) -> Floats:
    """Weights that add up to 1; balanced ones give both classes the same."""
    return (weigh_classes(labels, counts) if balanced else np.ones(len(labels))) / len(labels)


def ece(predicted: Floats, labels: Bools, *, balanced: bool, counts: Floats | None = None) -> float:
    """Expected calibration error (Naeini et al. 2015), 10 equal bins; NaN where only one class is there.

    `counts` as `weigh_classes` takes them, of balanced classes.
    """
    if labels.all() or not labels.any():
        return float("nan")
    gaps = _weights(labels, balanced=balanced, counts=counts) * (labels - predicted)
    bins = np.minimum((predicted * _BINS).astype(int), _BINS - 1)
    return float(sum(abs(float(gaps[bins == number].sum())) for number in range(_BINS)))


def _brier(predicted: Floats, labels: Bools, *, balanced: bool) -> float:
    """Mean squared error of probabilities (Brier 1950); NaN where only one class is there."""
    if labels.all() or not labels.any():
        return float("nan")
    return float((_weights(labels, balanced=balanced) * (labels - predicted) ** 2).sum())


def ece_of_perfection(predicted: Floats, labels: Bools, *, balanced: bool) -> float:
    """The ECE that a perfectly calibrated model would show on as many films: the mean over labels drawn from itself.

    NaN where no draw has both classes.
    """
    share = float(labels.mean())
    # Balanced probabilities assume that half of the films are sick; in this set another share is.
    prior = share / (1 - share) if balanced else 1.0
    odds = predicted / np.clip(1 - predicted, 1e-12, None) * prior
    generator = np.random.default_rng(0)
    draws = [
        ece(predicted, generator.random(len(predicted)) < odds / (1 + odds), balanced=balanced) for _ in range(200)
    ]
    return float(np.nanmean(draws)) if np.isfinite(draws).any() else float("nan")


def slope_and_intercept(predicted: Floats, labels: Bools, *, balanced: bool) -> tuple[float, float]:
    """Cox's calibration slope and intercept (1958): 1 and 0 where probabilities mean what they say."""
    clipped = np.clip(predicted, 1e-9, 1 - 1e-9)
    fitted = fit_platt(np.log(clipped / (1 - clipped)), labels, balanced=balanced)
    return fitted.slope, fitted.intercept
