"""torchrun as the training Job starts it: its exit status says whether another try would help."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pneumoserve.local.process import free_ports

ENDINGS = {"sys.exit(0)": 0, "sys.exit(2)": 2, "sys.exit(1)": 1, "os.kill(os.getpid(), signal.SIGKILL)": 1}


def launch(worker: Path, ending: str, port: int) -> subprocess.CompletedProcess[str]:
    worker.write_text(f"import os, signal, sys\nassert os.environ['WORLD_SIZE'] == '1'\n{ending}\n")
    meet = ["--nnodes=1", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}"]
    command = [sys.executable, "-m", "training.launch", *meet, "--max-restarts=0", str(worker)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_it_ends_as_its_worker_did(tmp_path: Path) -> None:
    workers = [tmp_path / f"{number}.py" for number in range(len(ENDINGS))]
    # All at once: most of a launch is its imports.
    with ThreadPoolExecutor(len(ENDINGS)) as threads:
        done = threads.map(launch, workers, ENDINGS, free_ports(len(ENDINGS)))
    launched = dict(zip(ENDINGS, done, strict=True))
    assert {ending: each.returncode for ending, each in launched.items()} == ENDINGS, launched
