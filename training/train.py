"""Train detector and typer by transfer learning. Read it from `train` downwards.

One EfficientNet-Lite0 trunk with two heads learns both questions at once and is split into the two served models.
Each step draws its films, their distortions and its dropout from a generator seeded by (seed, step), so a run that was
killed goes on from its last checkpoint to the very weights it would have had. CPU runs of one machine and thread
count are bit-for-bit repeatable.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from torch import Generator, Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

import pneumoserve
from pneumoserve.image import PREPROCESSING_VERSION
from pneumoserve.names import DETECTOR, TYPER
from pneumoserve.release.data import Item, Split, write_data
from pneumoserve.release.schema import (
    Calibration,
    Metric,
    ModelFacts,
    RunFacts,
    TrainingFacts,
    canonical_json,
    digest_of,
)
from training import report
from training.augment import augment
from training.dataset import CLASSES, HELD_OUT_FILE, Dataset, DatasetError, held_out
from training.export import export, logits
from training.fit import chosen_policy, fit_platt, measured, probabilities
from training.model import ARCHITECTURE, TwoHeads
from training.openlineage import recorded
from training.source import Read, open_dataset, pixels_of

_MIX: Final = {"normal": 0.5, "bacterial": 0.25, "viral": 0.25}
_SEED_STRIDE: Final = 1_000_003
# However slow the machine, nobody waits longer without a word.
_TELL_SECONDS: Final = 15.0


class TrainingError(RuntimeError):
    """A training that cannot go on; its text says what to do. What was reached stays in the run's checkpoint."""


@dataclass(frozen=True)
class TrainConfig:
    """A training. `dataset` is a folder or an s3:// manifest, `exclude` a file of patients to leave out.

    `size` is the side in pixels of the distorted films it learns from; the served graph takes 224.
    """

    dataset: str
    out: Path
    source: str = "a folder of films"
    exclude: Path | None = HELD_OUT_FILE
    steps: int = 1000
    batch: int = 32
    size: int = 192
    learning_rate: float = 8e-4
    weight_decay: float = 0.05
    label_smoothing: float = 0.03
    seed: int = 0
    device: str = "cpu"
    threads: int = 2
    check_every: int = 200
    save_every: int = 50

    def excluding(self, patients: Path | None) -> TrainConfig:
        """The same training, other patients left out; None leaves out nobody."""
        return replace(self, exclude=patients)

    @property
    def parameters(self) -> dict[str, Any]:
        """What decides the result; where the films are and where the run is written do not."""
        values = asdict(self)
        for name in ("dataset", "out", "exclude", "source", "save_every", "seed"):
            del values[name]
        return {**values, "optimizer": "AdamW, one cycle", "mix": _MIX, "architecture": ARCHITECTURE}


def train(config: TrainConfig, console: Console | None = None) -> Path:
    """Train, calibrate, choose thresholds and measure; returns the run's folder, whose `run.json` comes last.

    Raises:
        DatasetError: the dataset is not usable.
        TrainingError: no such device, a run of something else in `out`, or a loss that is no number.
    """
    console = console or Console()
    _settle(config)
    whole, read = open_dataset(config.dataset)
    patients = held_out(config.exclude) & {item.patient for item in whole.items}
    dataset = whole.without(patients)
    _check(dataset)
    console.print(f"{len(dataset.items)} films after leaving out {len(whole.items) - len(dataset.items)}")
    _claim(config, dataset)
    # What comes next replaces what an earlier `run.json` states: without it the run is unfinished.
    (config.out / "run.json").unlink(missing_ok=True)
    with recorded(config.out, _training(config), dataset.facts(config.source, len(patients))) as completed:
        facts = _run(config, dataset, len(patients), read, console)
        temporary = config.out / "run.json.part"
        temporary.write_bytes(canonical_json(facts))
        temporary.replace(config.out / "run.json")
        completed(facts)
    return config.out


def _run(config: TrainConfig, dataset: Dataset, excluded: int, read: Read, console: Console) -> RunFacts:
    learned = _films(dataset.of("train"), read, "reading training films")
    held_back = _films(dataset.of("validation", "calibration"), read, "reading held-back films")
    write_data(config.out, dataset.items, {**learned.digests, **held_back.digests})
    network = _learned(config, learned, held_back.of("validation"), console)
    console.print("exporting, scoring, calibrating")
    scores = _scored(config.out, network, held_back)
    facts = _facts(config, dataset, excluded, scores)
    report.write_scores(config.out / "oof.parquet", scores)
    report.draw(config.out / "report", facts, scores, _history(config.out))
    return facts


