"""The last checkpoint of a run: in the run's folder, with a copy in the object store where one is asked for.

A training whose pod and disk are gone goes on from the copy.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import torch

from pneumoserve.canonical import canonical_json
from pneumoserve.store import NotFoundError, S3Settings, S3Store
from training.config import TrainConfig
from training.errors import TrainingError
from training.source import bucket_and_key

_NAME: Final = "last.pt"


class RemoteCheckpoints:
    """The last checkpoint below an `s3://bucket/prefix`. It is one object, so it is there whole or not at all."""

    def __init__(self, url: str) -> None:
        """Reads the S3_* settings.

        Raises:
            DatasetError: the address names no bucket.
            StoreError: a setting is missing.
        """
        bucket, prefix = bucket_and_key(url)
        self._store = S3Store(S3Settings.from_env().in_bucket(bucket), patient=True)
        self._key = f"{prefix}/{_NAME}".lstrip("/")

    def save(self, checkpoint: bytes) -> None:
        """Put a checkpoint in the place of the one before.

        Raises:
            StoreError: the store did not take it.
        """
        self._store.put(self._key, checkpoint, "application/octet-stream")

    def load(self) -> bytes | None:
        """The last checkpoint, None where there is none.

        Raises:
            StoreError: the store did not give it.
        """
        try:
            return self._store.get(self._key)
        except NotFoundError:
            return None


def claim_folder(config: TrainConfig, dataset: str) -> None:
    """Make `out` the folder of this very training, so that a resumed run is the same run.

    `dataset`: its digest. Where the folder has no checkpoint, the store's is taken.

    Raises:
        TrainingError: the folder or the store holds another training.
        StoreError: the store did not give its checkpoint.
    """
    claim = canonical_json({"dataset": dataset, "parameters": config.parameters, "seed": config.seed})
    file = config.out / "config.json"
    if not file.exists():
        config.out.mkdir(parents=True, exist_ok=True)
        file.write_bytes(claim)
    elif file.read_bytes() != claim:
        raise TrainingError(f"The folder {config.out.name} holds another training; give another --out or remove it.")
    if config.checkpoints and read_checkpoint(config.out) is None:
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


def read_checkpoint(out: Path) -> bytes | None:
    """The last checkpoint in a run's folder, None where there is none."""
    file = _file(out)
    return file.read_bytes() if file.exists() else None


def save_checkpoint(config: TrainConfig, checkpoint: bytes) -> None:
    """Put a checkpoint in the place of the one before, in the run's folder and in the store.

    Raises:
        OSError: the disk is full.
        StoreError: the store did not take it.
    """
    _write(config.out, checkpoint)
    if config.checkpoints:
        RemoteCheckpoints(config.checkpoints).save(checkpoint)


def _file(out: Path) -> Path:
    return out / "checkpoints" / _NAME


def _write(out: Path, checkpoint: bytes) -> None:
    _file(out).parent.mkdir(exist_ok=True)
    temporary = _file(out).with_suffix(".pt.part")
    temporary.write_bytes(checkpoint)
    temporary.replace(_file(out))
