"""The recipes that are compared: what each one changes of `TrainConfig`'s defaults, by its name.

`landed` is the recipe of the reference release, and the baseline. `plain` is one that ranked films of another part of
the source better. Each of the others differs from one of these two in what its name says.
"""

from __future__ import annotations

from typing import Any, Final

from pneumoserve.models.architecture import Architecture
from training.augment import Distortions

Changes = dict[str, Any]

BASELINE: Final = "landed"

_ALL_LAYERS: Final[Changes] = {"frozen_blocks": 0, "head_steps": 0}
_LONGER: Final[Changes] = {"steps": 910}
_OPTIMISER: Final[Changes] = {
    "mix": {"normal": 13 / 32, "bacterial": 10 / 32, "viral": 9 / 32},
    "warm_up": 0.1,
    "weight_decay": 0.02,
    "decay_matrices_only": True,
}
_DISTORTIONS: Final[Changes] = {
    "distortions": Distortions(
        largest_scale=1.08,
        shift=0.2,
        gamma=0.4,
        handled=0.0,
        edge_padded=0.5,
        resampled=0.4,
        sharpened_or_blurred=0.5,
    )
}
_PLAIN: Final[Changes] = {
    **_ALL_LAYERS,
    **_LONGER,
    **_OPTIMISER,
    **_DISTORTIONS,
    "size": 192,
    "architecture": Architecture(standardised=False, side=192, mirrored=True),
}

VARIANTS: Final[dict[str, Changes]] = {
    BASELINE: {},
    "plain": _PLAIN,
    # These learn nothing anew: their weights are those of `landed` and of `plain`. A mirror image doubles the time of
    # an answer; at 144 px both images take 1.3 times as long as one at 176 px.
    "landed, mirrored": {"architecture": Architecture(mirrored=True)},
    "landed, mirrored at 144 px": {"architecture": Architecture(side=144, mirrored=True)},
    "plain, at 144 px": {**_PLAIN, "architecture": Architecture(standardised=False, side=144, mirrored=True)},
    "plain, not mirrored": {**_PLAIN, "architecture": Architecture(standardised=False, side=192)},
    "landed, all layers learn": _ALL_LAYERS,
    "landed, not standardised": {"architecture": Architecture(standardised=False)},
    "landed, 910 batches": _LONGER,
    "landed, 192 px": {"size": 192, "architecture": Architecture(side=192)},
    "landed, optimiser of plain": _OPTIMISER,
    "landed, distortions of plain": _DISTORTIONS,
    "plain, standardised": {**_PLAIN, "architecture": Architecture(side=192, mirrored=True)},
    "plain, 160 px": {
        **_PLAIN,
        "size": 160,
        "architecture": Architecture(standardised=False, side=160, mirrored=True),
    },
    "plain, five blocks frozen": {**_PLAIN, "frozen_blocks": 5, "head_steps": 50},
    "plain, distortions of landed": {**_PLAIN, "distortions": Distortions()},
}