# --- what a training must have before it starts


def _settle(config: TrainConfig) -> None:
    if config.device != "cpu" and not torch.cuda.is_available():
        raise TrainingError(f"There is no {config.device} device here; leave out --device to train on the CPU.")
    torch.set_num_threads(config.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)


def _check(dataset: Dataset) -> None:
    for split in ("train", "calibration", "validation"):
        for cls in CLASSES:
            if not any(item.split == split and item.cls == cls for item in dataset.items):
                raise DatasetError(f"The {split} split has no film of class {cls}; add films of more patients.")


def _claim(config: TrainConfig, dataset: Dataset) -> None:
    """Make `out` the folder of this very training, so that a resumed run is the same run."""
    claim = canonical_json({"dataset": dataset.digest, "parameters": config.parameters, "seed": config.seed})
    file = config.out / "config.json"
    if not file.exists():
        config.out.mkdir(parents=True, exist_ok=True)
        file.write_bytes(claim)
    elif file.read_bytes() != claim:
        raise TrainingError(f"The folder {config.out.name} holds another training; give another --out or remove it.")


@dataclass(frozen=True)
class _Films:
    """Films and their prepared pixels, uint8 [N, 224, 224]."""

    items: list[Item]
    pixels: npt.NDArray[np.uint8]

    def of(self, split: Split) -> _Films:
        """Those of one split."""
        wanted = [index for index, item in enumerate(self.items) if item.split == split]
        return _Films([self.items[index] for index in wanted], self.pixels[wanted])

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each film's pixels, by that of its file."""
        return {item.sha256: digest_of(film.tobytes()) for item, film in zip(self.items, self.pixels, strict=True)}


def _films(items: list[Item], read: Read, told: str) -> _Films:
    return _Films(items, pixels_of(items, read, told))


# --- learning


def _learned(config: TrainConfig, learned: _Films, checked: _Films, console: Console) -> TwoHeads:
    """The network after its last step, from the last checkpoint on where there is one."""
    torch.manual_seed(config.seed)
    network: TwoHeads = TwoHeads().to(config.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=config.steps)
    films, classes = torch.from_numpy(learned.pixels), np.array([item.cls for item in learned.items])
    start, history = _restored(config.out, network, optimizer, schedule)
    if start:
        console.print(f"going on after step {start} of {config.steps}")

    started = told = time.monotonic()
    for step in range(start, config.steps):
        generator = Generator().manual_seed(config.seed * _SEED_STRIDE + step)
        torch.manual_seed(config.seed * _SEED_STRIDE + step)
        chosen = _drawn(classes, config.batch, generator)
        loss = _step(config, network, augment(films[chosen], config.size, generator), classes[chosen.numpy()])
        if not torch.isfinite(loss):
            raise TrainingError(f"The loss is no number at step {step}; lower --learning-rate and train anew.")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        history["loss"].append(round(loss.item(), 5))
        done = step + 1
        if done % config.check_every == 0 or done == config.steps:
            history["checks"].append({"step": done, **_checked(network, checked.items, checked.pixels)})
            console.print(f"step {done}/{config.steps}  {_told(history)}")
        if saved := done % config.save_every == 0 or done == config.steps:
            _save(config.out, network, optimizer, schedule, done, history)
        if saved or time.monotonic() - told > _TELL_SECONDS:
            told = time.monotonic()
            pace = (told - started) / (done - start)
            left = timedelta(seconds=round(pace * (config.steps - done)))
            console.print(f"step {done}/{config.steps}  {pace:.2f} s a step, {left} left{', saved' if saved else ''}")
    return network.cpu().eval()


def _drawn(classes: npt.NDArray[Any], batch: int, generator: Generator) -> Tensor:
    """Indices of a batch with the classes in fixed shares, films of a class at random."""
    parts = []
    for cls, share in _MIX.items():
        pool = torch.from_numpy(np.flatnonzero(classes == cls))
        parts.append(pool[torch.randint(len(pool), (round(batch * share),), generator=generator)])
    return torch.cat(parts)


def _step(config: TrainConfig, network: TwoHeads, films: Tensor, classes: npt.NDArray[Any]) -> Tensor:
    """The loss of one batch: is it pneumonia, and, of those that are, is it bacterial."""
    network.train()
    detector, typer = network(films.to(config.device))
    sick = torch.from_numpy(classes != "normal").float().to(config.device)
    bacterial = torch.from_numpy(classes == "bacterial").float().to(config.device)
    smooth = config.label_smoothing
    found = F.binary_cross_entropy_with_logits(detector, sick * (1 - 2 * smooth) + smooth)
    typed = F.binary_cross_entropy_with_logits(typer, bacterial * (1 - 2 * smooth) + smooth, weight=sick)
    return found + typed


