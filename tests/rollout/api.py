"""A stand-in for an API server, on a loopback port."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest

Server = TypeVar("Server", bound="ApiServer")


class ApiServer:
    """Gives what it is told to, else 404 to a GET and 200 to the rest; keeps what was asked."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.status: dict[str, int] = {}
        self.asked: list[tuple[str, str, str, Any]] = []

    def answer(self, method: str, path: str, kind: str, body: bytes) -> tuple[int, Any]:
        bare = path.partition("?")[0]
        parsed = json.loads(body) if body and kind != "image/png" else body
        self.asked.append((method, path, kind, parsed))
        if bare in self.status:
            return self.status[bare], {"message": "so it is"}
        if method == "GET":
            return (200, self.objects[bare]) if bare in self.objects else (404, {})
        return 200, {"metadata": {"resourceVersion": "8"}}

    def of(self, method: str) -> list[tuple[str, str, Any]]:
        return [(path, kind, body) for each, path, kind, body in self.asked if each == method]


@contextlib.contextmanager
def served(api: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Let it listen, and name it in the kubeconfig."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one write for an answer: two would wait for each other's acknowledgement

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = api.answer(self.command, self.path, self.headers.get("Content-Type", ""), body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815 - the names are the base class's

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
            return

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    kubeconfig = tmp_path / "kubeconfig"
    cluster = {"server": f"http://127.0.0.1:{listening.server_address[1]}"}
    document = {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": cluster}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
    }
    kubeconfig.write_text(json.dumps(document))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    yield api
    listening.shutdown()
    listening.server_close()
