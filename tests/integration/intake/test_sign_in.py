"""How intake names itself to a service whose callers sign in, past the gateway that names others."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pneumoserve.front.errors import CallError
from pneumoserve.front.identity import Callers
from pneumoserve.intake.calls import Caller
from pneumoserve.intake.errors import ServiceAwayError
from pneumoserve.intake.running import sign_in
from pneumoserve.intake.settings import IntakeSettings

HEADER = "Pneumoserve-Subject"
SECRET = "s" * 40


def headers_of_a_call(*flags: str) -> list[tuple[str, str]]:
    """What the service hears of a call by intake with these flags."""
    heard: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.extend(self.headers.items())
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(503)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        settings = IntakeSettings.from_flags([f"--front=http://127.0.0.1:{server.server_port}", *flags])
        caller = Caller(settings.front, sign_in(settings))
        with pytest.raises(ServiceAwayError):
            caller.ask([b"an object"], {"study": "1.2"}, "a key")
        caller.close()
        thread.join()
    return heard


def test_the_service_believes_who_calls(tmp_path: Path) -> None:
    (tmp_path / "credential").write_text(f"{SECRET}\n")
    heard = headers_of_a_call(f"--subject-header={HEADER}", f"--gateway-secret={tmp_path / 'credential'}")
    assert Callers(HEADER.lower(), SECRET.encode()).subject(heard) == "intake"
    assert ("Idempotency-Key", "a key") in heard


def test_without_the_flags_nobody_is_named() -> None:
    heard = headers_of_a_call()
    assert HEADER not in dict(heard)
    with pytest.raises(CallError):
        Callers(HEADER.lower()).subject(heard)
