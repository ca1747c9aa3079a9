"""Workers of a training as pods start them: a torchrun each, on loopback."""

from __future__ import annotations

import sys


def command(rank: int, port: int, *words: str) -> list[str]:
    """The command of one of two workers; `words` are the program and its arguments."""
    meet = ["--nnodes=2", "--nproc-per-node=1", f"--node-rank={rank}"]
    meet += ["--master-addr=127.0.0.1", f"--master-port={port}", "--max-restarts=0"]
    return [sys.executable, "-m", "torch.distributed.run", *meet, *words]
