"""What a training is: its films, its parameters and where it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from pneumoserve.models.architecture import Architecture
from pneumoserve.release.holdout import DEFAULT
from training.augment import Distortions
from training.dataset import EXCLUDED_PATIENTS_FILE
from training.workers import Workers

_MIX: Final = {"normal": 0.375, "bacterial": 0.3125, "viral": 0.3125}
# Where the films are and where the run is written decides no weight; seed and workers are stated on their own.
_NO_PARAMETERS: Final = (
    "dataset", "out", "exclude", "source", "reference_runs", "save_every", "seed", "audit", "checkpoints", "workers",
)  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """A training. `dataset` is a folder or an s3:// manifest, `exclude` a file of patients to leave out.

    `hold_out` names the films that never train and that the run is measured on (`pneumoserve.release.holdout.WAYS`),
    beside the calibration fold, which never trains either. `reference_runs` are finished runs of the same recipe that
    held other films out: thresholds must hold on those too. `architecture` says what is served, `size` the side in
    pixels of the films it learns from, which `distortions` made. `mix` has each class's share of a batch.

    The trunk's stem and its first `frozen_blocks` never learn, with 0 blocks all of it does; for `head_steps` the heads
    learn alone. The learning rate rises for a share `warm_up` of the steps, then falls. `decay_matrices_only`: biases
    and the scales of normalisation do not decay.

    `audit`: measure the shift suite, the gate on what is no chest film, and what covering parts of films does.
    `checkpoints` is an s3://bucket/prefix for copies of the checkpoint, from which an empty `out` goes on; of several
    `workers` each learns from an equal part of every batch.
    """

    dataset: str
    out: Path
    source: str = "a folder of films"
    exclude: Path | None = EXCLUDED_PATIENTS_FILE
    hold_out: str = DEFAULT
    reference_runs: tuple[Path, ...] = ()
    steps: int = 800
    head_steps: int = 50
    frozen_blocks: int = 5
    batch: int = 32
    mix: Mapping[str, float] = field(default_factory=lambda: _MIX)
    size: int = 160
    architecture: Architecture = field(default_factory=Architecture)
    distortions: Distortions = field(default_factory=Distortions)
    learning_rate: float = 8e-4
    warm_up: float = 0.3
    weight_decay: float = 0.05
    decay_matrices_only: bool = False
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
        """The same training without some patients: `sample`, `none`, or the path of a file that lists them."""
        files = {"sample": EXCLUDED_PATIENTS_FILE, "none": None}
        return replace(self, exclude=files[patients] if patients in files else Path(patients))

    def of(self, dataset: str) -> TrainConfig:
        """The same training of another dataset."""
        return replace(self, dataset=dataset)

    @property
    def batch_counts(self) -> dict[str, int]:
        """Films of each class in a batch."""
        return {cls: round(self.batch * share) for cls, share in self.mix.items()}

    @property
    def parameters(self) -> dict[str, Any]:
        """What decides the weights, beside the seed."""
        values = {name: value for name, value in asdict(self).items() if name not in _NO_PARAMETERS}
        if self.workers.count > 1:
            values["workers"] = self.workers.count
        return {**values, "optimizer": "AdamW, one cycle", "architecture": str(self.architecture)}
