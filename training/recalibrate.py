"""Fit the policy of a release or run again, to a site's labelled films. Read it from `recalibrate` downwards.

    pneumoserve recalibrate RELEASE --dataset FILMS --out runs/site --drawn consecutive

The models stay as they are, to the byte. What comes out is a run, which is packaged, signed and rolled out like any.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

import pneumoserve
from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.release.card import SITE
from pneumoserve.release.data import (
    LABELS_FILE,
    MANIFEST_FILE,
    PIXELS_FILE,
    ArchiveLabels,
    DataError,
    LabelledFilm,
    TrainingData,
    read_data,
)
from pneumoserve.release.holdout import count_learned, count_same_patients, hold_out_of
from pneumoserve.release.schema import Count, Drawn, Metric, ModelFacts, Recalibration, RunFacts, SiteClass
from training.dataset import CLASSES, DatasetError
from training.evaluate import Source, open_source
from training.export import score
from training.fit import Verdicts, calibrate, judge, measure_findings, measure_verdicts
from training.report import draw_site_report
from training.scores import Scores, write_scores
from training.site_policy import SitePolicy, check_enough, fit_site_policy
from training.source import Films, Read, open_dataset, read_films
from training.weighted import measure_weighted

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


@dataclass(frozen=True)
class SiteLabels:
    """Labelled films of a site, and how they were chosen; `document` is what `data/labels.json` will hold.

    `largest`: of labels of the archive, the largest weight that a study may have; None where all films count alike.
    """

    items: Sequence[LabelledFilm]
    read: Read
    document: bytes
    drawn: Drawn
    largest: float | None = None

    @classmethod
    def of_dataset(cls, dataset: str, drawn: Drawn) -> SiteLabels:
        """Those of a dataset (`source.open_dataset`).

        Raises:
            DatasetError: it is not usable.
        """
        labelled, read = open_dataset(dataset)
        return cls(labelled.items, read, labelled.manifest, drawn)

    @classmethod
    def of_archive(cls, labels: ArchiveLabels, get: Callable[[LabelledFilm], bytes]) -> SiteLabels:
        """Labels of the archive; `get` gives a film's stored bytes."""

        def read(item: LabelledFilm) -> bytes:
            data = get(item)
            if digest_of(data) != item.sha256:
                raise DatasetError(
                    f"The archive's image {item.name} was altered; `pneumoserve archive verify` says how."
                )
            return data

        return cls(labels.items, read, labels.document, "weighted", labels.largest)


def recalibrate(source: Path, labels: SiteLabels, out: Path) -> Recalibrated:
    """Fit a new policy to labelled films, and write the run of it into `out`, whose `run.json` comes last.

    Raises:
        DatasetError: the films are of too few patients, or the models learned from some; the source is no whole run
            or release; or `out` is in use.
    """
    check_free(out, source)
    with tempfile.TemporaryDirectory() as temporary:
        opened = open_source(source, Path(temporary))
        data = _read_data(source, opened.facts)
        films = read_films(labels.items, labels.read, "reading films")
        hold_out = hold_out_of(opened.facts.training)
        _check_unseen(films, data, hold_out)
        scores = score(opened.graphs, films, "scoring films")
        check_enough(scores)
        typer = opened.facts.models[1].calibration
        fitted = fit_site_policy(scores, typer, opened.facts.policy)
        verdicts = cross_fit(scores, opened.facts)
        figures = _measure(verdicts, SITE, labels.largest)
        detector = opened.facts.models[0].calibration
        before = _measure(judge(calibrate(scores, detector, typer), opened.facts.policy), BEFORE, labels.largest)
        facts = _state(opened, labels, fitted, figures)
        _write(out, source, opened, labels, scores)
        draw_site_report(out / "report", facts, verdicts, before)
    (out / "run.json").write_bytes(canonical_json(facts))
    return Recalibrated(facts, figures, before, count_same_patients(data, hold_out, labels.items))


def cross_fit(scores: Scores, facts: RunFacts) -> Verdicts:
    """What the policy of each half of the patients makes of the other half, by raw logits."""
    typer, first = facts.models[1].calibration, _first_half(scores)
    parts = []
    for judged in (first, ~first):
        fitted = fit_site_policy(_rows(scores, ~judged), typer, facts.policy)
        parts.append(judge(calibrate(_rows(scores, judged), fitted.calibration, typer), fitted.policy))
    return Verdicts.concatenate(parts)


def _measure(verdicts: Verdicts, name: str, largest: float | None) -> dict[str, Metric]:
    if largest is not None:
        return measure_weighted(verdicts, name, largest)
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


def check_free(out: Path, source: Path) -> None:
    """See that `out` can take a run.

    Raises:
        DatasetError: it is in use, or lies in the source.
    """
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


def _state(opened: Source, labels: SiteLabels, fitted: SitePolicy, figures: dict[str, Metric]) -> RunFacts:
    detector, typer = opened.facts.models
    models: tuple[ModelFacts, ModelFacts] = (detector.model_copy(update={"calibration": fitted.calibration}), typer)
    recalibration = Recalibration(
        base=opened.digest,
        labels=digest_of(labels.document),
        drawn=labels.drawn,
        counts=dict(_counts(labels.items)),
        code_version=pneumoserve.__version__,
    )
    stated = {name: getattr(opened.facts, name) for name in RunFacts.model_fields if name != "schema_"}
    stated |= {"models": models, "policy": fitted.policy, "metrics": figures, "recalibration": recalibration}
    version = 4 if labels.largest is None else 5
    return RunFacts.model_validate({**stated, "schema": f"pneumoserve.run/{version}"})


def _counts(films: Sequence[LabelledFilm]) -> Iterator[tuple[SiteClass, Count]]:
    """Images and patients of each class; pneumonias of which nobody said the type, where there are any."""
    classes: tuple[SiteClass, ...] = (*CLASSES, "pneumonia")
    for cls in classes:
        items = [item for item in films if item.cls == cls]
        if items or cls != "pneumonia":
            yield cls, Count(images=len(items), patients=len({item.patient for item in items}))


def _write(out: Path, source: Path, opened: Source, labels: SiteLabels, scores: Scores) -> None:
    """Everything of the run but its report and `run.json`."""
    (out / "data").mkdir(parents=True)
    shutil.copytree(opened.weights, out / "weights")
    for name in (MANIFEST_FILE, PIXELS_FILE):
        shutil.copyfile(source / name, out / name)
    (out / LABELS_FILE).write_bytes(labels.document)
    write_scores(out / "oof.parquet", {SITE: scores})
