"""Real servers for the tests: an S3 server, and the whole local stack with the reference release."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest

from pneumoserve.ledger import Reader
from pneumoserve.local.process import free_ports
from pneumoserve.local.s3 import s3_child, start_s3
from pneumoserve.signing import load_trust
from pneumoserve.store import S3Settings, S3Store

PNEUMOSERVE = str(Path(sys.executable).parent / "pneumoserve")
# A busy machine is slow, and that is no failure of what is tested.
hypothesis.settings.register_profile("pneumoserve", deadline=None)
hypothesis.settings.load_profile("pneumoserve")
# What a script runs in the background ignores Ctrl-C, and so would the programs that tests send it to.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
_ALLOWED_SKIPS = Path(__file__).with_name("allowed_skips.txt")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Settings]:
    """A real S3 server with an empty bucket."""
    folder = tmp_path_factory.mktemp("s3")
    settings = S3Settings(f"http://127.0.0.1:{free_ports(1)[0]}", "test-access", "test-secret", "tests")
    child = s3_child(folder / "data", settings, folder / "s3.log")
    start_s3(child, settings)
    yield settings
    child.stop()


@dataclass
class Stack:
    """A running `pneumoserve serve`."""

    state: Path
    process: subprocess.Popen[str]
    announced: dict[str, Any]
    s3: S3Settings

    @property
    def url(self) -> str:
        return str(self.announced["url"])

    @property
    def grpc(self) -> str:
        return str(self.announced["grpc"])

    @property
    def release(self) -> str:
        return str(self.announced["release"])

    @property
    def reader(self) -> Reader:
        """Reads what this stack has put on record."""
        keys = self.state / "keys"
        return Reader(S3Store(self.s3), load_trust(keys / "archive-trust"), load_trust(keys / "sealer-trust"))

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def metrics_url(self) -> str:
        return str(json.loads((self.state / "stack.json").read_text())["metrics"])

    def _torchserve(self, name: str) -> str:
        return str(json.loads((self.state / "stack.json").read_text())["torchserve"][name])

    @property
    def models_metrics_url(self) -> str:
        return self._torchserve("metrics") + "/metrics"

    @property
    def models_management_url(self) -> str:
        return self._torchserve("management")

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, word: str) -> psutil.Process:
        """The child whose command line has a word in it."""
        return next(child for child in self.descendants() if any(word in part for part in child.cmdline()))

    def worker_pids(self) -> list[int]:
        """TorchServe's Python workers."""
        return [
            child.pid for child in self.descendants() if any("model_service_worker" in part for part in child.cmdline())
        ]

    def stop(self) -> int:
        self.process.terminate()
        code = self.process.wait(120)
        self.close()
        return code

    def close(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.close()


def start_stack(state: Path, *options: str) -> Stack:
    """Start a stack and wait until it says that it is ready."""
    with (state.parent / f"{state.name}.err").open("w") as errors:
        process = subprocess.Popen(
            [PNEUMOSERVE, "serve", "--state", str(state), *options],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, (state.parent / f"{state.name}.err").read_text()
    private = json.loads((state / "stack.json").read_text())
    return Stack(state, process, json.loads(line), S3Settings(**private["s3"]))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole stack with the reference release, two workers short of nothing: as a user starts it."""
    running = start_stack(tmp_path_factory.mktemp("stack") / "state")
    yield running
    assert running.stop() == 0


def wait_for(condition: Any, seconds: float = 30.0) -> None:
    """Wait until something is so."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not become so in time"
        time.sleep(0.05)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run where a test was skipped that may not be."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    allowed = {line.split()[0] for line in _ALLOWED_SKIPS.read_text().splitlines() if line and line[0] != "#"}
    skipped = {report.nodeid for report in reporter.stats.get("skipped", [])}
    surprising = {each for each in skipped if allowed.isdisjoint({each, each.partition("::")[0]})}
    if surprising:
        reporter.write_line(
            f"skipped without leave (tests/allowed_skips.txt): {', '.join(sorted(surprising))}", red=True
        )
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
