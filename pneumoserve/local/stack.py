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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from pneumoserve.archive.store import S3Settings
from pneumoserve.local.process import Child, StackError, free_ports
from pneumoserve.local.s3 import s3_child, start_s3
from pneumoserve.local.state import State
from pneumoserve.models.probe import has_worker
from pneumoserve.names import DETECTOR, TYPER
from pneumoserve.release import Release, verify
from pneumoserve.release.package import package

REFERENCE_RUN: Final = Path(__file__).resolve().parents[2] / "model-store" / "reference"
_READY_SECONDS: Final = 120.0
_FRONT_GRACE_SECONDS: Final = 75.0
_MODELS_GRACE_SECONDS: Final = 20.0
_DEATHS: Final = 3
_DEATHS_WITHIN_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.2
# Doubled with each death of the same child within the minute: a cause that passes gets time to pass.
_BACKOFF_SECONDS: Final = 0.25


def find_release(state: State, wanted: str | None) -> Release:
    """The release to serve: a folder, the id of one in the state, or by default the reference, packaged anew.

    Raises:
        StackError: there is no such release.
        ReleaseError: it does not verify.
    """
    if wanted is None:
        if not REFERENCE_RUN.is_dir():
            raise StackError("The reference release (model-store/reference) is not here; give --release.")
        return verify(package(REFERENCE_RUN, state.releases, state.signing_key), state.trust)
    for folder in (Path(wanted), state.releases / wanted):
        if (folder / "release.json").is_file():
            return verify(folder.resolve(), state.trust)
    raise StackError(f"There is no release {wanted}; `pneumoserve release list` shows those of the state folder.")


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

    Returns 0 after a signal, 1 where a child died for good.

    Raises:
        StackError: it cannot start.
        ReleaseError: the release does not verify.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with state.lock():
        state.make()
        release = find_release(state, wanted)
        return _Stack(state, release, port, grpc_port, stop).run()


class _Stack:
    def __init__(
        self, state: State, release: Release, port: int | None, grpc_port: int | None, stop: threading.Event
    ) -> None:
        self._state = state
        self._release = release
        self._stop = stop
        self._console = Console(stderr=True, highlight=False)
        s3, rest, grpc, inference, self._management, metrics, ts_grpc, ts_manage = free_ports(8)
        self._rest, self._grpc = port or rest, grpc_port or grpc
        self._s3 = state.s3_settings(s3)
        self._models_ports = (inference, self._management, metrics, ts_grpc, ts_manage)
        self._deaths: defaultdict[str, list[float]] = defaultdict(list)

    def run(self) -> int:
        children: list[Child] = []
        try:
            for child, ready in ((self._s3_child(), None), (self._models(), self._models_ready),
                                 (self._front(), self._front_ready)):  # fmt: skip
                started = time.monotonic()
                children.append(child)
                if ready is None:
                    start_s3(child, self._s3, self._stop)
                else:
                    child.start()
                    child.wait_until(lambda ready=ready: self._stop.is_set() or ready(), _READY_SECONDS)  # type: ignore[misc]
                self._console.print(f"{child.name} is ready after {time.monotonic() - started:.1f} s")
                if self._stop.is_set():
                    return 0
            self._announce()
            return self._watch(children)
        finally:
            self._state.withdraw()
            for child in reversed(children):
                child.stop()

    def _announce(self) -> None:
        names = ("inference", "management", "metrics")
        torchserve = {name: f"http://127.0.0.1:{port}" for name, port in zip(names, self._models_ports, strict=False)}
        document: dict[str, Any] = self._state.announce(
            f"http://127.0.0.1:{self._rest}", f"127.0.0.1:{self._grpc}", self._release.id, self._s3, torchserve
        )
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()

    def _watch(self, children: list[Child]) -> int:
        """Start again what dies, until a signal comes or it dies too often."""
        while not self._stop.wait(_POLL_SECONDS):
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
