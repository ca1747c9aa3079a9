"""Covering a film place by place, to see where that changes a model's score (occlusion, Zeiler & Fergus 2014).

Training's audit and the console's heat maps cover films alike.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pneumoserve.models.engine import Pixels

# In pixels of a prepared film. Squares of 48 or 64 px say no more of where, and half as many of 32 px look like tiles.
PATCH: Final = 32
STRIDE: Final = 16


def cover(film: Pixels) -> Pixels:
    """A film of shape [224, 224] with one square covered by its mean gray, for each place: uint8 [13, 13, 224, 224]."""
    starts = range(0, film.shape[0] - PATCH + 1, STRIDE)
    covered = np.broadcast_to(film, (len(starts), len(starts), *film.shape)).copy()
    for row, top in enumerate(starts):
        for column, left in enumerate(starts):
            covered[row, column, top : top + PATCH, left : left + PATCH] = int(film.mean())
    return covered
