"""Calibration, thresholds and figures with intervals, from the folds that never trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats

from pneumoserve.decision import Band, Policy, Population
from pneumoserve.release.schema import Calibration, Metric
from training.report import Scores, auc

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

_LEAST_SENSITIVITY: Final = 0.96
_MISSED_CONFIDENTLY: Final = 0.005
_ALARMED_CONFIDENTLY: Final = 0.03
_TYPER_BAND: Final = Band(low=0.35, high=0.65)
_REPLICATES: Final = 1000
_BINS: Final = 10


def fit_platt(scores: npt.NDArray[Any], labels: Bools, *, balanced: bool) -> Calibration:
    """Platt scaling of logits [N] to labels [N] by maximum likelihood; `balanced` weighs both classes the same."""
    values, wanted = torch.from_numpy(scores.astype(np.float64)), torch.from_numpy(labels.astype(np.float64))
    share = float(wanted.mean())
    weights = torch.where(wanted > 0, 0.5 / share, 0.5 / (1 - share)) if balanced else torch.ones_like(wanted)
    parameters = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        predicted = values * parameters[0] + parameters[1]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(predicted, wanted, weights)
        # A whisper of a prior, so that perfectly separated films of a tiny fold do not run to infinity.
        loss = loss + 1e-4 * parameters.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    slope, intercept = (round(float(value), 6) for value in parameters.detach())
    return Calibration(slope=slope, intercept=intercept)


def probabilities(calibration: Calibration, scores: npt.NDArray[Any]) -> Floats:
    """Calibrated probabilities of logits."""
    return 1.0 / (1.0 + np.exp(-(calibration.slope * scores.astype(np.float64) + calibration.intercept)))


def chosen_policy(pneumonia: Floats, sick: Bools) -> Policy:
    """Threshold and bands of the detector from calibrated probabilities on the calibration fold.

    The threshold is the highest whose sensitivity has a one-sided 95 % lower bound (Clopper-Pearson 1934) of 0.96;
    where the fold is too small for that, the lowest score of a sick film.
    """
    ill, well = np.sort(pneumonia[sick]), np.sort(pneumonia[~sick])
    misses = max((m for m in range(len(ill)) if _lower_bound(len(ill) - m, len(ill)) >= _LEAST_SENSITIVITY), default=0)
    threshold = float(ill[misses])
    low = min(float(ill[int(len(ill) * _MISSED_CONFIDENTLY)]), threshold)
    high = max(float(well[min(int(np.ceil(len(well) * (1 - _ALARMED_CONFIDENTLY))), len(well) - 1)]), threshold)
    return Policy(
        detector_threshold=_floor(threshold),
        detector_band=Band(low=_floor(low), high=round(high, 4)),
        typer_threshold=0.5,
        typer_band=_TYPER_BAND,
        population=Population(min_age_years=1, below_age_years=6, unknown_dicom_age="refer"),
        assumed_prevalence=0.5,
        why=(
            f"On the calibration fold the threshold misses {misses} of {len(ill)} pneumonias (one-sided 95 % lower "
            f"bound of sensitivity {_lower_bound(len(ill) - misses, len(ill)):.3f}); the referral band leaves at most "
            f"{_MISSED_CONFIDENTLY:.1%} of pneumonias confidently normal and {_ALARMED_CONFIDENTLY:.0%} of normals "
            "confidently pneumonia there. Probabilities assume that half of the patients have pneumonia: read them "
            "with the prevalence where they are used. Thresholds of random patient folds transfer badly to films of "
            "another source."
        ),
    )


def _floor(value: float) -> float:
    return float(np.floor(value * 1e4) / 1e4)


def _lower_bound(hits: int, count: int) -> float:
    return float(stats.beta.ppf(0.05, hits, count - hits + 1)) if hits else 0.0


def measured(
    scores: Scores, split: str, detector: Calibration, typer: Calibration, policy: Policy
) -> dict[str, Metric]:
    """Figures of one fold, each with a 95 % interval by bootstrap over patients (Efron 1979, percentiles).

    `n` counts the films a figure is about, the pneumonias for sensitivity and the typer. A figure that the fold has no
    films for, such as the sensitivity among normals alone, is left out.
    """
    pneumonia, bacterial = probabilities(detector, scores.detector), probabilities(typer, scores.typer)
    sick, kind = scores.sick, scores.bacterial
    called = pneumonia >= policy.detector_threshold
    unsure = (pneumonia >= policy.detector_band.low) & (pneumonia < policy.detector_band.high)
    everyone = np.ones_like(sick)
    # Each figure with the films it is about; it is given rows of such films alone.
    figures: dict[str, tuple[Bools, Callable[[Rows], float]]] = {
        "detector_auc": (everyone, lambda rows: auc(sick[rows], pneumonia[rows])),
        "detector_sensitivity": (sick, lambda rows: _mean(called[rows])),
        "detector_specificity": (~sick, lambda rows: _mean(~called[rows])),
        "detector_accuracy": (everyone, lambda rows: _mean((called == sick)[rows])),
        "detector_ece_balanced": (everyone, lambda rows: _ece(pneumonia[rows], sick[rows])),
        "uncertain_finding": (everyone, lambda rows: _mean(unsure[rows])),
        "confident_normal_among_pneumonias": (sick, lambda rows: _mean((~called & ~unsure)[rows])),
        "confident_pneumonia_among_normals": (~sick, lambda rows: _mean((called & ~unsure)[rows])),
        "typer_auc": (sick, lambda rows: auc(kind[rows], bacterial[rows])),
        "typer_accuracy": (sick, lambda rows: _mean(((bacterial >= policy.typer_threshold) == kind)[rows])),
    }
    samples = list(_resamples(scores.patients))
    metrics = {}
    for name, (among, figure) in figures.items():
        value = figure(np.flatnonzero(among))
        if not np.isnan(value):
            low, high = _interval(figure(rows[among[rows]]) for rows in samples)
            metrics[f"{split}/{name}"] = Metric(
                value=round(value, 4), low=low, high=high, n=int(among.sum()), set=split
            )
    return metrics


def _interval(drawn: Iterable[float]) -> tuple[float, float]:
    low, high = np.percentile([value for value in drawn if not np.isnan(value)], [2.5, 97.5])
    return round(float(low), 4), round(float(high), 4)


def _resamples(patients: npt.NDArray[np.str_]) -> Any:
    """Rows of replicates in which whole patients are drawn with replacement."""
    _, owner = np.unique(patients, return_inverse=True)
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], np.arange(owner.max() + 2))
    generator = np.random.default_rng(0)
    for _ in range(_REPLICATES):
        drawn = generator.integers(0, owner.max() + 1, owner.max() + 1)
        yield np.concatenate([order[starts[patient] : starts[patient + 1]] for patient in drawn])


def _mean(values: Bools) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _ece(predicted: Floats, labels: Bools) -> float:
    """Expected calibration error (Naeini et al. 2015), 10 equal bins, both classes weighing the same."""
    share = float(labels.mean())
    if share in (0.0, 1.0):
        return float("nan")
    weights = np.where(labels, 0.5 / share, 0.5 / (1 - share)) / len(labels)
    bins = np.minimum((predicted * _BINS).astype(int), _BINS - 1)
    gaps = [abs(float((weights * (labels - predicted))[bins == number].sum())) for number in range(_BINS)]
    return float(sum(gaps))
