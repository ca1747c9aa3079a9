"""Distortions of films: what training sees, what the audit tries, what the gate must catch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pneumoserve.imaging.prepare import prepare
from tests.support import films
from tests.training.test_training import item
from training.audit import run_audit
from training.augment import Distortions, augment
from training.experiments.variants import VARIANTS
from training.outliers import OF_FILMS, OF_NOTHING
from training.scores import Scores
from training.shifts import SHIFTS

FILM = prepare(films.sample_films()[0].read_bytes()).pixels
KINDS = {**OF_FILMS, **OF_NOTHING}


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_is_always_the_same_and_leaves_a_film(name: str) -> None:
    shifted = SHIFTS[name](FILM)
    assert (shifted.shape, shifted.dtype) == (FILM.shape, np.uint8)
    assert np.array_equal(shifted, SHIFTS[name](FILM))
    assert not np.array_equal(shifted, FILM)
    assert np.corrcoef(shifted.ravel(), FILM.ravel())[0, 1] > 0.6


@pytest.mark.parametrize("name", KINDS)
def test_outliers_hang_on_the_seed_alone(name: str) -> None:
    made = [KINDS[name](FILM, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert (made[0].shape, made[0].dtype) == (FILM.shape, np.uint8)
    assert np.array_equal(made[0], made[1])
    assert name in {"inverted", "upside down", "sideways"} or not np.array_equal(made[0], made[2])


@pytest.mark.parametrize("how", [Distortions(), VARIANTS["plain"]["distortions"]])
def test_augmentation_hangs_on_the_generator_alone_and_changes_every_film(how: Distortions) -> None:
    batch = torch.from_numpy(np.stack([FILM] * 16).copy())
    before = batch.clone()
    first, second = (augment(batch, 96, how, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(batch, before)
    assert first.shape == (16, 96, 96)
    assert 0 <= float(first.min()) <= float(first.max()) <= 255
    assert len({film.numpy().tobytes() for film in first}) == 16


def test_a_border_is_black_or_repeats_the_edge() -> None:
    white = torch.full((16, 224, 224), 255, dtype=torch.uint8)
    distorted = {
        share: augment(white, 96, Distortions(handled=0.0, edge_padded=share), torch.Generator().manual_seed(5))
        for share in (0.0, 1.0)
    }
    outermost = {share: films[:, 0].amin(dim=1) for share, films in distorted.items()}
    # Two gray rectangles of a film may cover a part of its edge.
    assert (outermost[0.0] < 60).sum() >= 8
    assert (outermost[1.0] < 60).sum() <= 4


class Corner:
    """A model, named as what it is: it answers by the upper left corner alone, and takes dark films for no film."""

    def __init__(self, outputs: int) -> None:
        self._outputs = outputs

    def outputs(self, pixels: Any, label: str) -> Any:
        rows = [pixels[:, :32, :32].mean(axis=(1, 2)), pixels.mean(axis=(1, 2)) - 100]
        return np.array(rows[: self._outputs], dtype=np.float32)


def test_covering_films_shows_where_a_model_looks() -> None:
    bright = np.full((4, 224, 224), 60, dtype=np.uint8)
    bright[:, :32, :32] = 200
    given = [
        item(f"p{n}", "calibration", f"{n}", cls) for n, cls in enumerate(["normal", "bacterial", "viral", "viral"])
    ]
    plain = Scores(given, *(np.zeros(4, dtype=np.float32) for _ in range(3)))
    audit = run_audit({"pneumonia-detector": Corner(2), "pneumonia-typer": Corner(1)}, plain, bright, 0)  # type: ignore[dict-item]
    for film in audit.covered:
        assert np.unravel_index(film.falls.argmax(), film.falls.shape) == (0, 0)
        assert np.abs(film.falls[2:, 2:]).max() == 0
    assert set(audit.shifts) == set(SHIFTS)
    assert set(audit.outliers) == set(KINDS)
    assert np.isnan(audit.shifts["blur"].typer[0])
    assert not np.isnan(audit.shifts["blur"].typer[1:]).any()
