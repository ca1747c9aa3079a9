"""Drift: whether a window of studies looks like the studies of a baseline, and if not, what kind of change explains it.

Three two-sample tests compare them: Kolmogorov and Smirnov's of the detector's logits, Fisher's of referrals, and the
maximum mean discrepancy of logits and gate together (Gretton et al., A kernel two-sample test, JMLR 2012; 13: 723-773).
The gate's logit is a distance in the space of the network's features, so that a change of the images moves it. All
count the chance that lies in the baseline too: a site's baseline is a sample, not the truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from scipy.stats import fisher_exact, ks_2samp

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Cause = Literal["case_mix", "images"]

BASELINE_STUDIES: Final = 1000
WINDOW_STUDIES: Final = 200
# The share of windows in which an alarm is false, over all tests of all sources together.
FALSE_ALARMS: Final = 0.005
_TESTS: Final = 3
# Random features stand for the kernel (Rahimi & Recht, NIPS 2007): a permutation then takes no matrix of all pairs.
_FEATURES: Final = 64
# The least p-value of a permutation test lies so many times below what it is compared with.
_RESOLUTION: Final = 4
_FEWEST_PERMUTATIONS: Final = 999
_RESAMPLES: Final = 399
# A change of case mix is taken for one of the images in this share of cases.
_OTHER_IMAGES: Final = 0.01
_EM_STEPS: Final = 60


@dataclass(frozen=True)
class Studies:
    """Studies of one source, one a patient: arrays of shape [N].

    `logit` is that of the calibrated probability of pneumonia, `chest` that of the gate's probability of a chest film;
    0 throughout, where a release has no gate.
    """

    logit: Floats
    chest: Floats
    referred: Bools


@dataclass(frozen=True)
class Comparison:
    """A window beside its baseline: a p-value for each test, whether that is an alarm, and what explains it.

    `cause` is "case_mix" where another share of sick patients explains the change, "images" where it does not; None
    without an alarm. `sick_share` is the share that explains the window best, `baseline_share` that of the baseline.
    """

    scores_p: float
    images_p: float
    referrals_p: float
    alarm: bool
    cause: Cause | None
    baseline_share: float
    sick_share: float


def compare_studies(baseline: Studies, window: Studies, assumed: float, groups: int, seed: int) -> Comparison:
    """Compare a window with its baseline.

    `assumed` is the prevalence that the probabilities assume, `groups` how many sources are watched together: their
    tests share one rate of false alarms by Bonferroni's bound. The same seed gives the same p-values.
    """
    alpha = alarm_level(groups)
    rng = np.random.default_rng(seed)
    points, others = (_map_features(each) for each in _standardise(baseline, window))
    scores_p = float(ks_2samp(baseline.logit, window.logit).pvalue)
    images_p = _permutation_p(points, others, alpha, rng)
    referrals_p = _fisher_p(baseline.referred, window.referred)
    alarm = min(scores_p, images_p, referrals_p) <= alpha
    before, now = (float(expit(estimate_log_odds(each.logit, assumed))) for each in (baseline, window))
    cause = _explain((baseline.logit, points), (window.logit, others), assumed, rng) if alarm else None
    return Comparison(scores_p, images_p, referrals_p, alarm, cause, before, now)


def alarm_level(groups: int) -> float:
    """The p-value at or below which a test alarms, where `groups` sources are watched together."""
    return FALSE_ALARMS / (_TESTS * groups)


def estimate_log_odds(logit: Floats, assumed: float) -> float:
    """The log-odds of the share of sick patients under which calibrated probabilities agree with themselves.

    `logit`: shape [N], of probabilities that assume the prevalence `assumed`. By the EM algorithm of Saerens,
    Latinne and Decaestecker (Neural Computation 2002; 14: 21-41), which takes it that only that share has changed.
    """
    evidence = logit - math.log(assumed / (1 - assumed))
    least = 0.5 / len(logit)
    odds = 0.0
    for _ in range(_EM_STEPS):
        share = min(max(float(expit(evidence + odds).mean()), least), 1 - least)
        odds = math.log(share / (1 - share))
    return odds


def _standardise(baseline: Studies, window: Studies) -> tuple[Floats, Floats]:
    """Logit and gate of both, shape [N, 2], in standard deviations of the two together."""
    points, others = (np.stack([each.logit, each.chest], axis=1) for each in (baseline, window))
    together = np.concatenate([points, others])
    middle, spread = together.mean(axis=0), together.std(axis=0)
    spread[spread == 0] = 1
    return (points - middle) / spread, (others - middle) / spread


def _map_features(points: Floats) -> Floats:
    """Random Fourier features of a Gaussian kernel of width 1, always the same ones; shape [N, 64]."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((points.shape[1], _FEATURES))
    offsets = rng.uniform(0, 2 * np.pi, _FEATURES)
    features: Floats = np.cos(points @ directions + offsets) * math.sqrt(2 / _FEATURES)
    return features


def _permutation_p(first: Floats, second: Floats, alpha: float, rng: np.random.Generator) -> float:
    """The p-value of their maximum mean discrepancy, among permutations of who belongs to which."""
    together, count = np.concatenate([first, second]), len(second)
    permutations = max(_FEWEST_PERMUTATIONS, math.ceil(_RESOLUTION / alpha) - 1)
    seen = _discrepancy(first.mean(axis=0), second.mean(axis=0))
    total = together.sum(axis=0)
    larger = 0
    for _ in range(permutations):
        inside = together[rng.choice(len(together), count, replace=False)].sum(axis=0)
        larger += _discrepancy((total - inside) / len(first), inside / count) >= seen
    return (1 + larger) / (1 + permutations)


def _discrepancy(first: Floats, second: Floats) -> float:
    return float(((first - second) ** 2).sum())


def _fisher_p(first: Bools, second: Bools) -> float:
    table = [[int(each.sum()), int((~each).sum())] for each in (first, second)]
    return float(fisher_exact(table).pvalue)


def _explain(
    baseline: tuple[Floats, Floats], window: tuple[Floats, Floats], assumed: float, rng: np.random.Generator
) -> Cause:
    """Whether the baseline, weighted to the window's share of sick patients, looks like the window.

    Of both there are logits [N] and features [N, 64].
    The null distribution is by resampling both: a baseline of the baseline, a window of the weighted baseline, and the
    shares estimated anew from each.
    """
    (logit, points), (others_logit, others) = baseline, window
    weights = _weigh(logit, others_logit, assumed)
    seen = _discrepancy(weights @ points, others.mean(axis=0))
    larger = 0
    for _ in range(_RESAMPLES):
        first = rng.choice(len(logit), len(logit))
        second = rng.choice(len(logit), len(others), p=weights)
        again = _weigh(logit[first], logit[second], assumed)
        larger += _discrepancy(again @ points[first], points[second].mean(axis=0)) >= seen
    return "case_mix" if (1 + larger) / (1 + _RESAMPLES) > _OTHER_IMAGES else "images"


def _weigh(baseline: Floats, window: Floats, assumed: float) -> Floats:
    """Weights of the baseline's studies that give it the window's share of sick patients; they add up to 1."""
    prior = math.log(assumed / (1 - assumed))
    before, now = (estimate_log_odds(each, assumed) for each in (baseline, window))
    sick = expit(baseline - prior + before)
    weights = sick * expit(now) / expit(before) + (1 - sick) * expit(-now) / expit(-before)
    shares: Floats = weights / weights.sum()
    return shares
