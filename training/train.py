"""Train detector and typer by transfer learning. Read it from `train` downwards.

One EfficientNet-Lite0 trunk with two heads learns both questions at once and is split into the two served models. It
learns in stages: the heads alone on the trunk as ImageNet left it, then all but the earliest layers, which stay as they
are. Last a gate is fitted on the trained trunk. Of every batch 12 films of 32 are normal and 10 of each kind of
pneumonia, whatever the dataset's shares.

Each step draws its films, their distortions and its dropout from a generator seeded by (seed, step), so a run that was
killed goes on from its last checkpoint to the very weights it would have had. CPU runs of one machine and thread count
are bit-for-bit repeatable. Under torchrun several workers share each batch (`training.workers`); their number is one of
the parameters, since each distorts and normalises its own share.
"""

from __future__ import annotations

import errno
import io
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from torch import Generator, Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

import pneumoserve
from pneumoserve.image import PREPROCESSING_VERSION
from pneumoserve.names import DETECTOR, TYPER
from pneumoserve.release.data import DataError, Item, write_data
from pneumoserve.release.holdout import DEFAULT, Parts, parted
from pneumoserve.release.schema import (
    Calibration,
    DataFacts,
    Metric,
    ModelFacts,
    RunFacts,
    TrainingFacts,
    canonical_json,
    digest_of,
)
from training import report
from training.audit import Audit, audited
from training.augment import augment
from training.beside import Beside, pooled, read_beside
from training.dataset import CLASSES, HELD_OUT_FILE, Dataset, DatasetError, held_out
from training.errors import TrainingError
from training.export import Graph, export, scored
from training.fit import calibrated, fit_platt, measured, sigmoid
from training.gate import fit_gate
from training.memory import keep_memory
from training.model import ARCHITECTURE, ThreeHeads, early_layers
from training.openlineage import recorded
from training.policy import Evidence, chosen_policy
from training.remote import RemoteCheckpoints
from training.scores import Scores, auc, write_scores
from training.source import Read, open_dataset, pixels_of
from training.workers import Workers

_MIX: Final = {"normal": 0.375, "bacterial": 0.3125, "viral": 0.3125}
_SEED_STRIDE: Final = 1_000_003
# Far from what seeds and steps reach.
_RANK_STRIDE: Final = 1_000_000_000_039
# However slow the machine, nobody waits longer without a word.
_TELL_SECONDS: Final = 15.0


@dataclass(frozen=True)
class TrainConfig:
    """A training. `dataset` is a folder or an s3:// manifest, `exclude` a file of patients to leave out.

    `hold_out` names the films that never train and that the run is measured on (`pneumoserve.release.holdout.WAYS`),
    beside the calibration fold, which never trains either. `beside` are finished runs of the same recipe that held
    other films out: thresholds must hold on those too. `size` is the side in pixels of the distorted films it learns
    from; the served graph takes 224. `frozen_blocks` of the trunk never learn, and for `head_steps` none does.
    `audit`: measure the shift suite, the gate on what is no chest film, and what covering parts of films does.
    `checkpoints` is an s3://bucket/prefix for copies of the checkpoint, from which an empty `out` goes on; of several
    `workers` each learns from an equal part of every batch.
    """

    dataset: str
    out: Path
    source: str = "a folder of films"
    exclude: Path | None = HELD_OUT_FILE
    hold_out: str = DEFAULT
    beside: tuple[Path, ...] = ()
    steps: int = 800
    head_steps: int = 50
    frozen_blocks: int = 5
    batch: int = 32
    size: int = 160
    learning_rate: float = 8e-4
    weight_decay: float = 0.05
    label_smoothing: float = 0.03
    seed: int = 0
    device: str = "cpu"
    threads: int = 2
    check_every: int = 200
    save_every: int = 50
    audit: bool = True
    checkpoints: str = ""
    workers: Workers = field(default_factory=Workers)

    def excluding(self, patients: str) -> TrainConfig:
        """The same training with patients left out as commands are told: `sample`, `none`, or a file of them."""
        files = {"sample": HELD_OUT_FILE, "none": None}
        return replace(self, exclude=files[patients] if patients in files else Path(patients))

    def of(self, dataset: str) -> TrainConfig:
        """The same training of another dataset."""
        return replace(self, dataset=dataset)

    @property
    def parameters(self) -> dict[str, Any]:
        """What decides the weights; where the films are and where the run is written do not."""
        values = asdict(self)
        for name in ("dataset", "out", "exclude", "source", "beside", "save_every", "seed", "audit", "checkpoints"):
            del values[name]
        del values["workers"]
        if self.workers.count > 1:
            values["workers"] = self.workers.count
        return {**values, "optimizer": "AdamW, one cycle", "mix": _MIX, "architecture": ARCHITECTURE}


