"""The learning of one network: batches, stages, steps, checkpoints. Read it from `learn` downwards.

The heads learn alone first, on the trunk as ImageNet left it; then all but the earliest layers do, which stay as they
are. Of every batch 12 films of 32 are normal and 10 of each kind of pneumonia, whatever the dataset's shares.

Each step draws its films, their distortions and its dropout from a generator seeded by (seed, step), so a run that was
killed goes on from its last checkpoint to the very weights it would have had. CPU runs of one machine and thread count
are bit-for-bit repeatable. Under torchrun several workers share each batch (`training.workers`); their number is one of
the parameters, since each distorts and normalises its own share.
"""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from torch import Generator, Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from pneumoserve.models.network import ThreeHeads, early_layers
from training.augment import augment
from training.checkpoints import read_checkpoint, save_checkpoint
from training.config import TrainConfig
from training.errors import TrainingError
from training.scores import auc
from training.source import Films

History = dict[str, list[Any]]
Classes = npt.NDArray[np.str_]

_SEED_STRIDE: Final = 1_000_003
# Far from what seeds and steps reach.
_RANK_STRIDE: Final = 1_000_000_000_039
# However slow the machine, nobody waits longer without a word.
_REPORT_SECONDS: Final = 15.0


@dataclass
class Learner:
    """A network with all that its next step needs: after `done` steps, whose losses and checks are the `history`.

    `cpu_seconds`: what these steps took of one processor, however often the training was stopped.
    """

    network: ThreeHeads
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    done: int = 0
    history: History = field(default_factory=lambda: {"loss": [], "checks": []})
    cpu_seconds: float = 0.0

    def dump(self, claim: str) -> bytes:
        """A checkpoint; `claim` says of which training."""
        state = {
            "claim": claim,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "done": self.done,
            "history": json.dumps(self.history),
            "cpu_seconds": self.cpu_seconds,
        }
        data = io.BytesIO()
        torch.save(state, data)
        return data.getvalue()

    def restore(self, checkpoint: bytes) -> None:
        """Go back to where `dump` was called."""
        state = torch.load(io.BytesIO(checkpoint), weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.done, self.history = state["done"], json.loads(state["history"])
        self.cpu_seconds = state["cpu_seconds"]


def learn(config: TrainConfig, films: Films, checks: Films | None, console: Console) -> Learner:
    """The network after its last step, on the CPU; it goes on from the last checkpoint where there is one.

    `checks`: what the first worker is measured on meanwhile; the others have none.

    Raises:
        TrainingError: the loss is no number.
        OSError: the disk is full.
        StoreError: the store did not take a checkpoint.
    """
    workers = config.workers
    learner = _start(config)
    progress = _Progress(config, console, learner.done)
    pixels, classes = torch.from_numpy(films.pixels), np.array([item.cls for item in films.items])
    # What DDP averages is fixed when it wraps a network, so each stage has a wrapper of its own.
    wrapper: nn.Module | None = None
    while learner.done < config.steps:
        step, began = learner.done, time.process_time()
        batch, labels = _draw_batch(config, step, pixels, classes)
        _set_stage(learner.network, config, step)
        if wrapper is None or step == config.head_steps:
            wrapper = workers.wrap(learner.network)
        loss = _step(config, wrapper, batch, labels)
        _update(learner, loss, workers.mean(loss))
        learner.cpu_seconds += time.process_time() - began
        if checks is not None and _is_due(config, learner.done, config.check_every):
            learner.history["checks"].append({"step": learner.done, **_check(learner.network, checks)})
            progress.report_check(learner)
        saves = _is_due(config, learner.done, config.save_every)
        if saves and workers.leads:
            save_checkpoint(config, learner.dump((config.out / "config.json").read_text()))
        progress.report_step(learner.done, loss, saves)
    learner.network.cpu().eval()
    return learner


def _start(config: TrainConfig) -> Learner:
    """A new learner, or, where there is a checkpoint, the one that it holds; the same at all workers."""
    torch.manual_seed(config.seed)
    network = ThreeHeads(config.architecture)
    network.to(config.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for layer in early_layers(network.trunk, config.frozen_blocks):
        layer.requires_grad_(False)
    optimizer = torch.optim.AdamW(_group_parameters(network, config), config.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps, pct_start=config.warm_up
    )
    learner = Learner(network, optimizer, schedule)
    saved = config.workers.broadcast(read_checkpoint(config.out) if config.workers.leads else None)
    if saved is not None:
        learner.restore(saved)
    return learner


def _group_parameters(network: ThreeHeads, config: TrainConfig) -> list[dict[str, Any]]:
    """What learns, by its weight decay."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not config.decay_matrices_only:
        return [{"params": learning, "weight_decay": config.weight_decay}]
    return [
        {"params": [each for each in learning if each.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [each for each in learning if each.ndim <= 1], "weight_decay": 0.0},
    ]


def _is_due(config: TrainConfig, done: int, every: int) -> bool:
    return done % every == 0 or done == config.steps


# --- one step


def _draw_batch(config: TrainConfig, step: int, films: Tensor, classes: Classes) -> tuple[Tensor, Classes]:
    """This worker's share of a step's batch: distorted films, float [N, size, size] in 0..255, and their classes."""
    workers = config.workers
    generator = _seed(config.seed * _SEED_STRIDE + step)
    chosen = workers.share(_draw_indices(config, classes, generator))
    if workers.rank:
        # The draw is common; distortions and dropout are each worker's own.
        generator = _seed(workers.rank * _RANK_STRIDE + config.seed * _SEED_STRIDE + step)
    return augment(films[chosen], config.size, config.distortions, generator), classes[chosen.numpy()]


def _seed(seed: int) -> Generator:
    """A generator of that seed, which torch's own, for dropout, takes too."""
    torch.manual_seed(seed)
    return Generator().manual_seed(seed)


def _draw_indices(config: TrainConfig, classes: Classes, generator: Generator) -> Tensor:
    """Indices of a batch with the classes in fixed shares, films of a class at random."""
    parts = []
    for cls, count in config.batch_counts.items():
        pool = torch.from_numpy(np.flatnonzero(classes == cls))
        parts.append(pool[torch.randint(len(pool), (count,), generator=generator)])
    return torch.cat(parts)


def _set_stage(network: ThreeHeads, config: TrainConfig, step: int) -> None:
    """What learns in a step: the heads alone at first, then all but the early layers, whose statistics stay too."""
    learning = step >= config.head_steps
    network.train(learning)
    network.trunk.requires_grad_(learning)
    for layer in early_layers(network.trunk, config.frozen_blocks):
        layer.eval().requires_grad_(False)


def _step(config: TrainConfig, network: nn.Module, films: Tensor, classes: Classes) -> Tensor:
    """The loss of one batch: is it pneumonia, and, of those that are, is it bacterial."""
    # A GPU is several times faster in bfloat16; on CPUs it was five times slower.
    with torch.autocast(config.device.partition(":")[0], torch.bfloat16, enabled=config.device != "cpu"):
        detector, typer, _ = (output.float() for output in network(films.to(config.device), distorted=True))
    sick = torch.from_numpy(classes != "normal").float().to(config.device)
    bacterial = torch.from_numpy(classes == "bacterial").float().to(config.device)
    smooth = config.label_smoothing
    found = F.binary_cross_entropy_with_logits(detector, sick * (1 - 2 * smooth) + smooth)
    typed = F.binary_cross_entropy_with_logits(typer, bacterial * (1 - 2 * smooth) + smooth, weight=sick)
    return found + typed


def _update(learner: Learner, loss: Tensor, mean: Tensor) -> None:
    """Learn from a loss; `mean` is that of all workers.

    Raises:
        TrainingError: it is no number.
    """
    if not torch.isfinite(mean):
        raise TrainingError(f"The loss is no number at step {learner.done}; lower --learning-rate and train anew.")
    learner.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    learner.optimizer.step()
    learner.schedule.step()
    learner.history["loss"].append(round(mean.item(), 5))
    learner.done += 1


@torch.inference_mode()
def _check(network: ThreeHeads, films: Films) -> dict[str, float]:
    """How well the network separates the classes of films that it does not learn from."""
    network.eval()
    device = next(network.parameters()).device
    parts = np.array_split(films.pixels, len(films.pixels) // 32 + 1)
    outputs = [network(torch.from_numpy(part).to(device)) for part in parts]
    detector = torch.cat([output[0] for output in outputs]).cpu().numpy()
    typer = torch.cat([output[1] for output in outputs]).cpu().numpy()
    sick = np.array([item.cls != "normal" for item in films.items])
    bacterial = np.array([item.cls == "bacterial" for item in films.items])
    return {
        "detector_auc": round(auc(sick, detector), 5),
        "typer_auc": round(auc(bacterial[sick], typer[sick]), 5),
    }


# --- what whoever waits reads


class _Progress:
    """Lines about the steps, and the time that is left."""

    def __init__(self, config: TrainConfig, console: Console, start: int) -> None:
        self._config, self._console, self._start = config, console, start
        workers = config.workers
        # Of several workers each says who it is.
        self._who = f"worker {workers.rank} of {workers.count}: " if workers.count > 1 else ""
        self._began = self._reported = time.monotonic()
        if start:
            console.print(f"{self._who}going on after step {start} of {config.steps}")

    def report_check(self, learner: Learner) -> None:
        """The figures of a check."""
        last, recent = learner.history["checks"][-1], float(np.mean(learner.history["loss"][-50:]))
        self._console.print(
            f"step {learner.done}/{self._config.steps}  loss {recent:.3f}  detector AUC {last['detector_auc']:.4f}  "
            f"typer AUC {last['typer_auc']:.4f}"
        )

    def report_step(self, done: int, loss: Tensor, saved: bool) -> None:
        """How far it is, after a checkpoint and where the last word is long ago."""
        now = time.monotonic()
        if not saved and now - self._reported <= _REPORT_SECONDS:
            return
        self._reported = now
        pace = (now - self._began) / (done - self._start)
        left = timedelta(seconds=round(pace * (self._config.steps - done)))
        figures = f"loss {loss.item():.3f}  " if self._who else ""
        end = ", saved" if saved and self._config.workers.leads else ""
        self._console.print(
            f"{self._who}step {done}/{self._config.steps}  {figures}{pace:.2f} s a step, {left} left{end}"
        )
