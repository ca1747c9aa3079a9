"""Train detector and typer by transfer learning. Read it from `train` downwards.

    pneumoserve train --dataset FOLDER --out runs/first

FOLDER holds films in folders named normal, bacteria and virus. Put `torchrun … --no-python` before the command to have
several workers share each batch.

One EfficientNet-Lite0 trunk with two heads learns both questions at once (`training.learn`) and is split into the two
served models. Then a gate is fitted on the trained trunk, the models are exported, calibrated and measured on films
that never trained, and thresholds are chosen. The run's folder holds all of it; `run.json` comes last.
"""

from __future__ import annotations

import errno
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import pneumoserve
from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.imaging import PREPROCESSING_VERSION
from pneumoserve.models.network import ThreeHeads
from pneumoserve.names import DETECTOR, TYPER
from pneumoserve.release.data import DataError, write_data
from pneumoserve.release.holdout import Parts, partition
from pneumoserve.release.schema import Calibration, DataFacts, Metric, ModelFacts, RunFacts, TrainingFacts
from training.audit import Audit, run_audit
from training.checkpoints import claim_folder
from training.config import TrainConfig
from training.dataset import CLASSES, EXCLUDED_PATIENTS_FILE, Dataset, DatasetError, excluded_patients
from training.errors import TrainingError
from training.export import Graph, export, score
from training.fit import calibrate, fit_platt, measure, sigmoid
from training.learn import learn
from training.memory import keep_memory
from training.ood import fit_ood_head
from training.openlineage import record_events
from training.policy import EvaluationSet, choose_policy
from training.reference_runs import ReferenceRun, pool, read_reference_run
from training.scores import Scores, write_scores
from training.source import Films, Read, open_dataset, read_films
from training.type_band import choose_type_band


def train(config: TrainConfig, console: Console | None = None) -> Path:
    """Train, calibrate, choose thresholds and measure; returns the run's folder, whose `run.json` comes last.

    Of several workers the first does all of this; the others only learn, write nothing and are then done.

    Raises:
        DatasetError: the dataset is not usable.
        TrainingError: no such device, a run of something else in `out` or `checkpoints`, a loss that is no number, a
            batch that the workers cannot share, or a worker that is gone.
        StoreError: the store does not give or take a checkpoint.
    """
    console = console or Console(markup=False)
    settle(config)
    with config.workers.join(config.device):
        inputs = _open_inputs(config, console)
        if config.workers.leads:
            _lead(config, inputs, console)
        else:
            learn(config, read_films(inputs.parts.learned, inputs.read, "reading films"), None, console)
    return config.out


@dataclass(frozen=True)
class _Inputs:
    """What a training works on. `excluded`: the patients of the dataset that were left out."""

    dataset: Dataset
    excluded: frozenset[str]
    parts: Parts
    read: Read
    references: list[ReferenceRun]


def _open_inputs(config: TrainConfig, console: Console) -> _Inputs:
    references = [read_reference_run(run) for run in config.reference_runs]
    whole, read = open_dataset(config.dataset)
    excluded = excluded_patients(config.exclude) & {item.patient for item in whole.items}
    dataset = whole.without(excluded)
    try:
        parts = _parts(dataset, config.hold_out)
    except DatasetError:
        if excluded:
            _blame_exclusion(config, whole, len(whole.items) - len(dataset.items))
        raise
    console.print(
        f"{len(whole.items) - len(dataset.items)} films of left out patients; of the others {len(parts.learned)} are "
        f"learned from, {len(parts.calibration)} calibrate, {len(parts.held_out)} are held out ({config.hold_out})"
    )
    for each in references:
        each.check(dataset.digest, config.parameters)
    return _Inputs(dataset, excluded, parts, read, references)


def _lead(config: TrainConfig, inputs: _Inputs, console: Console) -> None:
    """The first worker's part: learn, measure and write the run."""
    claim_folder(config, inputs.dataset.digest)
    # What comes next replaces what an earlier `run.json` states: without it the run is unfinished.
    (config.out / "run.json").unlink(missing_ok=True)
    data = inputs.dataset.facts(config.source, len(inputs.excluded))
    with record_events(config.out, _training_facts(config), data) as complete:
        with _room_on_disk():
            facts = _make_run(config, inputs, data, console)
            temporary = config.out / "run.json.part"
            temporary.write_bytes(canonical_json(facts))
            temporary.replace(config.out / "run.json")
        complete(facts)


def _make_run(config: TrainConfig, inputs: _Inputs, data: DataFacts, console: Console) -> RunFacts:
    """Everything of a run but its `run.json`, whose facts it returns."""
    films = read_films(list(inputs.dataset.items), inputs.read, "reading films")
    write_data(config.out, inputs.dataset.items, films.digests)
    learned, calibration = films.of(inputs.parts.learned), films.of(inputs.parts.calibration)
    held_out = films.of(inputs.parts.measured_on)
    learner = learn(config, learned, held_out if held_out.items else calibration, console)
    console.print("fitting the gate, exporting, scoring, calibrating, auditing")
    fit_ood_head(learner.network, learned.pixels, config.seed)
    graphs = _export(config.out, learner.network)
    scores = _score(config, graphs, calibration, held_out)
    write_scores(config.out / "oof.parquet", scores)
    fold = scores["calibration"]
    scales = _fit_calibrations(fold)
    groups = {name: calibrate(each, *scales) for name, each in {**scores, **pool(inputs.references, fold)}.items()}
    audit = run_audit(graphs, fold, calibration.pixels, config.seed).calibrate(*scales) if config.audit else None
    facts = _facts(config, data, scales, groups, audit, inputs.references)
    from training import report  # noqa: PLC0415 - half of the time to start, and most workers draw nothing

    report.draw(config.out / "report", facts, groups, audit, learner.history)
    return facts


