"""The workers of one training: processes that torchrun started, each with its share of every batch.

Torch's own conventions: a worker reads who it is from RANK and WORLD_SIZE, where they meet from MASTER_ADDR and
MASTER_PORT; without them there is one worker, and nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from training.errors import TrainingError

# The others wait for as long while the first worker ingests or checks.
_PATIENCE: Final = timedelta(hours=1)


@dataclass(frozen=True)
class Workers:
    """This worker's `rank` among `count`. Rank 0 leads: it alone checks, saves, exports and prints figures."""

    rank: int = 0
    count: int = 1

    @classmethod
    def from_env(cls) -> Workers:
        """What torchrun says; one worker where it did not start this process."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    @property
    def leads(self) -> bool:
        """Whether this is the worker that writes."""
        return self.rank == 0

    @contextmanager
    def join(self, device: str) -> Iterator[None]:
        """Meet the others, by NCCL between GPUs and Gloo between CPUs, and leave them at the end.

        Within itself it does nothing more.

        Raises:
            TrainingError: not all of them came, or one is gone.
        """
        if self.count == 1 or distributed.is_initialized():
            yield
            return
        try:
            distributed.init_process_group("gloo" if device == "cpu" else "nccl", timeout=_PATIENCE)
            yield
        except RuntimeError as error:
            # Gloo raises a plain RuntimeError where a peer's connection ends, and names itself in its text alone.
            if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
                raise
            raise TrainingError(
                "Another worker of this training is gone; its log says why. "
                "Started again, all go on from the last checkpoint."
            ) from error
        finally:
            if distributed.is_initialized():
                distributed.destroy_process_group()

    def share(self, films: Tensor) -> Tensor:
        """This worker's films of a batch: every `count`th, so that the classes stay in their shares."""
        return films[self.rank :: self.count]

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with its gradients averaged over all workers.

        Each worker normalises by the statistics of its own share; the running averages are those of rank 0, which all
        take over before each step. To look for unused parameters keeps DDP from rearranging its buckets after the first
        step, so that gradients are added in one order wherever a training goes on.
        """
        return network if self.count == 1 else DistributedDataParallel(network, find_unused_parameters=True)

    def mean(self, loss: Tensor) -> Tensor:
        """A figure's mean over the workers."""
        if self.count == 1:
            return loss
        mean = loss.detach().clone()
        distributed.all_reduce(mean)
        return mean / self.count

    def broadcast(self, value: Any) -> Any:
        """What rank 0 gives, at every worker."""
        if self.count == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values)
        return values[0]
