"""The models container as it runs: TorchServe with the reference release, asked directly."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from pneumoserve.image import prepare
from pneumoserve.local.process import free_ports
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.models.engine import OnnxEngine, Raw
from pneumoserve.models.handler import Handler
from pneumoserve.models.probe import has_worker
from pneumoserve.names import DETECTOR, TYPER
from tests import films
from tests.conftest import wait_for
from tests.release.conftest import Made

FILMS = [path.read_bytes() for path in films.sample_films()]
PREPARED = [prepare(data).pixels for data in FILMS]


class Models:
    """One TorchServe."""

    def __init__(self, made: Made, folder: Path) -> None:
        folder.mkdir()
        self.ports = free_ports(5)
        names = ("inference", "management", "metrics", "grpc-inference", "grpc-management")
        options = [f"--{name}-port={port}" for name, port in zip(names, self.ports, strict=True)]
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "pneumoserve.models", "--release", made.folder, "--trust", made.trust),
                    *("--work-dir", folder / "work", *options),
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(self.ready, 60)

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return all(has_worker(self.ports[1], model) for model in (DETECTOR, TYPER))

    def post(self, path: str, **request: Any) -> httpx.Response:
        return httpx.post(f"http://127.0.0.1:{self.ports[0]}/{path}", timeout=60, **request)

    def score(self, pixels: np.ndarray[Any, Any], model: str = DETECTOR) -> dict[str, Any]:
        headers = {"content-type": "application/octet-stream"}
        response = self.post(f"predictions/{model}", content=pixels.tobytes(), headers=headers)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def workers(self) -> list[psutil.Process]:
        return [
            child
            for child in psutil.Process(self.process.pid).children(recursive=True)
            if any("model_service_worker" in part for part in child.cmdline())
        ]


@pytest.fixture(scope="module")
def models(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    running = Models(made, tmp_path_factory.mktemp("models") / "one")
    yield running
    running.process.terminate()
    running.process.wait(30)


def test_every_form_of_a_film_has_the_same_score(models: Models) -> None:
    wanted = models.score(PREPARED[0])["probability"]
    b64 = base64.b64encode(FILMS[0]).decode()
    encoded = models.post(f"predictions/{DETECTOR}", content=FILMS[0], headers={"content-type": "image/jpeg"})
    v1 = models.post(f"v1/models/{DETECTOR}:predict", json={"instances": [{"image": {"b64": b64}}] * 2})
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [b64]}
    v2 = models.post(f"v2/models/{DETECTOR}/infer", json={"id": "x", "inputs": [tensor]})
    pixels = {"name": "image", "datatype": "UINT8", "shape": [1, 224, 224], "data": PREPARED[0].ravel().tolist()}
    numbers = models.post(f"v2/models/{DETECTOR}/infer", json={"inputs": [pixels]})
    assert encoded.json()["probability"] == wanted
    assert v1.json() == {"predictions": [{"pneumonia_probability": wanted}] * 2}
    assert v2.json()["outputs"][0]["data"] == [wanted]
    assert v2.json()["id"] == "x"
    assert numbers.json()["outputs"][0]["data"] == [wanted]


def test_a_batch_answers_each_and_a_bad_item_harms_none(models: Models) -> None:
    alone = [models.score(pixels)["probability"] for pixels in PREPARED[:15]]

    def ask(index: int) -> tuple[int, Any]:
        if index == 7:
            response = models.post(f"predictions/{DETECTOR}", content=b"\xff\xd8\xff Mustermann")
            return response.status_code, response.json()
        return 200, models.score(PREPARED[index])["probability"]

    for _ in range(4):
        with concurrent.futures.ThreadPoolExecutor(15) as pool:
            answers = list(pool.map(ask, range(15)))
        for index, (status, answer) in enumerate(answers):
            if index == 7:
                assert status == 400
                assert "Mustermann" not in answer["error"]
            else:
                assert answer == alone[index]
    assert max(map(int, re.findall(r"batch=(\d+)", models.log.read_text()))) > 1


BAD = {
    "no json": b"{",
    "no film": b"not an image",
    "empty": b"",
    "no instances": b'{"instances": []}',
    "not base64": b'{"instances": [{"image": {"b64": "@"}}]}',
    "neither": b"{}",
    "nested beyond reading": b'{"inputs":' + b"[" * 100_000,
    "shape no list": b'{"inputs": [{"name": "image", "datatype": "UINT8", "shape": 1, "data": [1]}]}',
    "wrong shape": json.dumps(
        {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 2], "data": [1, 2]}]}
    ).encode(),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_items_have_a_4xx_of_their_own(name: str, models: Models) -> None:
    response = models.post(f"predictions/{DETECTOR}", content=BAD[name])
    assert response.status_code in (400, 415), response.text
    assert response.json()["error"].endswith(".")


def test_a_fault_of_ours_on_one_item_leaves_the_others_their_answers(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(made.folder / "model-store" / f"{DETECTOR}.mar") as archive:
        archive.extractall(tmp_path)
    statuses: dict[int, int] = {}
    context = SimpleNamespace(
        system_properties={"model_dir": str(tmp_path), "gpu_id": None},
        set_response_status=lambda code, phrase, idx: statuses.update({idx: code}),
    )
    handler = Handler()
    items = [{"body": pixels.tobytes()} for pixels in PREPARED[:3]]
    wanted = handler.handle(items, context)
    real = OnnxEngine.outputs

    def failing(engine: OnnxEngine, films: list[np.ndarray[Any, Any]]) -> list[Raw]:
        if np.array_equal(films[0], PREPARED[1]):
            raise MemoryError
        return real(engine, films)

    monkeypatch.setattr(OnnxEngine, "outputs", failing)
    first, failed, last = handler.handle(items, context)
    assert [first, last] == [wanted[0], wanted[2]]
    assert failed == {"error": "The model failed on this item."}
    assert statuses == {1: 500}


def test_every_run_of_the_network_has_one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """On some processors a batch gives the bits of its films alone, so that no answer would tell."""
    engine = OnnxEngine(REFERENCE_RUN / "weights", DETECTOR)
    real, shapes = engine._session.run, []

    def noted(wanted: None, given: dict[str, np.ndarray[Any, Any]]) -> Any:
        shapes.append(given["pixels"].shape)
        return real(wanted, given)

    monkeypatch.setattr(engine, "_session", SimpleNamespace(run=noted))
    engine.outputs(PREPARED[:3])
    assert shapes == [(1, 224, 224)] * 3


def test_the_two_models_differ_and_tell_their_profile(models: Models) -> None:
    detector, typer = models.score(PREPARED[0]), models.score(PREPARED[0], TYPER)
    assert detector["probability"] != typer["probability"]
    assert detector["profile"]["engine"] == "onnxruntime"
    assert detector["profile"]["threads"] == 1


def test_workers_import_no_torch(models: Models) -> None:
    for worker in models.workers():
        assert not any("libtorch" in mapped.path for mapped in worker.memory_maps())


def test_everything_listens_on_loopback_only(models: Models) -> None:
    listening = {
        connection.laddr.ip
        for connection in psutil.Process(models.process.pid).connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_java_leaves_nothing(number: int, made: Made, tmp_path: Path) -> None:
    models = Models(made, tmp_path / "two")
    workers = models.workers()
    assert workers
    os.kill(models.process.pid, number)
    models.process.wait(30)
    wait_for(lambda: not any(worker.is_running() for worker in workers), 20)
    for port in models.ports:
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/ping", timeout=2)
