"""Trainings of seconds: a trunk of five blocks on small films, few outliers, few replicates.

Mechanics are the same for any network. The tests that need the real one say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import pytest
from efficientnet_lite_pytorch import EfficientNet
from efficientnet_lite_pytorch.utils import get_model_params

from pneumoserve.models import network
from training import audit, fit, ood

# What `shrink` replaces is put back for a test that wants it.
_TRUNK, _NEW_TRUNK, _SHRINK = network.imagenet_trunk, EfficientNet.from_name, network.shrink
SIDE = 64


class Replace(Protocol):
    """`setattr`, or a MonkeyPatch's."""

    def __call__(self, target: Any, name: str, value: Any, /) -> None: ...


def tiny_trunk(_: str = "") -> EfficientNet:
    """The first five blocks of the real trunk, two of them with a skip, and its head: as random as torch's seed."""
    blocks, parameters = get_model_params("efficientnet-lite0", None)
    return network._as_trunk(EfficientNet(blocks[:3], parameters))


def shrink(replace: Replace) -> None:
    """Make trainings of this process small."""
    replace(network, "imagenet_trunk", tiny_trunk)
    replace(EfficientNet, "from_name", tiny_trunk)
    replace(network, "shrink", lambda films, side: _SHRINK(films, min(side, SIDE)))
    replace(ood, "_OUTLIERS_OF_FILMS", 8)
    replace(ood, "_OUTLIERS_OF_NOTHING", 8)
    replace(fit, "_REPLICATES", 50)
    replace(audit, "_COVERED_FILMS", 2)


@contextmanager
def real_network() -> Iterator[None]:
    """The network as it is served, with its ImageNet weights, on films of 96 px."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "imagenet_trunk", _TRUNK)
        patch.setattr(EfficientNet, "from_name", _NEW_TRUNK)
        patch.setattr(network, "shrink", lambda films, side: _SHRINK(films, min(side, 96)))
        yield
