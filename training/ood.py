"""The out-of-distribution head: one linear layer that says whether a picture is an upright chest film at all.

It is the `gate` of the network's weights. It is fitted after the training, on the trained trunk's features: films, half
of them shifted, against what is no chest film. It changes nothing in the trunk, and so nothing in the answers to films
that pass.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from numpy.random import Generator
from scipy import stats
from torch import Tensor

from pneumoserve.decision import Policy
from pneumoserve.models.network import ThreeHeads, features
from pneumoserve.release.schema import Metric
from training.fit import fit_logistic, is_refused
from training.outliers import OF_FILMS, OF_NOTHING, Maker
from training.shifts import SHIFTS

Pixels = npt.NDArray[np.uint8]

_FILMS: Final = 2400
# What is made of films is most like films.
_OUTLIERS_OF_FILMS: Final = 400
_OUTLIERS_OF_NOTHING: Final = 150
_PRIOR: Final = 1e-3
_BATCH: Final = 32


def fit_ood_head(network: ThreeHeads, films: Pixels, seed: int) -> None:
    """Fit the head of a trained network on films uint8 [N, 224, 224] that it learned from."""
    draw = np.random.default_rng(seed)
    chest = shift_half(_some(films, _FILMS, draw), draw)
    others = np.concatenate(
        [
            *_make(OF_FILMS, _some(films, _OUTLIERS_OF_FILMS, draw), draw).values(),
            *_make(OF_NOTHING, _some(films, _OUTLIERS_OF_NOTHING, draw), draw).values(),
        ]
    )
    values = torch.cat([_features(network, chest), _features(network, others)]).double()
    labels = torch.cat([torch.ones(len(chest)), torch.zeros(len(others))])
    mean, deviation = values.mean(dim=0), values.std(dim=0).clamp_min(1e-6)
    weights, bias = fit_logistic((values - mean) / deviation, labels, balanced=True, prior=_PRIOR)
    # The features are scaled for the fit alone; the served head takes them as they are.
    scaled = weights / deviation
    with torch.no_grad():
        network.gate.weight.copy_(scaled[None])
        network.gate.bias.fill_(bias - float(scaled @ mean))


def make_outliers(films: Pixels, draw: Generator) -> dict[str, Pixels]:
    """By kind, as many pictures that are no upright chest film as there are films."""
    return _make({**OF_FILMS, **OF_NOTHING}, films, draw)


def detection_rate(logits: npt.NDArray[np.float32], policy: Policy, name: str) -> Metric:
    """The share of pictures that the head takes for no chest film, with its exact 95 % interval (Clopper & Pearson)."""
    found = int(is_refused(logits, policy).sum())
    interval = stats.binomtest(found, len(logits)).proportion_ci(method="exact")
    return Metric(
        value=round(found / len(logits), 4),
        low=round(float(interval.low), 4),
        high=round(float(interval.high), 4),
        n=len(logits),
        set=name,
    )


def shift_half(films: Pixels, draw: Generator) -> Pixels:
    """The films, every other one under a shift of the suite."""
    shifts = list(SHIFTS.values())
    return np.stack(
        [film if place % 2 else shifts[draw.integers(len(shifts))](film) for place, film in enumerate(films)]
    )


def _make(kinds: dict[str, Maker], films: Pixels, draw: Generator) -> dict[str, Pixels]:
    return {kind: np.stack([make(film, draw) for film in films]) for kind, make in kinds.items()}


def _some(films: Pixels, count: int, draw: Generator) -> Pixels:
    return films[draw.permutation(len(films))[:count]]


@torch.inference_mode()
def _features(network: ThreeHeads, films: Pixels) -> Tensor:
    network.eval()
    parts = np.array_split(films, len(films) // _BATCH + 1)
    return torch.cat([features(network.trunk, torch.from_numpy(part), network.architecture) for part in parts])
