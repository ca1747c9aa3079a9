"""A stand-in for a web server that results go to."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pydicom
from pydicom.uid import Comprehensive3DSRStorage


@dataclass
class Told:
    """A web server, no PACS and no FHIR server, that answers as it is told; the last answer again and again.

    An answer is a status, a text or a function of the request's body that gives JSON, and headers.
    """

    url: str = ""
    answers: list[tuple[int, Any, dict[str, str]]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def dicomweb(self) -> str:
        return f"{self.url}/dicom-web"


@contextlib.contextmanager
def answer_as_told() -> Iterator[Told]:
    """Run one on a free port."""
    made = Told()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            status, answer, headers = made.answers.pop(0) if len(made.answers) > 1 else made.answers[0]
            body = answer.encode() if isinstance(answer, str) else json.dumps(answer(made.bodies[-1])).encode()
            self.send_response(status)
            for name, value in ({"content-length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()


def say_stored(body: bytes) -> dict[str, Any]:
    """What a DICOMweb server says that stored the one report of a request."""
    item = {
        "00081150": {"vr": "UI", "Value": [Comprehensive3DSRStorage]},
        "00081155": {"vr": "UI", "Value": [uid_in(body)]},
    }
    return {"00081199": {"vr": "SQ", "Value": [item]}}


def uid_in(body: bytes) -> str:
    """The SOP Instance UID of the one report of a request."""
    file = pydicom.dcmread(io.BytesIO(report_in(body)), stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
    return str(file.SOPInstanceUID)


def report_in(body: bytes) -> bytes:
    """The one report of a STOW-RS request, as a file."""
    start = body.index(b"DICM") - 128
    return body[start:].rpartition(b"\r\n--")[0]


@contextlib.contextmanager
def take_web_reports() -> Iterator[tuple[str, dict[str, set[bytes]]]]:
    """A DICOMweb server; its URL, and the reports that it got under each SOP Instance UID."""
    taken: dict[str, set[bytes]] = {}

    def keep(body: bytes) -> dict[str, Any]:
        taken.setdefault(uid_in(body), set()).add(report_in(body))
        return say_stored(body)

    with answer_as_told() as made:
        made.answers = [(200, keep, {})]
        yield made.dicomweb, taken
