"""Scores of a run, and the pictures drawn from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from pyarrow import parquet
from torchmetrics.functional.classification import binary_auroc, binary_roc

from pneumoserve.release.data import Item, Split
from pneumoserve.release.schema import RunFacts, canonical_json
from training.dataset import CLASSES

mpl.use("Agg")
from matplotlib import pyplot as plt


@dataclass(frozen=True)
class Scores:
    """Films and both models' logits of them, each of shape [N]."""

    items: list[Item]
    detector: npt.NDArray[np.float32]
    typer: npt.NDArray[np.float32]

    def of(self, split: Split) -> Scores:
        """The rows of one split."""
        rows = [index for index, item in enumerate(self.items) if item.split == split]
        return Scores([self.items[index] for index in rows], self.detector[rows], self.typer[rows])

    @property
    def sick(self) -> npt.NDArray[np.bool_]:
        """Whether the label is pneumonia, of either kind."""
        return np.array([item.cls != "normal" for item in self.items])

    @property
    def bacterial(self) -> npt.NDArray[np.bool_]:
        """Whether the label is bacterial pneumonia."""
        return np.array([item.cls == "bacterial" for item in self.items])

    @property
    def patients(self) -> npt.NDArray[np.str_]:
        """Each film's patient."""
        return np.array([item.patient for item in self.items])


def auc(labels: npt.NDArray[np.bool_], scores: npt.NDArray[Any]) -> float:
    """Area under the ROC curve; NaN where only one class is there."""
    if labels.all() or not labels.any():
        return float("nan")
    return float(binary_auroc(torch.from_numpy(scores.astype(np.float64)), torch.from_numpy(labels.astype(np.int64))))


def write_scores(path: Path, scores: Scores) -> None:
    """The scores of the films that never trained, one row a film, as Parquet."""
    table = pa.table(
        {
            "sha256": [item.sha256 for item in scores.items],
            "class": [item.cls for item in scores.items],
            "patient": [item.patient for item in scores.items],
            "split": [item.split for item in scores.items],
            "detector_logit": scores.detector,
            "typer_logit": scores.typer,
        }
    )
    parquet.write_table(table, path)


def draw(folder: Path, facts: RunFacts, scores: Scores, history: dict[str, list[Any]]) -> None:
    """The curve of the training and the ROC of both models on the validation fold, as PNG; the history as JSON."""
    folder.mkdir(exist_ok=True)
    (folder / "history.json").write_bytes(canonical_json(history))
    _draw_curve(folder / "training.png", history)
    fold = scores.of("validation")
    curves = {
        "detector (pneumonia?)": (fold.sick, fold.detector),
        "typer (bacterial?)": (fold.bacterial[fold.sick], fold.typer[fold.sick]),
    }
    draw_roc(folder / "roc.png", curves, f"run {facts.training.run_id}, validation fold, by patient")


def _draw_curve(path: Path, history: dict[str, list[Any]]) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    loss = np.array(history["loss"])
    width = max(1, min(25, len(loss) // 4))
    left.plot(np.convolve(loss, np.ones(width) / width, mode="valid"))
    left.set(title="loss (running mean)", xlabel="step")
    for name in ("detector_auc", "typer_auc"):
        right.plot([c["step"] for c in history["checks"]], [c[name] for c in history["checks"]], marker="o", label=name)
    right.set(title="validation fold", xlabel="step")
    right.legend()
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def draw_roc(path: Path, curves: dict[str, tuple[npt.NDArray[np.bool_], npt.NDArray[Any]]], title: str) -> None:
    """ROC curves with their areas; a curve whose films are all of one class is left out."""
    figure, axes = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
    drawn = {name: curve for name, curve in curves.items() if len(np.unique(curve[0])) == 2}
    for name, (labels, values) in drawn.items():
        false_rate, true_rate, _ = binary_roc(
            torch.from_numpy(values.astype(np.float64)), torch.from_numpy(labels.astype(np.int64))
        )
        axes.plot(false_rate, true_rate, label=f"{name}  AUC {auc(labels, values):.3f}")
    axes.set(title=title, xlabel="1 - specificity", ylabel="sensitivity")
    if drawn:
        axes.legend(loc="lower right")
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def draw_confusion(path: Path, scores: Scores, answers: npt.NDArray[np.int64]) -> None:
    """Films by label and answer; answers [N] are places in `CLASSES`, by the thresholds alone, referred or not."""
    counts = np.zeros((len(CLASSES), len(CLASSES)), dtype=np.int64)
    for item, answer in zip(scores.items, answers, strict=True):
        counts[CLASSES.index(item.cls), answer] += 1
    figure, axes = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
    axes.imshow(counts, cmap="Blues", alpha=0.6)
    for (label, answer), count in np.ndenumerate(counts):
        axes.text(answer, label, str(count), ha="center", va="center")
    axes.set(title=f"{len(answers)} films, by threshold", xlabel="answer", ylabel="label")
    axes.set_xticks(range(len(CLASSES)), CLASSES)
    axes.set_yticks(range(len(CLASSES)), CLASSES)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)
