"""A network that looks at films in each way that there is: both engines, and both models in one run, say the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pneumoserve.imaging.prepare import prepare
from pneumoserve.models.architecture import Architecture
from pneumoserve.models.engine import OnnxEngine, TorchEngine
from pneumoserve.models.network import ThreeHeads
from pneumoserve.models.shared_trunk import Packed
from pneumoserve.names import DETECTOR, TYPER
from tests.support import films
from training.export import export

FILMS = [prepare(path.read_bytes()).pixels for path in films.sample_films()[::8]]
LOOKS = [Architecture(), Architecture(mirrored=True), Architecture(False, 48, True), Architecture(False, 48)]


def write(architecture: Architecture, folder: Path) -> Path:
    """The models of one network, always of the same weights, that looks at films that way."""
    torch.manual_seed(0)
    network = ThreeHeads(architecture)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    # Normalised by what it is shown, else a network that learned nothing answers almost the same to every film.
    network.train()(torch.from_numpy(np.stack(FILMS)).float()[:, ::4, ::4], distorted=True)
    for name, model in zip((DETECTOR, TYPER), network.split(), strict=True):
        export(model, folder, name)
        (folder / "model.json").write_text("{}")
    return folder


def logits(folder: Path, shown: list[npt.NDArray[np.uint8]]) -> list[float]:
    return [raw.logit for raw in OnnxEngine(folder, DETECTOR).outputs(shown)]


@pytest.mark.parametrize("architecture", LOOKS, ids=str)
def test_both_engines_and_one_run_for_both_models_say_the_same(architecture: Architecture, tmp_path: Path) -> None:
    folder = write(architecture, tmp_path)
    together = OnnxEngine(folder, DETECTOR, Packed.read_folder(folder, TYPER)).outputs(FILMS)
    apart = {name: OnnxEngine(folder, name).outputs(FILMS) for name in (DETECTOR, TYPER)}
    assert [raw._replace(typer_logit=None) for raw in together] == apart[DETECTOR]
    assert [raw.typer_logit for raw in together] == [raw.logit for raw in apart[TYPER]]
    for name, answers in apart.items():
        eager = TorchEngine(folder, name, architecture, "cpu").outputs(FILMS)
        for ours, theirs in zip(answers, eager, strict=True):
            assert ours.logit == pytest.approx(theirs.logit, abs=1e-4)


def test_a_mirrored_network_answers_the_mean_of_a_film_and_its_mirror_image(tmp_path: Path) -> None:
    once, mirrored = write(Architecture(), tmp_path / "once"), write(Architecture(mirrored=True), tmp_path / "mirrored")
    turned = [np.ascontiguousarray(film[:, ::-1]) for film in FILMS]
    means = np.mean([logits(once, FILMS), logits(once, turned)], axis=0)
    assert logits(mirrored, FILMS) == pytest.approx(means, abs=1e-5)
    assert np.abs(np.subtract(logits(once, FILMS), means)).max() > 1e-3
    assert logits(mirrored, turned) == pytest.approx(means, abs=1e-5)


def test_only_a_standardised_network_does_not_see_exposure(tmp_path: Path) -> None:
    darker = [(film // 2 + 20).astype(np.uint8) for film in FILMS]
    falls = {}
    for standardised in (True, False):
        folder = write(Architecture(standardised), tmp_path / str(standardised))
        falls[standardised] = np.abs(np.subtract(logits(folder, FILMS), logits(folder, darker))).max()
    assert falls[False] > 5 * falls[True]
