"""The models container as it runs: TorchServe with the reference release, asked directly."""

from __future__ import annotations

import concurrent.futures
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from handlers.model_handler import Handler
from pneumoserve.canonical import digest_of
from pneumoserve.imaging.prepare import prepare
from pneumoserve.local.process import free_ports
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.models.engine import OnnxEngine, Raw
from pneumoserve.models.inprocess import load_scorers
from pneumoserve.models.probe import answers, has_worker, main
from pneumoserve.names import DETECTOR, TYPER
from pneumoserve.release import package as packaging
from pneumoserve.release import verify
from pneumoserve.signing import generate_key, write_public_key
from tests.conftest import wait_for
from tests.integration.release.conftest import Made
from tests.support import films

OLD_HANDLERS = Path(__file__).parents[2] / "data" / "handlers-0.2.0"
# SHA-256 of the MARs of the reference release of version 0.2.0.
OLD_MARS = {
    DETECTOR: "9a1a3d03e1474d69de94942b3ac4f9363fb241506465a02120103a6303c9ab78",
    TYPER: "970c7b00257686ac56f823ff87a57faedc08439675151cdee0d7ab87ffa2ad36",
}
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


def test_pixels_and_a_films_file_have_the_same_score(models: Models) -> None:
    encoded = models.post(f"predictions/{DETECTOR}", content=FILMS[0], headers={"content-type": "image/jpeg"})
    assert encoded.json() == models.score(PREPARED[0])


def test_a_mar_that_version_0_2_0_packaged_is_served(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: Models
) -> None:
    """Its handler names `pneumoserve.models.handler`; the digests say that these are the bytes that were signed."""
    handlers = iter([OLD_HANDLERS / f"{kind}_handler.py" for kind in ("detector", "typer")])
    monkeypatch.setattr(packaging, "_find_handler", lambda: next(handlers))
    write_public_key(key := generate_key(tmp_path / "key.pem"), tmp_path / "trust")
    old = Made(packaging.package(REFERENCE_RUN, tmp_path / "releases", key), tmp_path / "trust")
    digests = {name: digest_of((old.folder / "model-store" / f"{name}.mar").read_bytes()) for name in OLD_MARS}
    assert digests == OLD_MARS
    assert old.folder.name != made.folder.name
    running = Models(old, tmp_path / "old")
    try:
        for model in (DETECTOR, TYPER):
            assert running.score(PREPARED[0], model) == models.score(PREPARED[0], model)
    finally:
        running.process.terminate()
        running.process.wait(30)


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
    "no film": b"not an image",
    "json": b'{"instances": []}',
    "empty": b"",
    "pixels cut short": PREPARED[0].tobytes()[:-1],
}


@pytest.mark.parametrize("name", BAD)
def test_bad_items_have_a_4xx_of_their_own(name: str, models: Models) -> None:
    kind = "application/json" if name == "json" else "application/octet-stream"
    response = models.post(f"predictions/{DETECTOR}", content=BAD[name], headers={"content-type": kind})
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


def test_the_detector_answers_for_the_typer_in_one_run_with_the_same_bits(models: Models, made: Made) -> None:
    """As two models they run where images are replayed: every image of the sample."""
    release = verify(made.folder, made.trust)
    with load_scorers(release) as scorers:
        for pixels in PREPARED:
            (detector,), (typer,) = (scorers[name].scores([pixels]) for name in (DETECTOR, TYPER))
            assert models.score(pixels) == asdict(replace(detector, typer=typer))
            assert models.score(pixels, TYPER) == asdict(typer)


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


def test_a_frozen_java_is_not_alive_and_a_lost_worker_changes_nothing(models: Models) -> None:
    alive = ["--alive", "--inference-port", str(models.ports[0])]
    assert main(alive) == 0
    for worker in models.workers():
        worker.kill()
    assert main(alive) == 0
    os.kill(models.process.pid, signal.SIGSTOP)
    try:
        # On a busy machine its threads take a moment to stop.
        wait_for(lambda: not answers(models.ports[0], timeout=0.5))
    finally:
        os.kill(models.process.pid, signal.SIGCONT)
    wait_for(models.ready, 60)
    assert main(alive) == 0


def test_java_takes_classes_from_its_own_folder_alone(models: Models) -> None:
    words = psutil.Process(models.process.pid).cmdline()
    (folder,) = words[words.index("-cp") + 1].split(":")
    assert folder.endswith("/ts/frontend/*")


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
