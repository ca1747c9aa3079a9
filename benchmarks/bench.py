"""What the measurements share: a stack, fronts of their own beside it, and how a result is written."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from rich.console import Console

from pneumoserve.archive.find import find_record
from pneumoserve.archive.read import lines_of, places, read_bodies
from pneumoserve.archive.store import ObjectStore, S3Settings
from pneumoserve.local.process import Child, free_ports
from pneumoserve.local.state import State
from tests import films

console = Console(stderr=True, highlight=False)
ROOT: Final = Path(__file__).parents[1]
_READY_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Stack:
    """A running `pneumoserve serve`, and where its parts are."""

    state: State
    process: subprocess.Popen[str]
    announced: dict[str, Any]

    @property
    def store(self) -> S3Settings:
        return S3Settings(**self.announced["s3"])

    def torchserve(self, name: str) -> str:
        return str(json.loads((self.state.folder / "stack.json").read_text())["torchserve"][name])


@contextlib.contextmanager
def stack() -> Iterator[Stack]:
    """A stack on a state folder of its own, with the reference release."""
    with tempfile.TemporaryDirectory(prefix="pneumoserve-benchmark-") as folder:
        state = State(Path(folder) / "state")
        command = [sys.executable, "-c", "from pneumoserve.cli import main; main()", "serve", "--state", state.folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield Stack(state, process, json.loads(process.stdout.readline() if process.stdout else ""))
            finally:
                process.terminate()


@dataclass
class Front:
    """A front beside the stack's own, on the same models and store."""

    child: Child
    address: str
    grpc: str

    def start(self) -> float:
        """Start it; the seconds until it was ready."""
        started = time.monotonic()
        self.child.start()
        self.child.wait_until(self._ready, _READY_SECONDS)
        return time.monotonic() - started

    def kill(self) -> None:
        """SIGKILL."""
        if self.child.process is not None:
            self.child.process.kill()
            self.child.process.wait()

    def _ready(self) -> bool:
        try:
            return httpx.get(f"http://{self.address}/v2/health/ready", timeout=2).is_success
        except httpx.HTTPError:
            return False


def front(of: Stack, *options: str, module: str = "pneumoserve.front", store: S3Settings | None = None) -> Front:
    """A front that is not started yet."""
    http, grpc = free_ports(2)
    state = of.state
    release = state.releases.resolve() / of.announced["release"]
    command = [
        *(sys.executable, "-m", module, "--host=127.0.0.1", f"--http-port={http}", f"--grpc-port={grpc}"),
        *(f"--release={release}", f"--trust={state.trust}"),
        *(f"--models-url={of.torchserve('inference')}", f"--management-url={of.torchserve('management')}"),
        *(f"--archive-key={state.archive_key_file}", f"--reference-key={state.reference_key}", *options),
    ]
    environment = {**os.environ, **(store or of.store).to_env()}
    log = state.folder / "logs" / f"front-{http}.log"
    return Front(Child("a front", command, environment, log, 75), f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")


def sample() -> list[bytes]:
    """The sample's small films."""
    return [path.read_bytes() for path in films.sample_films()]


def recorded(settings: S3Settings) -> set[str]:
    """The prediction ids of all records in a store."""
    store = ObjectStore(settings)
    lines = (line for _, body in read_bodies(store, places(store)) for line in lines_of(body))
    found = {json.loads(line)["prediction_id"] for line in lines}
    store.close()
    return found


def has_record(settings: S3Settings, prediction_id: str) -> bool:
    """Whether a store has a prediction's record."""
    return find_record(ObjectStore(settings), prediction_id) is not None


def address(url: str) -> str:
    """Host and port of a URL."""
    return urlsplit(url).netloc


def publish(name: str, command: str, figures: dict[str, Any]) -> None:
    """Write a result beside its program, with the command and the machine's kind."""
    machine = {"cores": len(os.sched_getaffinity(0)), "processor": platform.machine()}
    result = {"command": command, **machine, **figures}
    (Path(__file__).parent / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    console.print_json(data=result)