def train(config: TrainConfig, console: Console | None = None) -> Path:
    """Train, calibrate, choose thresholds and measure; returns the run's folder, whose `run.json` comes last.

    Of several workers the first does all of this; the others only learn, write nothing and are then done.

    Raises:
        DatasetError: the dataset is not usable.
        TrainingError: no such device, a run of something else in `out` or `checkpoints`, a loss that is no number, a
            batch that the workers cannot share, or a worker that is gone.
        StoreError: the store does not give or take a checkpoint.
    """
    console = console or Console()
    settle(config)
    with config.workers.joined(config.device):
        return _trained(config, console)


def _trained(config: TrainConfig, console: Console) -> Path:
    beside = [read_beside(run) for run in config.beside]
    whole, read = open_dataset(config.dataset)
    patients = held_out(config.exclude) & {item.patient for item in whole.items}
    dataset = whole.without(patients)
    parts = _parts(dataset, config.hold_out)
    console.print(
        f"{len(whole.items) - len(dataset.items)} films of left out patients; of the others {len(parts.learned)} are "
        f"learned from, {len(parts.calibration)} calibrate, {len(parts.held_out)} are held out ({config.hold_out})"
    )
    for each in beside:
        each.check(dataset.digest, config.parameters)
    if not config.workers.leads:
        _learned(config, _films(parts.learned, read, "reading films"), None, console)
        return config.out
    _claim(config, dataset)
    # What comes next replaces what an earlier `run.json` states: without it the run is unfinished.
    (config.out / "run.json").unlink(missing_ok=True)
    with recorded(config.out, _training(config), dataset.facts(config.source, len(patients))) as completed:
        with _room_on_disk():
            facts = _run(config, dataset, len(patients), parts, beside, read, console)
            temporary = config.out / "run.json.part"
            temporary.write_bytes(canonical_json(facts))
            temporary.replace(config.out / "run.json")
        completed(facts)
    return config.out


def _run(
    config: TrainConfig,
    dataset: Dataset,
    excluded: int,
    parts: Parts,
    beside: list[Beside],
    read: Read,
    console: Console,
) -> RunFacts:
    films = _films(list(dataset.items), read, "reading films")
    write_data(config.out, dataset.items, films.digests)
    learned, calibration, held = (films.of(part) for part in (parts.learned, parts.calibration, _watched(parts)))
    network = _learned(config, learned, held if held.items else calibration, console)
    console.print("fitting the gate, exporting, scoring, calibrating, auditing")
    fit_gate(network, learned.pixels, config.seed)
    graphs = _exported(config.out, network)
    scores = {"calibration": scored(graphs, calibration.items, calibration.pixels, "scoring the calibration fold")}
    if held.items:
        scores[config.hold_out] = scored(graphs, held.items, held.pixels, "scoring what is held out")
    write_scores(config.out / "oof.parquet", scores)
    fold = scores["calibration"]
    # Both classes weigh the same: the prevalence where it serves is nobody's to know here. The policy says so.
    detector = fit_platt(fold.detector, fold.sick, balanced=True)
    typer = fit_platt(fold.typer[fold.sick], fold.bacterial[fold.sick], balanced=False)
    beside_groups = pooled(beside, fold)
    groups = {name: calibrated(each, detector, typer) for name, each in {**scores, **beside_groups}.items()}
    audit = audited(graphs, fold, calibration.pixels, config.seed).calibrated(detector, typer) if config.audit else None
    facts = _facts(config, dataset.facts(config.source, excluded), (detector, typer), groups, audit, beside)
    report.draw(config.out / "report", facts, groups, audit, _history(config.out))
    return facts


# --- what a training must have before it starts


def settle(config: TrainConfig) -> None:
    """Set this process up for a training, before it meets other workers.

    Raises:
        TrainingError: no such device, or a batch that the workers cannot share.
    """
    if config.device != "cpu" and not torch.cuda.is_available():
        raise TrainingError(f"There is no {config.device} device here; leave out --device to train on the CPU.")
    films = sum(_counts(config.batch).values())
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


