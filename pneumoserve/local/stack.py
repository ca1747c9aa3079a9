"""Starting, watching and stopping the local stack."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from pneumoserve.archive.store import S3Settings
from pneumoserve.local.process import Child, StackError, free_ports
from pneumoserve.local.s3 import s3_child, start_s3
from pneumoserve.local.state import State
from pneumoserve.models.probe import has_worker
from pneumoserve.names import DETECTOR, TYPER
from pneumoserve.release import Release, ReleaseError, verify
from pneumoserve.release.package import package

REFERENCE_RUN: Final = Path(__file__).resolve().parents[2] / "model-store" / "reference"
# Not SIGHUP: a terminal that closes sends it, and the stack must end then.
REDEPLOY_SIGNAL: Final = signal.SIGUSR1
_READY_SECONDS: Final = 120.0
_FRONT_GRACE_SECONDS: Final = 75.0
_MODELS_GRACE_SECONDS: Final = 20.0
_DEATHS: Final = 3
_DEATHS_WITHIN_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.2
# Doubled with each death of the same child within the minute: a cause that passes gets time to pass.
_BACKOFF_SECONDS: Final = 0.25


def find_release(state: State, wanted: str | None) -> Release:
    """The release to serve: a folder, the id of one in the state, or by default the chosen one, else the reference.

    Raises:
        StackError: there is no such release.
        ReleaseError: it does not verify.
    """
    wanted = wanted or state.chosen
    if wanted is None:
        if not REFERENCE_RUN.is_dir():
            raise StackError("The reference release (model-store/reference) is not here; give --release.")
        return verify(package(REFERENCE_RUN, state.releases, state.signing_key), state.trust)
    folder = release_folder(state, wanted)
    if folder is None:
        raise StackError(f"There is no release {wanted}; `pneumoserve release list` shows those of the state folder.")
    return verify(folder.resolve(), state.trust)


def release_folder(state: State, wanted: str) -> Path | None:
    """The folder of a release, given as such or as the id of one in the state; None where there is none."""
    folders = (Path(wanted), state.releases / wanted)
    return next((folder for folder in folders if (folder / "release.json").is_file()), None)


@contextlib.contextmanager
def s3_alone(state: State) -> Iterator[S3Settings]:
    """The state's store: of the running stack, or started for as long as the context lasts."""
    announced = state.running()
    if announced is not None:
        yield S3Settings(**announced["s3"])
        return
    with state.lock():
        state.make()
        settings = state.s3_settings(free_ports(1)[0])
        child = s3_child(state.folder / "s3", settings, state.folder / "logs" / "s3.log")
        try:
            start_s3(child, settings)
            yield settings
        finally:
            child.stop()


def serve(state: State, wanted: str | None, port: int | None, grpc_port: int | None) -> int:
    """Run the stack in the foreground until SIGTERM or SIGINT; when ready, print one line of JSON.

    At REDEPLOY_SIGNAL it goes over to the release that the state folder has chosen.

    Returns 0 after a signal, 1 where a child died for good.

    Raises:
        StackError: it cannot start.
        ReleaseError: the release does not verify.
    """
    stop, redeploy = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(REDEPLOY_SIGNAL, lambda *_: redeploy.set())
    with state.lock():
        state.make()
        # A stack that was killed left its announcement; this one is not ready yet.
        state.withdraw()
        release = find_release(state, wanted)
        return _Stack(state, release, (port, grpc_port), stop, redeploy).run()


