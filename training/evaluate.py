"""Measuring a run or a release on a dataset, through the very graphs that are served."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from pneumoserve.names import DETECTOR, TYPER
from pneumoserve.release.schema import ReleaseManifest, RunFacts, canonical_json
from training.dataset import DatasetError
from training.export import logits
from training.fit import measured, probabilities
from training.report import Scores, draw_confusion, draw_roc
from training.source import open_dataset, pixels_of


def evaluate(source: Path, dataset: str, out: Path) -> dict[str, Any]:
    """Measure on every film of a dataset; writes metrics.json, roc.png and confusion.png into `out`.

    Returns the metrics by name; those that need a class the dataset lacks are left out.

    Raises:
        DatasetError: the dataset is not usable, the source is neither run nor release, or `out` lies inside it.
    """
    if out.resolve().is_relative_to(source.resolve()):
        raise DatasetError("A run or a release is never written to; give an --out beside it.")
    films, read = open_dataset(dataset)
    items = list(films.items)
    pixels = pixels_of(items, read, "reading films")
    with tempfile.TemporaryDirectory() as temporary:
        facts, graphs = _opened(source, Path(temporary))
        scores = Scores(items, logits(graphs[DETECTOR], pixels), logits(graphs[TYPER], pixels))
    detector, typer = (model.calibration for model in facts.models)
    figures = measured(scores, "dataset", detector, typer, facts.policy)
    metrics = {name.partition("/")[2]: metric.model_dump() for name, metric in figures.items()}
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_bytes(canonical_json({"dataset": films.digest, "metrics": metrics}))
    curves = {
        "detector (pneumonia?)": (scores.sick, scores.detector),
        "typer (bacterial?)": (scores.bacterial[scores.sick], scores.typer[scores.sick]),
    }
    draw_roc(out / "roc.png", curves, f"{len(items)} films")
    pneumonia = probabilities(detector, scores.detector) >= facts.policy.detector_threshold
    bacterial = probabilities(typer, scores.typer) >= facts.policy.typer_threshold
    draw_confusion(out / "confusion.png", scores, np.where(pneumonia, np.where(bacterial, 1, 2), 0))
    return metrics


def _opened(source: Path, temporary: Path) -> tuple[RunFacts, dict[str, Path]]:
    """The facts of a run or release and the paths of its graphs, those of a release unpacked."""
    if (source / "run.json").is_file():
        facts = RunFacts.model_validate_json((source / "run.json").read_bytes())
        return facts, {name: source / "weights" / f"{name}.onnx" for name in (DETECTOR, TYPER)}
    if not (source / "release.json").is_file():
        raise DatasetError(f"{source.name} holds neither run.json nor release.json; give a run or a release.")
    for name in (DETECTOR, TYPER):
        with zipfile.ZipFile(source / "model-store" / f"{name}.mar") as archive:
            for suffix in ("onnx", "safetensors"):
                archive.extract(f"{name}.{suffix}", temporary)
    manifest = ReleaseManifest.model_validate_json((source / "release.json").read_bytes())
    return manifest, {name: temporary / f"{name}.onnx" for name in (DETECTOR, TYPER)}
