"""The models container without TorchServe: workers that each hold both models, and what starts them again."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from pneumoserve.models.exchange import MODELS, find_sockets, socket_of
from pneumoserve.models.inprocess import unpack_model
from pneumoserve.models.scorer import make_worker_environment
from pneumoserve.models.worker import CANNOT_LOAD
from pneumoserve.release import Release
from pneumoserve.termination import explain_end

_ENDS: Final = (signal.SIGTERM, signal.SIGINT)
_GRACE_SECONDS: Final = 5.0
# Doubled with each death in a row: a cause that passes gets time to pass. A worker that has lived so long starts anew.
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 5.0
_LIVED_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.1

_log = logging.getLogger(__name__)


def run_workers(release: Release, sockets: Path, work: Path, count: int) -> int:
    """Serve a verified release's models until a signal, each worker on its socket in the folder `sockets`.

    Returns 0 after a signal, 1 where the models do not load.
    """
    # Before the first worker, and for good: what is waited for must not end this process.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_ENDS, signal.SIGCHLD})
    models = work / "models"
    shutil.rmtree(models, ignore_errors=True)
    for name in MODELS:
        unpack_model(release, name, models / name)
    sockets.mkdir(parents=True, exist_ok=True)
    for left in find_sockets(sockets):
        left.unlink()
    workers = [_Worker(release, models, socket_of(sockets, number)) for number in range(count)]
    try:
        return _watch(workers)
    finally:
        for worker in workers:
            worker.ask_to_end()
        for worker in workers:
            worker.end()


def _watch(workers: list[_Worker]) -> int:
    """Start all, and again those that die, until a signal or until one cannot load."""
    while True:
        for worker in workers:
            if not worker.care():
                explain_end("The models of this release do not load; the worker's log above says why.")
                return 1
        waiting = all(worker.running for worker in workers)
        came = signal.sigtimedwait({*_ENDS, signal.SIGCHLD}, 3600 if waiting else _LOOK_SECONDS)
        if came is not None and came.si_signo in _ENDS:
            return 0


class _Worker:
    """The place of one worker. Its socket stays while workers come and go: who connects meanwhile waits."""

    def __init__(self, release: Release, models: Path, path: Path) -> None:
        self._environment = {**os.environ, **make_worker_environment(release)}
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        descriptor = self._socket.fileno()
        self._command = [
            *(sys.executable, "-m", "pneumoserve.models.worker", f"--listen={descriptor}", f"--models={models}")
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._started = self._start_at = time.monotonic()
        self._pause = _FIRST_PAUSE_SECONDS

    @property
    def running(self) -> bool:
        """Whether there is one, as far as is known."""
        return self._process is not None

    def care(self) -> bool:
        """Start it where it does not run, a little later each time; False where it cannot load its models."""
        code = None if self._process is None else self._process.poll()
        if code == CANNOT_LOAD:
            return False
        now = time.monotonic()
        if code is not None:
            if now - self._started > _LIVED_SECONDS:
                self._pause = _FIRST_PAUSE_SECONDS
            _log.error("a worker of the models ended with %d; starting it again in %.1f s", code, self._pause)
            self._process, self._start_at = None, now + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        if self._process is None and now >= self._start_at:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, pass_fds=[self._socket.fileno()]
            )
            self._started = now
        return True

    def ask_to_end(self) -> None:
        """SIGTERM."""
        if self._process is not None:
            self._process.terminate()

    def end(self) -> None:
        """Wait for its end, and kill it where that does not come."""
        if self._process is None:
            return
        try:
            self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