class _Stack:
    def __init__(
        self,
        state: State,
        release: Release,
        ports: tuple[int | None, int | None],
        stop: threading.Event,
        redeploy: threading.Event,
    ) -> None:
        self._state = state
        self._release = release
        self._stop = stop
        self._redeploy = redeploy
        self._redeploys = 0
        self._console = Console(stderr=True, highlight=False)
        s3, rest, grpc, inference, self._management, metrics, ts_grpc, ts_manage = free_ports(8)
        self._rest, self._grpc = ports[0] or rest, ports[1] or grpc
        self._s3 = state.s3_settings(s3)
        self._models_ports = (inference, self._management, metrics, ts_grpc, ts_manage)
        self._deaths: defaultdict[str, list[float]] = defaultdict(list)

    def run(self) -> int:
        children: list[Child] = []
        try:
            self._start(children, self._s3_child(), None)
            self._start_release(children)
            if self._stop.is_set():
                return 0
            sys.stdout.write(json.dumps(self._announce(None)) + "\n")
            sys.stdout.flush()
            return self._watch(children)
        finally:
            self._state.withdraw()
            for child in reversed(children):
                child.stop()

    def _start_release(self, children: list[Child]) -> None:
        """Start the models and the front of the present release."""
        self._start(children, self._models(), self._models_ready)
        self._start(children, self._front(), self._front_ready)

    def _start(self, children: list[Child], child: Child, ready: Callable[[], bool] | None) -> None:
        """Start a child and wait until it is ready; nothing once a signal has come."""
        if self._stop.is_set():
            return
        started = time.monotonic()
        children.append(child)
        if ready is None:
            start_s3(child, self._s3, self._stop)
        else:
            child.start()
            child.wait_until(lambda: self._stop.is_set() or ready(), _READY_SECONDS)
        self._console.print(f"{child.name} is ready after {time.monotonic() - started:.1f} s")

    def _announce(self, refused: str | None) -> dict[str, Any]:
        """Write what runs, and why the last redeployment was refused, if it was; returns what `serve` prints."""
        names = ("inference", "management", "metrics")
        torchserve = {name: f"http://127.0.0.1:{port}" for name, port in zip(names, self._models_ports, strict=False)}
        private = {
            "torchserve": torchserve,
            "release_folder": str(self._release.folder.resolve()),
            "pid": os.getpid(),
            "redeploys": self._redeploys,
            "refused": refused,
        }
        return self._state.announce(
            f"http://127.0.0.1:{self._rest}", f"127.0.0.1:{self._grpc}", self._release.id, self._s3, private
        )

    def _go_over(self, children: list[Child]) -> None:
        """Serve the chosen release in place of the present one, which comes back where that one does not start.

        Raises:
            StackError: neither starts.
        """
        self._redeploy.clear()
        present, refused = self._release, None
        try:
            self._release = find_release(self._state, None)
            if self._release.digest != present.digest:
                self._replace(children)
        except (StackError, ReleaseError) as error:
            refused = str(error)
            self._console.print(f"the redeployment failed, {present.id} goes on: {refused}")
            if self._release is not present:
                self._release = present
                self._replace(children)
        self._redeploys += 1
        if not self._stop.is_set():
            self._announce(refused)

    def _replace(self, children: list[Child]) -> None:
        """Stop models and front, and start those of the present release; the store stays."""
        _, *served = children
        for child in reversed(served):
            child.stop()
            children.remove(child)
        self._start_release(children)

    def _watch(self, children: list[Child]) -> int:
        """Start again what dies, and go over to another release when told, until a signal or a death too many."""
        while not self._stop.wait(_POLL_SECONDS):
            if self._redeploy.is_set():
                self._go_over(children)
            for child in children:
                if child.running:
                    continue
                deaths = self._died(child)
                if deaths > _DEATHS:
                    self._console.print(f"{child.name} dies again and again; read logs/{child.log.name}.")
                    return 1
                self._console.print(f"{child.name} died ({child.last_line()}); starting it again")
                child.stop()
                if self._stop.wait(_BACKOFF_SECONDS * 2 ** (deaths - 1)):
                    return 0
                child.start()
        return 0

    def _died(self, child: Child) -> int:
        """Note a death, and return how often this child has died lately."""
        now = time.monotonic()
        recent = [moment for moment in self._deaths[child.name] if now - moment < _DEATHS_WITHIN_SECONDS]
        self._deaths[child.name] = [*recent, now]
        return len(self._deaths[child.name])

    def _log(self, name: str) -> Path:
        return self._state.folder / "logs" / f"{name}.log"

    def _s3_child(self) -> Child:
        return s3_child(self._state.folder / "s3", self._s3, self._log("s3"))

    def _models(self) -> Child:
        names = ("inference", "management", "metrics", "grpc-inference", "grpc-management")
        ports = [f"--{name}-port={port}" for name, port in zip(names, self._models_ports, strict=True)]
        folder = self._state.folder.resolve() / "tmp" / "torchserve"
        command = [*self._module("pneumoserve.models"), *ports, f"--work-dir={folder}"]
        return Child("TorchServe", command, dict(os.environ), self._log("models"), _MODELS_GRACE_SECONDS)

    def _front(self) -> Child:
        inference, management, *_ = self._models_ports
        command = [
            *self._module("pneumoserve.front"),
            "--host=127.0.0.1",
            f"--http-port={self._rest}",
            f"--grpc-port={self._grpc}",
            f"--models-url=http://127.0.0.1:{inference}",
            f"--management-url=http://127.0.0.1:{management}",
            f"--archive-key={self._state.archive_key_file.resolve()}",
            f"--reference-key={self._state.reference_key.resolve()}",
            f"--journal={self._state.journal.resolve()}",
        ]
        return Child(
            "the front", command, {**os.environ, **self._s3.to_env()}, self._log("front"), _FRONT_GRACE_SECONDS
        )

    def _module(self, name: str) -> list[str]:
        folders = [f"--release={self._release.folder.resolve()}", f"--trust={self._state.trust.resolve()}"]
        return [sys.executable, "-m", name, *folders]

    def _models_ready(self) -> bool:
        return all(has_worker(self._management, model) for model in (DETECTOR, TYPER))

    def _front_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._rest, timeout=2)
        try:
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