@torch.inference_mode()
def _checked(network: TwoHeads, items: list[Item], pixels: npt.NDArray[np.uint8]) -> dict[str, float]:
    network.eval()
    device = next(network.parameters()).device
    outputs = [network(torch.from_numpy(part).to(device)) for part in np.array_split(pixels, len(pixels) // 32 + 1)]
    detector = torch.cat([output[0] for output in outputs]).cpu().numpy()
    typer = torch.cat([output[1] for output in outputs]).cpu().numpy()
    sick = np.array([item.cls != "normal" for item in items])
    bacterial = np.array([item.cls == "bacterial" for item in items])
    return {
        "detector_auc": round(report.auc(sick, detector), 5),
        "typer_auc": round(report.auc(bacterial[sick], typer[sick]), 5),
    }


def _told(history: dict[str, list[Any]]) -> str:
    last = history["checks"][-1]
    recent = float(np.mean(history["loss"][-50:]))
    return f"loss {recent:.3f}  detector AUC {last['detector_auc']:.4f}  typer AUC {last['typer_auc']:.4f}"


# --- checkpoints


def _save(
    out: Path,
    network: TwoHeads,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    done: int,
    history: dict[str, list[Any]],
) -> None:
    folder = out / "checkpoints"
    folder.mkdir(exist_ok=True)
    state = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "done": done,
        "history": json.dumps(history),
    }
    temporary = folder / "last.pt.part"
    torch.save(state, temporary)
    temporary.replace(folder / "last.pt")


def _restored(
    out: Path,
    network: TwoHeads,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> tuple[int, dict[str, list[Any]]]:
    """The number of steps done and the history so far; (0, empty) without a checkpoint."""
    file = out / "checkpoints" / "last.pt"
    if not file.exists():
        return 0, {"loss": [], "checks": []}
    state = torch.load(file, weights_only=True)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return state["done"], json.loads(state["history"])


def _history(out: Path) -> dict[str, list[Any]]:
    history: dict[str, list[Any]] = json.loads(
        torch.load(out / "checkpoints" / "last.pt", weights_only=True)["history"]
    )
    return history


# --- what the run states


def _scored(out: Path, network: TwoHeads, held_back: _Films) -> report.Scores:
    """Export both models and score the folds that never trained through the exported graphs, as serving would."""
    shutil.rmtree(out / "weights", ignore_errors=True)
    graphs = [
        export(film, out / "weights", name)[1] for film, name in zip(network.split(), (DETECTOR, TYPER), strict=True)
    ]
    return report.Scores(held_back.items, *(logits(graph, held_back.pixels) for graph in graphs))


def _facts(config: TrainConfig, dataset: Dataset, excluded: int, scores: report.Scores) -> RunFacts:
    fold = scores.of("calibration")
    # Both classes weigh the same: the network was taught with as many normal as sick films, and the prevalence where
    # it serves is nobody's to know here. The policy says so.
    detector = fit_platt(fold.detector, fold.sick, balanced=True)
    typer = fit_platt(fold.typer[fold.sick], fold.bacterial[fold.sick], balanced=False)
    policy = chosen_policy(probabilities(detector, fold.detector), fold.sick)
    models = (
        _model_facts(config.out, DETECTOR, ("normal", "pneumonia"), detector),
        _model_facts(config.out, TYPER, ("viral", "bacterial"), typer),
    )
    metrics: dict[str, Metric] = {}
    folds: tuple[Split, ...] = ("validation", "calibration")
    for split in folds:
        metrics |= measured(scores.of(split), split, detector, typer, policy)
    return RunFacts(
        models=models,
        policy=policy,
        data=dataset.facts(config.source, excluded),
        training=_training(config),
        metrics=metrics,
        preprocessing_version=PREPROCESSING_VERSION,
        software={
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "onnx", "onnxruntime", "numpy", "pillow")},
        },
    )


def _training(config: TrainConfig) -> TrainingFacts:
    return TrainingFacts(
        run_id=digest_of((config.out / "config.json").read_bytes())[:12],
        code_version=pneumoserve.__version__,
        seed=config.seed,
        parameters=config.parameters,
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
