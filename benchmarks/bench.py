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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from rich.console import Console

from pneumoserve.ledger import Reader
from pneumoserve.local.process import Child, free_ports
from pneumoserve.local.state import State
from pneumoserve.records import Record, read_entries
from pneumoserve.signing import load_trust
from pneumoserve.store import S3Settings, S3Store
from tests.support import films

console = Console(stderr=True, highlight=False)
ROOT: Final = Path(__file__).parents[1]
_READY_SECONDS: Final = 120.0
_CALLERS: Final = 8


@dataclass(frozen=True)
class Stack:
    """A running `pneumoserve serve`, and where its parts are."""

    state: State
    process: subprocess.Popen[str]
    announced: dict[str, Any]

    @property
    def store(self) -> S3Settings:
        return S3Settings(**json.loads((self.state.folder / "stack.json").read_text())["s3"])

    @property
    def models(self) -> list[str]:
        """Flags of a front that say where the models are."""
        told = json.loads((self.state.folder / "stack.json").read_text())
        if "models_sockets" in told:
            return ["--engine=inprocess", f"--models-sockets={told['models_sockets']}"]
        at = told["torchserve"]
        return [f"--models-url={at['inference']}", f"--management-url={at['management']}"]


@contextlib.contextmanager
def stack(prepare: Callable[[Path], None] = lambda _: None, *options: str) -> Iterator[Stack]:
    """A stack on a state folder of its own, with the reference release and options of `serve`.

    `prepare` is given that folder before.
    """
    with tempfile.TemporaryDirectory(prefix="pneumoserve-benchmark-") as folder:
        state = State(Path(folder) / "state")
        state.folder.mkdir()
        prepare(state.folder)
        command = [sys.executable, "-c", "from pneumoserve.cli import main; main()", "serve", "--state", state.folder]
        command += options
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
    http, grpc, metrics = free_ports(3)
    state = of.state
    release = state.releases.resolve() / of.announced["release"]
    command = [
        *(sys.executable, "-m", module, "--host=127.0.0.1", f"--http-port={http}", f"--grpc-port={grpc}"),
        f"--metrics-port={metrics}",
        *(f"--release={release}", f"--trust={state.trust}"),
        *of.models,
        *(f"--archive-key={state.archive_key_file}", f"--reference-key={state.reference_key}", *options),
    ]
    environment = {**os.environ, **(store or of.store).to_env()}
    log = state.folder / "logs" / f"front-{http}.log"
    return Front(Child("a front", command, environment, log, 75), f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")


def sample() -> list[bytes]:
    """The sample's small films."""
    return [path.read_bytes() for path in films.sample_films()]


def keep_busy(own: Front, seconds: float) -> float:
    """Calls a second of eight callers, each sending its next film when it has an answer."""
    films, numbers, end = sample(), count(), time.perf_counter() + seconds

    def caller(_: int) -> int:
        done = 0
        with httpx.Client(base_url=f"http://{own.address}", timeout=60) as client:
            while time.perf_counter() < end:
                done += ask(client, films[next(numbers) % len(films)])
        return done

    started = time.perf_counter()
    with ThreadPoolExecutor(_CALLERS) as callers:
        total = sum(callers.map(caller, range(_CALLERS)))
    return total / (time.perf_counter() - started)


def ask(client: httpx.Client, film: bytes) -> int:
    """Send a film; 1, the calls that were answered."""
    client.post("/v1/models/pneumonia:predict", content=film).raise_for_status()
    return 1


def recorded(of: Stack) -> set[str]:
    """The prediction ids of all records of a stack."""
    return {record.prediction_id for record in read_records(of)}


def read_records(of: Stack) -> list[Record]:
    """All records of a stack."""
    with contextlib.closing(S3Store(of.store)) as store:
        reader = Reader(store, load_trust(of.state.archive_trust), load_trust(of.state.sealer_trust))
        return [entry for entry in read_entries(reader) if isinstance(entry, Record)]


def address(url: str) -> str:
    """Host and port of a URL."""
    return urlsplit(url).netloc


def publish(name: str, command: str, figures: dict[str, Any]) -> None:
    """Write a result beside its program, with the command and the machine's kind."""
    machine = {"cores": len(os.sched_getaffinity(0)), "processor": platform.machine()}
    result = {"command": command, **machine, **figures}
    (Path(__file__).parent / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    console.print_json(data=result)
