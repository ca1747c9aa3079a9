"""Several workers, real processes that share a training by Gloo, and checkpoints in a real store."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import torch

from pneumoserve.local.process import free_ports
from pneumoserve.release.schema import RunFacts
from pneumoserve.store import S3Settings, S3Store
from tests.conftest import wait_for
from tests.support import films

STEPS = 8
TRAIN = f"""
import hashlib, sys, time
from contextlib import suppress
from pathlib import Path
from tests.training.tiny import SIDE, shrink
from training import learn as learning, train as module
from training.config import TrainConfig
from training.workers import Workers
shrink(setattr)
out, checkpoints, pause, *whole = sys.argv[1:]
step, learn = learning._step, module.learn

def learn_and_hash(*arguments):
    learner = learn(*arguments)
    weights = b"".join(each.detach().numpy().tobytes() for each in learner.network.parameters())
    Path(str(arguments[0].out) + ".sha256").write_text(hashlib.sha256(weights).hexdigest())
    if whole and str(arguments[0].out) == whole[0]:
        # What is made of the weights is the resumed pair's to show.
        raise KeyboardInterrupt
    return learner

def slow_step(*arguments):
    # Time to be killed in the middle of the run.
    time.sleep(float(pause))
    return step(*arguments)

def train(out, checkpoints):
    module.train(TrainConfig(dataset={str(films.SAMPLE)!r}, exclude=None, out=Path(out), checkpoints=checkpoints,
        steps={STEPS}, head_steps=2, frozen_blocks=2, audit=False, batch=16, size=SIDE, check_every={STEPS},
        save_every=2, threads=1, workers=Workers.from_env()))

module.learn = learn_and_hash
with Workers.from_env().join("cpu"):
    if whole:
        with suppress(KeyboardInterrupt):
            train(whole[0], "")
    learning._step = slow_step
    train(out, checkpoints)
"""


def torchrun(rank: int, port: int) -> list[str]:
    """What starts one of two workers."""
    meet = ["--nnodes=2", "--nproc-per-node=1", f"--node-rank={rank}"]
    meet += ["--master-addr=127.0.0.1", f"--master-port={port}", "--max-restarts=0"]
    return [sys.executable, "-m", "torch.distributed.run", *meet]


def variables(rank: int, port: int) -> dict[str, str]:
    """What torchrun sets for one of two workers; it takes as long to start as the worker."""
    return {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


class Pair:
    """Two workers, each with a folder and a log of its own, as in two pods."""

    def __init__(
        self, folder: Path, checkpoints: str, settings: S3Settings, *, pause: float = 0.0, whole: bool = False,
        launched: bool = False,
    ) -> None:  # fmt: skip
        """`whole`: they learn to the end first, in folders of their own and without a pause, and save only a hash."""
        folder.mkdir(parents=True)
        (script := folder / "train.py").write_text(TRAIN)
        port = free_ports(1)[0]
        self.folder = folder
        self.processes = []
        for rank in range(2):
            start = torchrun(rank, port) if launched else [sys.executable]
            words = [*start, str(script), str(folder / f"run-{rank}"), checkpoints, str(pause)]
            words += [str(folder / f"whole-{rank}")] if whole else []
            environment = {**os.environ, **settings.to_env(), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
            if not launched:
                environment |= variables(rank, port)
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
    store = S3Store(s3_server)
    cut = Pair(tmp_path / "cut", "s3://tests/ddp-cut", s3_server, pause=0.5, whole=True)
    try:
        wait_for(lambda: store.exists("ddp-cut/last.pt"), 90)
        cut.kill(1)
        assert all(code != 0 for code in cut.wait())
        assert "Another worker of this training is gone" in cut.log(0)
    finally:
        cut.stop()
    # Each learned from films of its own, so only averaged gradients keep them alike.
    whole, other = ((tmp_path / "cut" / f"whole-{rank}.sha256").read_text() for rank in range(2))
    assert whole == other
    assert not (tmp_path / "cut" / "run-0" / "run.json").exists()
    # New pods have empty folders.
    resumed = Pair(tmp_path / "resumed", "s3://tests/ddp-cut", s3_server, launched=True)
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
    assert (resumed.folder / "run-0.sha256").read_text() == whole
    assert run_of(resumed.folder).training.parameters["workers"] == 2
    losses = torch.load(tmp_path / "resumed" / "run-0" / "checkpoints" / "last.pt", weights_only=True)["history"]
    loss = [float(each) for each in re.findall(r"[\d.]+", losses.split("]")[0])]
    assert len(loss) == STEPS
    assert sum(loss[-3:]) < sum(loss[:3])
