"""torchrun as the training Job starts it: its exit status says whether another try would help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pneumoserve.local.process import free_ports


@pytest.mark.parametrize(
    ("ending", "status"),
    [("sys.exit(0)", 0), ("sys.exit(2)", 2), ("sys.exit(1)", 1), ("os.kill(os.getpid(), signal.SIGKILL)", 1)],
)
def test_it_ends_as_its_worker_did(tmp_path: Path, ending: str, status: int) -> None:
    (tmp_path / "worker.py").write_text(f"import os, signal, sys\nassert os.environ['WORLD_SIZE'] == '1'\n{ending}\n")
    meet = ["--nnodes=1", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={free_ports(1)[0]}"]
    command = [sys.executable, "-m", "training.launch", *meet, "--max-restarts=0", str(tmp_path / "worker.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == status, done.stderr