def _parts(dataset: Dataset, hold_out: str) -> Parts:
    """What becomes of the films.

    Raises:
        DatasetError: where a part that needs all classes lacks one, or `hold_out` is no way to hold films out.
    """
    try:
        parts = parted(dataset.items, hold_out)
    except DataError as error:
        raise DatasetError(str(error)) from error
    for name, items in (("left to learn from", parts.learned), ("in the calibration fold", parts.calibration)):
        for cls in CLASSES:
            if not any(item.cls == cls for item in items):
                raise DatasetError(f"There is no film of class {cls} {name}; add films of more patients.")
    return parts


def _watched(parts: Parts) -> list[Item]:
    """What a run is measured on: the held out films, and of a class that they lack the calibration fold's."""
    there = {item.cls for item in parts.held_out}
    return parts.held_out and parts.held_out + [item for item in parts.calibration if item.cls not in there]


@contextmanager
def _room_on_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise TrainingError("The disk is full; make room and train again, it goes on from the checkpoint.") from error


def _claim(config: TrainConfig, dataset: Dataset) -> None:
    """Make `out` the folder of this very training, so that a resumed run is the same run."""
    claim = canonical_json({"dataset": dataset.digest, "parameters": config.parameters, "seed": config.seed})
    file = config.out / "config.json"
    if not file.exists():
        config.out.mkdir(parents=True, exist_ok=True)
        file.write_bytes(claim)
    elif file.read_bytes() != claim:
        raise TrainingError(f"The folder {config.out.name} holds another training; give another --out or remove it.")
    if config.checkpoints and not _last(config.out).exists():
        _fetch(config, claim)


def _fetch(config: TrainConfig, claim: bytes) -> None:
    """Take the checkpoint of this training from the store, where it has one."""
    saved = RemoteCheckpoints(config.checkpoints).load()
    if saved is None:
        return
    if torch.load(io.BytesIO(saved), weights_only=True, map_location="cpu").get("claim") != claim.decode():
        raise TrainingError(
            f"{config.checkpoints} holds the checkpoint of another training (of other films, parameters or seed); "
            "give another --checkpoints or remove it."
        )
    _write(config.out, saved)


@dataclass(frozen=True)
class _Films:
    """Films and their prepared pixels, uint8 [N, 224, 224]."""

    items: list[Item]
    pixels: npt.NDArray[np.uint8]

    def of(self, items: list[Item]) -> _Films:
        """Some of them."""
        places = {item.sha256: place for place, item in enumerate(self.items)}
        return _Films(items, self.pixels[[places[item.sha256] for item in items]])

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each film's pixels, by that of its file."""
        return {item.sha256: digest_of(film.tobytes()) for item, film in zip(self.items, self.pixels, strict=True)}


def _films(items: list[Item], read: Read, told: str) -> _Films:
    return _Films(items, pixels_of(items, read, told))


# --- learning


def _learned(config: TrainConfig, learned: _Films, checked: _Films | None, console: Console) -> ThreeHeads:
    """The network after its last step, from the last checkpoint on where there is one.

    `checked`: what the first worker is measured on; the others have none.
    """
    workers = config.workers
    # Of several workers each says who it is.
    who = f"worker {workers.rank} of {workers.count}: " if workers.count > 1 else ""
    torch.manual_seed(config.seed)
    network: ThreeHeads = ThreeHeads().to(config.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for layer in early_layers(network.trunk, config.frozen_blocks):
        layer.requires_grad_(False)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in network.parameters() if parameter.requires_grad],
        config.learning_rate,
        weight_decay=config.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=config.steps)
    films, classes = torch.from_numpy(learned.pixels), np.array([item.cls for item in learned.items])
    saved_bytes = workers.told_by_the_leader(_saved(config.out) if workers.leads else None)
    start, history = _restored(saved_bytes, network, optimizer, schedule)
    if start:
        console.print(f"{who}going on after step {start} of {config.steps}")
    # What it averages is fixed when it is wrapped, so each stage has a wrapping of its own.
    wrapped: nn.Module | None = None

    started = told = time.monotonic()
    for step in range(start, config.steps):
        generator = Generator().manual_seed(config.seed * _SEED_STRIDE + step)
        torch.manual_seed(config.seed * _SEED_STRIDE + step)
        chosen = workers.share(_drawn(classes, config.batch, generator))
        if workers.rank:
            # The draw is common; distortions and dropout are each worker's own.
            generator.manual_seed(workers.rank * _RANK_STRIDE + config.seed * _SEED_STRIDE + step)
            torch.manual_seed(workers.rank * _RANK_STRIDE + config.seed * _SEED_STRIDE + step)
        _set_stage(network, config, step)
        if wrapped is None or step == config.head_steps:
            wrapped = workers.wrapped(network)
        loss = _step(config, wrapped, augment(films[chosen], config.size, generator), classes[chosen.numpy()])
        mean = workers.mean(loss)
        if not torch.isfinite(mean):
            raise TrainingError(f"The loss is no number at step {step}; lower --learning-rate and train anew.")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        history["loss"].append(round(mean.item(), 5))
        done = step + 1
        if checked is not None and (done % config.check_every == 0 or done == config.steps):
            history["checks"].append({"step": done, **_checked(network, checked.items, checked.pixels)})
            console.print(f"step {done}/{config.steps}  {_told(history)}")
        saved = done % config.save_every == 0 or done == config.steps
        if saved and workers.leads:
            _save(config, network, optimizer, schedule, done, history)
        if saved or time.monotonic() - told > _TELL_SECONDS:
            told = time.monotonic()
            pace = (told - started) / (done - start)
            left = timedelta(seconds=round(pace * (config.steps - done)))
            figures = f"loss {loss.item():.3f}  " if who else ""
            end = ", saved" if saved and workers.leads else ""
            console.print(f"{who}step {done}/{config.steps}  {figures}{pace:.2f} s a step, {left} left{end}")
    return network.cpu().eval()


