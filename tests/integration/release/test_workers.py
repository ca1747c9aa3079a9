"""The models container without TorchServe as it runs: real workers on their sockets, with the reference release."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.imaging.prepare import prepare
from pneumoserve.models.exchange import GREETING, MODELS, find_sockets
from pneumoserve.models.inprocess import load_scorers
from pneumoserve.models.probe import count_greeting, main
from pneumoserve.names import DETECTOR, TYPER
from pneumoserve.release import verify
from pneumoserve.release.package import sign
from pneumoserve.signing import load_key
from tests.conftest import wait_for
from tests.integration.release.conftest import Made
from tests.support import films

PREPARED = [prepare(path.read_bytes()).pixels for path in films.sample_films()]


def command(release: Path, trust: Path, folder: Path, workers: int) -> list[str]:
    return [
        *(sys.executable, "-m", "pneumoserve.models", "--engine=inprocess", f"--release={release}", f"--trust={trust}"),
        *(f"--sockets={folder / 's'}", f"--work-dir={folder / 'work'}", f"--workers={workers}"),
    ]


class Running:
    """A models container of two workers."""

    def __init__(self, made: Made, folder: Path) -> None:
        self.sockets = folder / "s"
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command(made.folder, made.trust, folder, 2), stdout=log, stderr=log)
        wait_for(lambda: count_greeting(self.sockets, 1.0) == (2, 2), 60)

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def connect(self, number: int) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(30)
        connection.connect(str(find_sockets(self.sockets)[number]))
        assert connection.recv(len(GREETING)) == GREETING
        return connection


def score(connection: socket.socket, model: str, pixels: np.ndarray[Any, Any]) -> dict[str, Any]:
    connection.sendall(bytes((MODELS.index(model),)) + pixels.tobytes())
    with connection.makefile("rb") as answers:
        (length,) = struct.unpack("!I", answers.read(4))
        answer: dict[str, Any] = json.loads(answers.read(length))
    return answer


@contextmanager
def short_folder() -> Iterator[Path]:
    """The names of sockets have 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="pneumoserve-test-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def models(made: Made) -> Iterator[Running]:
    with short_folder() as folder:
        running = Running(made, folder)
        yield running
        running.process.terminate()
        assert running.process.wait(30) == 0


def test_every_worker_gives_the_bits_of_both_models(models: Running, made: Made) -> None:
    """As test_models has it of TorchServe: every image of the sample."""
    with load_scorers(verify(made.folder, made.trust)) as scorers:
        for index, pixels in enumerate(PREPARED):
            (detector,), (typer,) = (scorers[name].scores([pixels]) for name in (DETECTOR, TYPER))
            with models.connect(index % 2) as connection:
                assert score(connection, DETECTOR, pixels) == asdict(replace(detector, typer=typer))
                assert score(connection, TYPER, pixels) == asdict(typer)


def test_connections_of_one_worker_do_not_wait_for_each_other(models: Running) -> None:
    with models.connect(0) as idle, models.connect(0) as begun, models.connect(0) as asking:
        wanted = score(idle, DETECTOR, PREPARED[0])
        assert score(asking, DETECTOR, PREPARED[0]) == wanted
        begun.sendall(b"\x09" + bytes(224 * 224))
        # There is no such model.
        assert begun.recv(1) == b""
        assert score(idle, DETECTOR, PREPARED[0]) == wanted


def test_a_killed_worker_comes_back_on_its_socket(models: Running) -> None:
    victim, *others = models.workers()
    victim.kill()
    with models.connect(0) as first, models.connect(1) as second:
        assert score(first, DETECTOR, PREPARED[0]) == score(second, DETECTOR, PREPARED[0])
    assert {each.pid for each in others} < {each.pid for each in models.workers()}
    assert victim.pid not in {each.pid for each in models.workers()}
    assert "ended with -9; starting it again" in models.log.read_text()


def test_the_probe_tells_a_frozen_worker_from_one_that_loads(models: Running, tmp_path: Path) -> None:
    flags = [f"--sockets={models.sockets}"]
    frozen = models.workers()[0]
    assert main(flags) == main([*flags, "--alive"]) == 0
    frozen.suspend()
    try:
        assert count_greeting(models.sockets, 0.5) == (1, 2)
        # The other one answers.
        assert main(flags) == 0
        assert main([*flags, "--alive"]) == 1
    finally:
        frozen.resume()
    wait_for(lambda: main([*flags, "--alive"]) == 0)
    assert main([f"--sockets={tmp_path / 'none'}"]) == 1


def test_workers_end_with_their_parent(made: Made) -> None:
    with short_folder() as folder:
        running = Running(made, folder)
        workers = running.workers()
        assert len(workers) == 2
        running.process.kill()
        running.process.wait()
        _, left = psutil.wait_procs(workers, 10)
        assert not left


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_of_it(made: Made, number: int) -> None:
    with short_folder() as folder:
        running = Running(made, folder)
        workers = running.workers()
        os.kill(running.process.pid, number)
        assert running.process.wait(30) == 0
        assert not any(worker.is_running() for worker in workers)


def test_nothing_starts_of_a_release_that_does_not_verify(made: Made, broken: Path) -> None:
    with (broken / "model-store" / f"{TYPER}.mar").open("ab") as mar:
        mar.write(b"\0")
    with short_folder() as folder:
        done = subprocess.run(
            command(broken, made.trust, folder, 1), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 1
        assert "pneumonia-typer.mar" in done.stderr
        assert not (folder / "s").exists()


def test_models_that_do_not_load_end_the_container(made: Made, broken: Path) -> None:
    mar = broken / "model-store" / f"{DETECTOR}.mar"
    with zipfile.ZipFile(mar) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(mar, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, b"no graph" if name.endswith(".onnx") else data)
    manifest = json.loads((broken / "release.json").read_bytes())
    manifest["files"][f"model-store/{DETECTOR}.mar"] = digest_of(mar.read_bytes())
    text = canonical_json(manifest)
    (broken / "release.json").write_bytes(text)
    renamed = broken.rename(broken.with_name(digest_of(text)[:12]))
    sign(renamed, load_key(made.trust.parent / "key.pem"))
    with short_folder() as folder:
        done = subprocess.run(
            command(renamed, made.trust, folder, 1), capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert "do not load" in done.stderr.splitlines()[-1]


def test_a_gpu_is_torchserves(made: Made) -> None:
    with short_folder() as folder:
        done = subprocess.run(
            [*command(made.folder, made.trust, folder, 1), "--gpu"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert "--gpu goes with --engine torchserve" in done.stderr
