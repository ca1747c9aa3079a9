"""Fit the policy of a release or run again, to a site's labelled films. Read it from `recalibrate` downwards.

    pneumoserve recalibrate RELEASE --dataset FILMS --out runs/site --drawn consecutive

The models stay as they are, to the byte. What comes out is a run, which is packaged, signed and rolled out like any.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

import pneumoserve
from pneumoserve.canonical import canonical_json
from pneumoserve.release.card import SITE
from pneumoserve.release.data import (
    LABELS_FILE,
    MANIFEST_FILE,
    PIXELS_FILE,
    DataError,
    TrainingData,
    read_data,
)
from pneumoserve.release.holdout import count_learned, count_same_patients, hold_out_of
from pneumoserve.release.schema import ClassName, Count, Drawn, Metric, ModelFacts, Recalibration, RunFacts
from training.dataset import CLASSES, Dataset, DatasetError
from training.evaluate import Source, open_source
from training.export import score
from training.fit import Verdicts, calibrate, judge, measure_findings, measure_verdicts
from training.report import draw_site_report
from training.scores import Scores, write_scores
from training.site_policy import SitePolicy, check_enough, fit_site_policy
from training.source import Films, open_dataset, read_films

BEFORE: Final = "before"


@dataclass(frozen=True)
class Recalibrated:
    """What came of it: `figures` are cross-fitted, `before` those of the earlier policy on the same films.

    `same_patients`: patients of the site whose number a patient of the training has too.
    """

    facts: RunFacts
    figures: dict[str, Metric]
    before: dict[str, Metric]
    same_patients: int


def recalibrate(source: Path, dataset: str, out: Path, drawn: Drawn) -> Recalibrated:
    """Fit a new policy to the films of a dataset, and write the run of it into `out`, whose `run.json` comes last.

    Raises:
        DatasetError: the dataset is not usable, has too few patients or films that the models learned from; the source
            is no whole run or release; or `out` is in use.
    """
    _check_free(out, source)
    labelled, read = open_dataset(dataset)
    with tempfile.TemporaryDirectory() as temporary:
        opened = open_source(source, Path(temporary))
        data = _read_data(source, opened.facts)
        films = read_films(list(labelled.items), read, "reading films")
        hold_out = hold_out_of(opened.facts.training)
        _check_unseen(films, data, hold_out)
        scores = score(opened.graphs, films, "scoring films")
        check_enough(scores)
        typer = opened.facts.models[1].calibration
        fitted = fit_site_policy(scores, typer, opened.facts.policy)
        verdicts = cross_fit(scores, opened.facts)
        figures = _measure(verdicts, SITE)
        detector = opened.facts.models[0].calibration
        before = _measure(judge(calibrate(scores, detector, typer), opened.facts.policy), BEFORE)
        facts = _state(opened, labelled, fitted, figures, drawn)
        _write(out, source, opened, labelled, scores)
        draw_site_report(out / "report", facts, verdicts, before)
    (out / "run.json").write_bytes(canonical_json(facts))
    return Recalibrated(facts, figures, before, count_same_patients(data, hold_out, labelled.items))


def cross_fit(scores: Scores, facts: RunFacts) -> Verdicts:
    """What the policy of each half of the patients makes of the other half, by raw logits."""
    typer, first = facts.models[1].calibration, _first_half(scores)
    parts = []
    for judged in (first, ~first):
        fitted = fit_site_policy(_rows(scores, ~judged), typer, facts.policy)
        parts.append(judge(calibrate(_rows(scores, judged), fitted.calibration, typer), fitted.policy))
    return Verdicts.concatenate(parts)


def _measure(verdicts: Verdicts, name: str) -> dict[str, Metric]:
    return {**measure_findings(verdicts, name), **measure_verdicts(verdicts, name)}


def _first_half(scores: Scores) -> npt.NDArray[np.bool_]:
    """Which films are of the first half of the patients: every other one of each class, in the order of a hash.

    Nobody chose it, and the same films are always halved alike.
    """
    cls = {item.patient: item.cls for item in scores.items}
    order = sorted(cls, key=lambda patient: (cls[patient], hashlib.sha256(patient.encode()).digest()))
    first = set(order[::2])
    return np.array([item.patient in first for item in scores.items])


def _rows(scores: Scores, chosen: npt.NDArray[np.bool_]) -> Scores:
    items = [item for item, is_chosen in zip(scores.items, chosen, strict=True) if is_chosen]
    return Scores(items, scores.detector[chosen], scores.typer[chosen], scores.chest[chosen])


def _check_free(out: Path, source: Path) -> None:
    if out.resolve().is_relative_to(source.resolve()):
        raise DatasetError("A run or a release is never written to; give an --out beside it.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DatasetError(f"{out.name} is in use; give an --out that is empty or not there yet.")


def _read_data(source: Path, facts: RunFacts) -> TrainingData:
    try:
        return read_data(source, facts.data.digest)
    except DataError as error:
        raise DatasetError(
            f"{source.name} cannot be recalibrated: {error}; take the run or release as it was made."
        ) from None


def _check_unseen(films: Films, data: TrainingData, hold_out: str) -> None:
    """Refuse films that the models learned from: of those a model is surer than of any other.

    Raises:
        DatasetError: there are some.
    """
    seen = count_learned(data, hold_out, films.digests)
    if seen:
        raise DatasetError(
            f"{seen} of these {len(films.items)} films are among those that the models learned from, of which they are "
            "too sure; leave them out."
        )


def _state(opened: Source, labelled: Dataset, fitted: SitePolicy, figures: dict[str, Metric], drawn: Drawn) -> RunFacts:
    detector, typer = opened.facts.models
    models: tuple[ModelFacts, ModelFacts] = (detector.model_copy(update={"calibration": fitted.calibration}), typer)
    recalibration = Recalibration(
        base=opened.digest,
        labels=labelled.digest,
        drawn=drawn,
        counts=dict(_counts(labelled)),
        code_version=pneumoserve.__version__,
    )
    stated = {name: getattr(opened.facts, name) for name in RunFacts.model_fields if name != "schema_"}
    stated |= {"models": models, "policy": fitted.policy, "metrics": figures, "recalibration": recalibration}
    return RunFacts.model_validate({**stated, "schema": "pneumoserve.run/4"})


def _counts(labelled: Dataset) -> Iterator[tuple[ClassName, Count]]:
    for cls in CLASSES:
        items = [item for item in labelled.items if item.cls == cls]
        yield cls, Count(images=len(items), patients=len({item.patient for item in items}))


def _write(out: Path, source: Path, opened: Source, labelled: Dataset, scores: Scores) -> None:
    """Everything of the run but its report and `run.json`."""
    (out / "data").mkdir(parents=True)
    shutil.copytree(opened.weights, out / "weights")
    for name in (MANIFEST_FILE, PIXELS_FILE):
        shutil.copyfile(source / name, out / name)
    (out / LABELS_FILE).write_bytes(labelled.manifest)
    write_scores(out / "oof.parquet", {SITE: scores})