def _drawn(classes: npt.NDArray[Any], batch: int, generator: Generator) -> Tensor:
    """Indices of a batch with the classes in fixed shares, films of a class at random."""
    parts = []
    for cls, count in _counts(batch).items():
        pool = torch.from_numpy(np.flatnonzero(classes == cls))
        parts.append(pool[torch.randint(len(pool), (count,), generator=generator)])
    return torch.cat(parts)


def _counts(batch: int) -> dict[str, int]:
    """Films of each class in a batch."""
    return {cls: round(batch * share) for cls, share in _MIX.items()}


def _set_stage(network: ThreeHeads, config: TrainConfig, step: int) -> None:
    """What learns in a step: the heads alone at first, then all but the early layers, whose statistics stay too."""
    learning = step >= config.head_steps
    network.train(learning)
    network.trunk.requires_grad_(learning)
    for layer in early_layers(network.trunk, config.frozen_blocks):
        layer.eval().requires_grad_(False)


def _step(config: TrainConfig, network: nn.Module, films: Tensor, classes: npt.NDArray[Any]) -> Tensor:
    """The loss of one batch: is it pneumonia, and, of those that are, is it bacterial."""
    # A GPU is several times faster in bfloat16; on CPUs it was five times slower.
    with torch.autocast(config.device.partition(":")[0], torch.bfloat16, enabled=config.device != "cpu"):
        detector, typer, _ = (output.float() for output in network(films.to(config.device)))
    sick = torch.from_numpy(classes != "normal").float().to(config.device)
    bacterial = torch.from_numpy(classes == "bacterial").float().to(config.device)
    smooth = config.label_smoothing
    found = F.binary_cross_entropy_with_logits(detector, sick * (1 - 2 * smooth) + smooth)
    typed = F.binary_cross_entropy_with_logits(typer, bacterial * (1 - 2 * smooth) + smooth, weight=sick)
    return found + typed


