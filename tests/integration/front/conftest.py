"""A second front over the models and the store of the stack."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from pneumoserve.local.process import free_ports
from tests.conftest import Stack, wait_for


@dataclass(frozen=True)
class SecondFront:
    """A front of its own, with its own ports and journal."""

    port: int
    grpc: str
    metrics: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/v2/health/ready").is_success
        except httpx.TransportError:
            return False


# Takes options of the front, the words of a command that starts it, and variables of its environment.
StartFront = Callable[..., contextlib.AbstractContextManager[SecondFront]]


@pytest.fixture(scope="session")
def start_front(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> StartFront:
    """Starts a front with options and variables of its own, by a command of its own where one is given."""

    @contextlib.contextmanager
    def start(*options: str, within: Sequence[str] = (), **environment: str) -> Iterator[SecondFront]:
        folder = tmp_path_factory.mktemp("front")
        http, over_grpc, metrics = free_ports(3)
        own = {"--http-port": http, "--grpc-port": over_grpc, "--metrics-port": metrics,
               "--journal": folder / "journal"}  # fmt: skip
        # The socket of the stack's front is that front's alone.
        left_out = {*own, "--http-socket"}
        words = [word for word in stack.child("pneumoserve.front").cmdline() if word.partition("=")[0] not in left_out]
        words += [f"{name}={value}" for name, value in own.items()]
        log = folder / "front.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*within, *words, *options],
                stdout=output,
                stderr=output,
                env={**os.environ, **stack.s3.to_env(), **environment},
            )
        metrics_url = f"http://127.0.0.1:{metrics}/metrics"
        front = SecondFront(http, f"127.0.0.1:{over_grpc}", metrics_url, log, process)
        try:
            wait_for(front.is_ready, 60)
            yield front
        finally:
            process.terminate()
            assert process.wait(60) == 0, log.read_text(errors="replace")

    return start
