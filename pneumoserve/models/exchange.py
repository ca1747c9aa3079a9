"""The form of what a front and the models' workers say to each other, where they run without TorchServe.

Each worker listens on a Unix socket of its own, in one folder. It greets who connects once it has loaded its models. A
request is the number of a model in MODELS, as one byte, and the pixels of one image, uint8 of shape [224, 224]. Its
answer is LENGTH and a score as JSON, in the form of TorchServe's handler. Answers come in the order of requests.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

from pneumoserve.names import DETECTOR, TYPER

GREETING: Final = b"models 1\n"
MODELS: Final = (DETECTOR, TYPER)
LENGTH: Final = struct.Struct("!I")
# The folder of the sockets, in a volume that both containers see.
SOCKETS: Final = Path("/run/pneumoserve/models")


def socket_of(folder: Path, worker: int) -> Path:
    """The socket of a worker, counted from 0."""
    return folder / f"{worker}.sock"


def find_sockets(folder: Path) -> list[Path]:
    """The sockets of all workers; none where there is no such folder."""
    return sorted(folder.glob("*.sock"))
