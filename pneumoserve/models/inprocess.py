"""The models of a verified release in this process, without TorchServe; on the CPU."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path

from pneumoserve.models.engine import Pixels
from pneumoserve.models.scorer import Score, Scorer
from pneumoserve.release import Release


class InProcess:
    """Scores films in the threads of `threads`; each film runs alone, on one thread."""

    def __init__(self, scorers: dict[str, Scorer], threads: Executor) -> None:
        self._scorers = scorers
        self._threads = threads

    async def score(self, model: str, pixels: Pixels) -> Score:
        """The score of one film; `pixels` is uint8 of shape [224, 224]."""
        (score,) = await asyncio.get_running_loop().run_in_executor(
            self._threads, self._scorers[model].scores, [pixels]
        )
        return score


@contextlib.contextmanager
def load_scorers(release: Release) -> Iterator[dict[str, Scorer]]:
    """The release's models by name, from its MARs; they are unpacked for as long as the context lasts.

    Raises:
        ModuleNotFoundError: there is no ONNX Runtime.
    """
    with tempfile.TemporaryDirectory(prefix="pneumoserve-models-") as temporary:
        models = [facts.name for facts in release.manifest.models]
        yield {model: load_scorer(release, model, Path(temporary) / model) for model in models}


def load_scorer(release: Release, model: str, folder: Path) -> Scorer:
    """One model of the release, from its MAR, which is unpacked into `folder`.

    Raises:
        ModuleNotFoundError: there is no ONNX Runtime.
    """
    # As TorchServe's workers are started: a library that spins up threads of its own would slow every film.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    unpack_model(release, model, folder)
    return Scorer(folder, {})


def unpack_model(release: Release, model: str, folder: Path) -> None:
    """Unpack what a scorer needs of a model's MAR into `folder`."""
    with zipfile.ZipFile(release.folder / "model-store" / f"{model}.mar") as mar:
        for name in ("model.json", f"{model}.onnx", f"{model}.safetensors"):
            mar.extract(name, folder)