def _export(out: Path, network: ThreeHeads) -> dict[str, Graph]:
    shutil.rmtree(out / "weights", ignore_errors=True)
    models = zip((DETECTOR, TYPER), network.split(), strict=True)
    return {name: Graph(export(model, out / "weights", name)[1]) for name, model in models}


def _score(config: TrainConfig, graphs: dict[str, Graph], calibration: Films, held_out: Films) -> dict[str, Scores]:
    """The scores of films that never trained, by the set that they are measured in."""
    scores = {"calibration": score(graphs, calibration, "scoring the calibration fold")}
    if held_out.items:
        scores[config.hold_out] = score(graphs, held_out, "scoring what is held out")
    return scores


def _fit_calibrations(fold: Scores) -> tuple[Calibration, Calibration]:
    """The detector's and the typer's."""
    # Both classes weigh the same: the prevalence where it serves is nobody's to know here. The policy says so.
    detector = fit_platt(fold.detector, fold.sick, balanced=True)
    return detector, fit_platt(fold.typer[fold.sick], fold.bacterial[fold.sick], balanced=False)


# --- what a training must have before it starts


def settle(config: TrainConfig) -> None:
    """Set this process up for a training, before it meets other workers.

    Raises:
        TrainingError: no such device, or a batch that the workers cannot share.
    """
    if config.device != "cpu" and not torch.cuda.is_available():
        raise TrainingError(f"There is no {config.device} device here; leave out --device to train on the CPU.")
    films = sum(config.batch_counts.values())
    if films % config.workers.count:
        raise TrainingError(
            f"{config.workers.count} workers cannot share a batch of {films} films evenly; start fewer."
        )
    keep_memory()
    torch.set_num_threads(config.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Only what is read before it is written would notice, and steps are a sixth faster.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _blame_exclusion(config: TrainConfig, whole: Dataset, left_out: int) -> None:
    """Name the option that is the cause where all films together could be trained on.

    Raises:
        DatasetError: they could, or there is another fault in them.
    """
    _parts(whole, config.hold_out)
    name, count = "sample" if config.exclude == EXCLUDED_PATIENTS_FILE else "FILE", len(whole.items)
    left = f"all {count} films" if left_out == count else f"{left_out} of {count} films, and too few are left"
    raise DatasetError(f"--exclude {name} leaves out {left}; give --exclude none, or add films of more patients.")


def _parts(dataset: Dataset, hold_out: str) -> Parts:
    """What becomes of the films.

    Raises:
        DatasetError: where a part that needs all classes lacks one, or `hold_out` is no way to hold films out.
    """
    try:
        parts = partition(dataset.items, hold_out)
    except DataError as error:
        raise DatasetError(str(error)) from error
    for name, items in (("left to learn from", parts.learned), ("in the calibration fold", parts.calibration)):
        for cls in CLASSES:
            if not any(item.cls == cls for item in items):
                raise DatasetError(f"There is no film of class {cls} {name}; add films of more patients.")
    return parts


@contextmanager
def _room_on_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise TrainingError("The disk is full; make room and train again, it goes on from the checkpoint.") from error


# --- what the run states


def _facts(
    config: TrainConfig,
    data: DataFacts,
    calibrations: tuple[Calibration, Calibration],
    groups: dict[str, Scores],
    audit: Audit | None,
    references: list[ReferenceRun],
) -> RunFacts:
    fold = groups["calibration"]
    shifts = audit.shifts if audit else {}
    others = [
        *(_evaluation_set(f"the calibration fold: {name}", scores) for name, scores in shifts.items()),
        *(_evaluation_set(f"{each.hold_out}, held out by another run", groups[each.hold_out]) for each in references),
    ]
    policy = choose_type_band(choose_policy(_evaluation_set("the calibration fold", fold), others), fold)
    metrics: dict[str, Metric] = audit.metrics(policy) if audit else {}
    for name, group in groups.items():
        metrics |= measure(group, name, policy)
    return RunFacts(
        models=(
            _model_facts(config, DETECTOR, ("normal", "pneumonia"), calibrations[0]),
            _model_facts(config, TYPER, ("viral", "bacterial"), calibrations[1]),
        ),
        policy=policy,
        data=data,
        training=_training_facts(config, references),
        metrics=metrics,
        preprocessing_version=PREPROCESSING_VERSION,
        software={
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "onnx", "onnxruntime", "numpy", "pillow")},
        },
    )


def _evaluation_set(name: str, scores: Scores) -> EvaluationSet:
    return EvaluationSet(name, sigmoid(scores.detector), sigmoid(scores.chest), scores.sick, scores.patients)


def _training_facts(config: TrainConfig, references: Sequence[ReferenceRun] = ()) -> TrainingFacts:
    return TrainingFacts(
        run_id=digest_of((config.out / "config.json").read_bytes())[:12],
        code_version=pneumoserve.__version__,
        seed=config.seed,
        parameters=config.parameters,
        # Which image this is only what starts it can say.
        image_digest=os.environ.get("PNEUMOSERVE_IMAGE") or None,
        reference_runs={each.hold_out: each.facts.training.run_id for each in references},
    )


def _model_facts(config: TrainConfig, name: Any, classes: tuple[str, str], calibration: Calibration) -> ModelFacts:
    folder = config.out / "weights"
    weights = digest_of((folder / f"{name}.safetensors").read_bytes())
    return ModelFacts(
        name=name,
        version=weights[:12],
        architecture=str(config.architecture),
        output="pneumonia_probability" if name == DETECTOR else "bacterial_probability",
        classes=classes,
        weights=weights,
        graph=digest_of((folder / f"{name}.onnx").read_bytes()),
        calibration=calibration,
    )