@torch.inference_mode()
def _checked(network: ThreeHeads, items: list[Item], pixels: npt.NDArray[np.uint8]) -> dict[str, float]:
    network.eval()
    device = next(network.parameters()).device
    outputs = [network(torch.from_numpy(part).to(device)) for part in np.array_split(pixels, len(pixels) // 32 + 1)]
    detector = torch.cat([output[0] for output in outputs]).cpu().numpy()
    typer = torch.cat([output[1] for output in outputs]).cpu().numpy()
    sick = np.array([item.cls != "normal" for item in items])
    bacterial = np.array([item.cls == "bacterial" for item in items])
    return {
        "detector_auc": round(auc(sick, detector), 5),
        "typer_auc": round(auc(bacterial[sick], typer[sick]), 5),
    }


def _told(history: dict[str, list[Any]]) -> str:
    last = history["checks"][-1]
    recent = float(np.mean(history["loss"][-50:]))
    return f"loss {recent:.3f}  detector AUC {last['detector_auc']:.4f}  typer AUC {last['typer_auc']:.4f}"


# --- checkpoints


def _last(out: Path) -> Path:
    return out / "checkpoints" / "last.pt"


def _save(
    config: TrainConfig,
    network: ThreeHeads,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    done: int,
    history: dict[str, list[Any]],
) -> None:
    state = {
        "claim": (config.out / "config.json").read_text(),
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "done": done,
        "history": json.dumps(history),
    }
    data = io.BytesIO()
    torch.save(state, data)
    _write(config.out, data.getvalue())
    if config.checkpoints:
        RemoteCheckpoints(config.checkpoints).save(data.getvalue())


def _write(out: Path, checkpoint: bytes) -> None:
    _last(out).parent.mkdir(exist_ok=True)
    temporary = _last(out).with_suffix(".pt.part")
    temporary.write_bytes(checkpoint)
    temporary.replace(_last(out))


def _saved(out: Path) -> bytes | None:
    return _last(out).read_bytes() if _last(out).exists() else None


def _restored(
    saved: bytes | None,
    network: ThreeHeads,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> tuple[int, dict[str, list[Any]]]:
    """The number of steps done and the history so far; (0, empty) without a checkpoint."""
    if saved is None:
        return 0, {"loss": [], "checks": []}
    state = torch.load(io.BytesIO(saved), weights_only=True)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return state["done"], json.loads(state["history"])


def _history(out: Path) -> dict[str, list[Any]]:
    history: dict[str, list[Any]] = json.loads(torch.load(_last(out), weights_only=True)["history"])
    return history


# --- what the run states


def _exported(out: Path, network: ThreeHeads) -> dict[str, Graph]:
    shutil.rmtree(out / "weights", ignore_errors=True)
    names = (DETECTOR, TYPER)
    return {
        name: Graph(export(film, out / "weights", name)[1]) for film, name in zip(network.split(), names, strict=True)
    }


def _facts(
    config: TrainConfig,
    data: DataFacts,
    calibrations: tuple[Calibration, Calibration],
    groups: dict[str, Scores],
    audit: Audit | None,
    beside: list[Beside],
) -> RunFacts:
    fold = groups["calibration"]
    shifts = audit.shifts if audit else {}
    others = [
        *(_evidence(f"the calibration fold: {name}", scores) for name, scores in shifts.items()),
        *(_evidence(f"{each.hold_out}, held out by another run", groups[each.hold_out]) for each in beside),
    ]
    policy = chosen_policy(_evidence("the calibration fold", fold), others, sigmoid(fold.typer[fold.sick]))
    metrics: dict[str, Metric] = audit.metrics(policy) if audit else {}
    for name, group in groups.items():
        metrics |= measured(group, name, policy)
    return RunFacts(
        models=(
            _model_facts(config.out, DETECTOR, ("normal", "pneumonia"), calibrations[0]),
            _model_facts(config.out, TYPER, ("viral", "bacterial"), calibrations[1]),
        ),
        policy=policy,
        data=data,
        training=_training(config, beside),
        metrics=metrics,
        preprocessing_version=PREPROCESSING_VERSION,
        software={
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "onnx", "onnxruntime", "numpy", "pillow")},
        },
    )


def _evidence(name: str, scores: Scores) -> Evidence:
    return Evidence(name, sigmoid(scores.detector), sigmoid(scores.chest), scores.sick, scores.patients)


def _training(config: TrainConfig, beside: Sequence[Beside] = ()) -> TrainingFacts:
    return TrainingFacts(
        run_id=digest_of((config.out / "config.json").read_bytes())[:12],
        code_version=pneumoserve.__version__,
        seed=config.seed,
        parameters=config.parameters,
        # Which image this is only what starts it can say.
        image_digest=os.environ.get("PNEUMOSERVE_IMAGE") or None,
        beside={each.hold_out: each.facts.training.run_id for each in beside},
    )


def _model_facts(out: Path, name: Any, classes: tuple[str, str], calibration: Calibration) -> ModelFacts:
    weights = digest_of((out / "weights" / f"{name}.safetensors").read_bytes())
    return ModelFacts(
        name=name,
        version=weights[:12],
        architecture=ARCHITECTURE,
        output="pneumonia_probability" if name == DETECTOR else "bacterial_probability",
        classes=classes,
        weights=weights,
        graph=digest_of((out / "weights" / f"{name}.onnx").read_bytes()),
        calibration=calibration,
    )
