"""Measuring a run or a release on a dataset, through the very graphs that are served."""

from __future__ import annotations

import tempfile
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.imaging import ImageError
from pneumoserve.imaging.prepare import prepare
from pneumoserve.names import DETECTOR, TYPER
from pneumoserve.release.schema import Metric, ReleaseManifest, RunFacts
from training.dataset import DatasetError
from training.export import Graph, score
from training.fit import calibrate, measure
from training.ood import detection_rate
from training.report import answers, draw_confusion, draw_roc
from training.source import open_dataset, read_films


def evaluate(source: Path, dataset: str, out: Path, outliers: Path | None = None) -> dict[str, Any]:
    """Measure on every film of a dataset; writes metrics.json, roc.png and confusion.png into `out`.

    `outliers`: a folder of pictures that are no upright chest films, whose share that is caught is measured.
    Returns the metrics by name; those that need a class the dataset lacks are left out.

    Raises:
        DatasetError: the dataset is not usable, the source is neither run nor release, or `out` lies inside it.
    """
    if out.resolve().is_relative_to(source.resolve()):
        raise DatasetError("A run or a release is never written to; give an --out beside it.")
    whole, read = open_dataset(dataset)
    films = read_films(list(whole.items), read, "reading films")
    with tempfile.TemporaryDirectory() as temporary:
        opened = open_source(source, Path(temporary))
        facts, graphs = opened.facts, opened.graphs
        detector, typer = (model.calibration for model in facts.models)
        scores = calibrate(score(graphs, films, "scoring films"), detector, typer)
        figures = measure(scores, "dataset", facts.policy)
        if outliers is not None:
            figures["outliers/caught"] = _measure_outliers(facts, graphs[DETECTOR], outliers)
    metrics = {name.removeprefix("dataset/"): metric.model_dump() for name, metric in figures.items()}
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_bytes(canonical_json({"dataset": whole.digest, "metrics": metrics}))
    curves = {
        "detector (pneumonia?)": (scores.sick, scores.detector),
        "typer (bacterial?)": (scores.bacterial[scores.sick], scores.typer[scores.sick]),
    }
    draw_roc(out / "roc.png", curves, f"{len(films.items)} films")
    draw_confusion(out / "confusion.png", scores, answers(facts.policy, scores))
    return metrics


def _measure_outliers(facts: RunFacts, detector: Graph, folder: Path) -> Metric:
    if facts.policy.chest_threshold is None:
        raise DatasetError("This release has no gate, so it catches nothing; leave out --outliers.")
    pictures = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with suppress(ImageError):
            pictures.append(prepare(path.read_bytes()).pixels)
    if not pictures:
        raise DatasetError(f"{folder.name} holds no JPEG, PNG or DICOM picture; give a folder that does.")
    _, chest = detector.outputs(np.stack(pictures), "scoring outliers")
    return detection_rate(chest, facts.policy, "outliers")


@dataclass(frozen=True)
class Source:
    """A run or a release: its facts, the digest of the file that states them, its graphs, and the folder of those."""

    facts: RunFacts
    digest: str
    weights: Path
    graphs: dict[str, Graph]


def open_source(source: Path, temporary: Path) -> Source:
    """A run or a release; the models of a release are unpacked into `temporary`.

    Raises:
        DatasetError: it is neither.
    """
    if (source / "run.json").is_file():
        weights, stated = source / "weights", (source / "run.json").read_bytes()
        facts = RunFacts.model_validate_json(stated)
    elif (source / "release.json").is_file():
        weights, stated = temporary, (source / "release.json").read_bytes()
        facts = ReleaseManifest.model_validate_json(stated)
        for name in (DETECTOR, TYPER):
            with zipfile.ZipFile(source / "model-store" / f"{name}.mar") as archive:
                for suffix in ("onnx", "safetensors"):
                    archive.extract(f"{name}.{suffix}", temporary)
    else:
        raise DatasetError(f"{source.name} holds neither run.json nor release.json; give a run or a release.")
    graphs = {name: Graph(weights / f"{name}.onnx") for name in (DETECTOR, TYPER)}
    return Source(facts, digest_of(stated), weights, graphs)
