"""Intake is killed at random moments while a PACS sends, by C-STORE and by STOW-RS in turn.

Nothing is lost, answered twice, or reported twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from pneumoserve.local.process import free_ports
from pneumoserve.store import S3Settings, S3Store
from tests.conftest import wait_for
from tests.support.dicom_peers import send_until_taken, take_reports
from tests.support.intake import PNEUMONIA, make_object

KILLS = 20


class Service:
    """Answers over HTTP as the front does, a repeated idempotency key with its first answer."""

    def __init__(self) -> None:
        self.url = ""
        self.first: dict[str, bytes] = {}
        self.images: dict[str, set[str]] = {}

    def answer(self, key: str, body: bytes) -> bytes:
        boundary = body[: body.index(b"\r\n")]
        parts = [part for part in body.split(boundary) if b'name="file"' in part]
        self.images[key] = {hashlib.sha256(part).hexdigest() for part in parts}
        row = {**PNEUMONIA.model_dump(mode="json"), "release": "0" * 12, "notice": None}
        rows = [{**row, "prediction_id": f"{len(self.first)}-{index}"} for index in range(len(parts))]
        document = {"predictions": rows, "intended_use": "Research only.", "assumed_prevalence": 0.5}
        return self.first.setdefault(key, json.dumps(document).encode())


@contextlib.contextmanager
def serve() -> Iterator[Service]:
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            answer = service.answer(self.headers["idempotency-key"], body)
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    service.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()


def send_in_turn(ports: list[int], number: int, study: str) -> None:
    """An object by C-STORE or by STOW-RS, again until it is told that it is kept."""
    file = make_object(number, study)
    if number % 2 == 0:
        send_until_taken(file, ports[0])
    else:
        wait_for(lambda: store_by_stow(ports[1], file), 120)


def store_by_stow(port: int, file: bytes) -> bool:
    body = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n--x--\r\n"
    headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=x'}
    with contextlib.suppress(httpx.TransportError):
        return httpx.post(f"http://127.0.0.1:{port}/dicom-web/studies", content=body, headers=headers).is_success
    return False


@pytest.mark.timeout(600)
def test_what_is_killed_goes_on(settings: S3Settings, store: S3Store, tmp_path: Path) -> None:
    chance = random.Random(20261201)
    (tmp_path / "key").write_text("k" * 32)
    (tmp_path / "rules.yaml").write_text("quietSeconds: 0\n")
    ports = free_ports(2)
    studies = [f"1.2.826.0.1.3680043.10.{number}" for number in range(1, KILLS // 2 + 1)]
    with serve() as service, take_reports() as (address, taken), (tmp_path / "log").open("w") as log:
        command = [
            *(sys.executable, "-m", "pneumoserve.intake", "--host=127.0.0.1", f"--port={ports[0]}"),
            *(f"--web-port={ports[1]}", f"--to={address}"),
            *(f"--rules={tmp_path / 'rules.yaml'}", f"--front={service.url}", f"--reference-key={tmp_path / 'key'}"),
        ]

        def start() -> subprocess.Popen[bytes]:
            begun = subprocess.Popen(command, env={**settings.to_env()}, stdout=subprocess.PIPE, stderr=log)
            assert begun.stdout is not None
            assert b"PNEUMOSERVE" in begun.stdout.readline(), (tmp_path / "log").read_text()
            return begun

        def send_all() -> None:
            for study in studies:
                for number in (1, 2):
                    send_in_turn(ports, number, study)

        sender = threading.Thread(target=send_all)
        sender.start()
        for _ in range(KILLS):
            running = start()
            # At any moment of its work, which is what is to be shown.
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(chance.uniform(0.0, 1.5))
            running.kill()
            running.communicate()
        running = start()
        sender.join(120)
        wait_for(lambda: not list(store.list("objects/")), 120)
        running.terminate()
        running.communicate()
        assert running.returncode == 0
    outcomes = [each for each in store.list("instances/") if each.key.endswith("/done")]
    assert len(outcomes) == 2 * len(studies)
    answered = [image for images in service.images.values() for image in images]
    assert len(answered) == len(set(answered)) == 2 * len(studies)
    # A study whose objects came before and after a look has a result of each; a result is one object to a PACS.
    assert len(studies) <= len(taken) <= 2 * len(studies)
    assert {len(each) for each in taken.values()} == {1}
