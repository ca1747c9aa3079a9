"""Intake is killed at random moments while a PACS sends, by C-STORE and by STOW-RS in turn.

Nothing is lost, answered twice, or reported twice, by C-STORE or by STOW-RS. `benchmarks/intake_kills.py` goes on for
longer, with the service itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pneumoserve.intake.spool import Spool
from pneumoserve.local.process import free_ports
from pneumoserve.records import Pseudonyms
from pneumoserve.store import S3Settings, S3Store
from tests.support.dicom_peers import take_reports
from tests.support.intake import PNEUMONIA, make_object
from tests.support.killing_intake import OBJECTS, Intake, find_results, kill_while_sending
from tests.support.told import take_web_reports

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


@pytest.mark.timeout(600)
def test_what_is_killed_goes_on(settings: S3Settings, store: S3Store, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 32)
    spool = Spool(store, Pseudonyms.read(key))
    with serve() as service, take_reports() as (address, by_dicom), take_web_reports() as (url, by_web):
        intake = Intake(settings, key, tmp_path, service.url, (address, url), *free_ports(2))
        studies = kill_while_sending(intake, spool, make_object, random.Random(20261201), range(KILLS))
    outcomes = [each for each in store.list("instances/") if each.key.endswith("/done")]
    answered = [image for images in service.images.values() for image in images]
    assert len(outcomes) == len(answered) == len(set(answered)) == OBJECTS * len(studies)
    # A study whose objects came before and after a look has a result of each; a result is one object to a PACS.
    results = find_results(spool, store)
    for taken in (by_dicom, by_web):
        assert taken.keys() == results
        assert {len(each) for each in taken.values()} == {1}
