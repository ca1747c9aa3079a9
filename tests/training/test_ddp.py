"""Several workers under torchrun, real processes that share a training by Gloo, and checkpoints in a real store."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import torch

from pneumoserve.archive.store import ObjectStore, S3Settings
from pneumoserve.local.process import free_ports
from pneumoserve.release.schema import RunFacts
from tests import films
from tests.conftest import wait_for

STEPS = 8
TRAIN = f"""
import hashlib, sys, time
from pathlib import Path
from training import gate, train as module
from training.train import TrainConfig, train
from training.workers import Workers
gate._OUTLIERS_OF_FILMS = gate._OUTLIERS_OF_NOTHING = 8
real = module._step
def slow(*arguments):
    # Time to be killed in the middle of the run.
    time.sleep(float(sys.argv[3]))
    return real(*arguments)
module._step = slow
learned = module._learned
def told(*arguments):
    network = learned(*arguments)
    weights = b"".join(each.detach().numpy().tobytes() for each in network.parameters())
    Path(sys.argv[1] + ".sha256").write_text(hashlib.sha256(weights).hexdigest())
    if sys.argv[4] == "learn":
        # What is made of the weights is the resumed pair's to show.
        sys.exit()
    return network
module._learned = told
train(TrainConfig(dataset={str(films.SAMPLE)!r}, exclude=None, out=Path(sys.argv[1]), checkpoints=sys.argv[2],
    steps={STEPS}, head_steps=2, audit=False, batch=16, size=96, check_every={STEPS}, save_every=2, threads=1,
    workers=Workers.from_env()))
"""


def torchrun(rank: int, port: int, *words: str) -> list[str]:
    """The command of one of two workers; `words` are the program and its arguments."""
    meet = ["--nnodes=2", "--nproc-per-node=1", f"--node-rank={rank}"]
    meet += ["--master-addr=127.0.0.1", f"--master-port={port}", "--max-restarts=0"]
    return [sys.executable, "-m", "torch.distributed.run", *meet, *words]


class Pair:
    """Two workers, each with a torchrun, a folder and a log of its own, as in two pods."""

    def __init__(
        self, folder: Path, checkpoints: str, settings: S3Settings, pause: float = 0.0, until: str = "end"
    ) -> None:
        folder.mkdir(parents=True)
        (script := folder / "train.py").write_text(TRAIN)
        port = free_ports(1)[0]
        self.folder = folder
        self.processes = []
        for rank in range(2):
            words = torchrun(rank, port, str(script), str(folder / f"run-{rank}"), checkpoints, str(pause), until)
            environment = {**os.environ, **settings.to_env(), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
            with (folder / f"{rank}.log").open("w") as log:
                self.processes.append(
                    subprocess.Popen(words, stdout=log, stderr=log, env=environment, start_new_session=True)
                )

    def log(self, rank: int) -> str:
        return (self.folder / f"{rank}.log").read_text()

    def kill(self, rank: int) -> None:
        for process in [*psutil.Process(self.processes[rank].pid).children(recursive=True), self.processes[rank]]:
            process.send_signal(signal.SIGKILL)

    def wait(self) -> list[int]:
        return [process.wait(120) for process in self.processes]

    def stop(self) -> None:
        for rank, process in enumerate(self.processes):
            if process.poll() is None:
                self.kill(rank)
                process.wait()


def run_of(folder: Path) -> RunFacts:
    return RunFacts.model_validate_json((folder / "run-0" / "run.json").read_bytes())


def test_two_workers_go_on_to_the_same_weights_after_one_was_killed(s3_server: S3Settings, tmp_path: Path) -> None:
    store = ObjectStore(s3_server)
    whole = Pair(tmp_path / "whole", "s3://tests/ddp-whole", s3_server, until="learn")
    try:
        assert whole.wait() == [0, 0], whole.log(0) + whole.log(1)
    finally:
        whole.stop()
    # Each learned from films of its own, so only averaged gradients keep them alike.
    assert (whole.folder / "run-0.sha256").read_text() == (whole.folder / "run-1.sha256").read_text()
    cut = Pair(tmp_path / "cut", "s3://tests/ddp-cut", s3_server, pause=0.5)
    try:
        wait_for(lambda: store.exists("ddp-cut/last.pt") and f"step 4/{STEPS}" in cut.log(0), 90)
        cut.kill(1)
        assert all(code != 0 for code in cut.wait())
        assert "Another worker of this training is gone" in cut.log(0)
    finally:
        cut.stop()
    assert not (tmp_path / "cut" / "run-0" / "run.json").exists()
    # New pods have empty folders.
    resumed = Pair(tmp_path / "resumed", "s3://tests/ddp-cut", s3_server)
    try:
        assert resumed.wait() == [0, 0], resumed.log(0) + resumed.log(1)
    finally:
        resumed.stop()
    for rank in range(2):
        start = re.search(rf"worker {rank} of 2: going on after step (\d) of {STEPS}", resumed.log(rank))
        assert start is not None
        assert 0 < int(start.group(1)) < STEPS
        assert f"worker {rank} of 2: step {STEPS}/{STEPS}  loss" in resumed.log(rank)
    assert not (tmp_path / "resumed" / "run-1").exists()
    assert (resumed.folder / "run-0.sha256").read_text() == (whole.folder / "run-0.sha256").read_text()
    assert run_of(resumed.folder).training.parameters["workers"] == 2
    losses = torch.load(tmp_path / "resumed" / "run-0" / "checkpoints" / "last.pt", weights_only=True)["history"]
    loss = [float(each) for each in re.findall(r"[\d.]+", losses.split("]")[0])]
    assert len(loss) == STEPS
    assert sum(loss[-3:]) < sum(loss[:3])
