"""Real Prometheus and Alertmanager as processes, and what answers in the place of what cannot be had."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx

from pneumoserve.local.process import Child, free_ports

PROMETHEUS: Final = shutil.which("prometheus")
ALERTMANAGER: Final = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
_READY_SECONDS: Final = 60.0
_GRACE_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Target:
    """What is scraped at `address` (host:port), with the labels that a PodMonitor would add."""

    address: str
    labels: dict[str, str]


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def ask(self, path: str, **query: str) -> Any:
        """The data of an answer of its API."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=query, timeout=30)
        body = answer.json()
        assert body["status"] == "success", f"{query}: {body}"
        assert not body.get("warnings"), f"{query}: {body['warnings']}"
        return body["data"]

    def query(self, expression: str) -> list[Any]:
        """What an expression gives now."""
        data = self.ask("query", query=expression)
        return [data["result"]] if data["resultType"] == "scalar" else list(data["result"])

    def names(self) -> set[str]:
        """The names of all metrics it knows."""
        return set(self.ask("label/__name__/values"))

    def rules(self) -> list[Any]:
        """Its rules, as it last evaluated them."""
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]


@contextlib.contextmanager
def running_prometheus(
    folder: Path, targets: list[Target], groups: list[dict[str, Any]], alertmanager: str | None = None
) -> Iterator[Prometheus]:
    """Prometheus that scrapes and evaluates each second; `alertmanager` is a host:port."""
    assert PROMETHEUS is not None
    folder.mkdir()
    (folder / "rules.json").write_text(json.dumps({"groups": groups}))
    given = [{"targets": [each.address], "labels": each.labels} for each in targets]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.json"],
        "scrape_configs": [{"job_name": "pods", "static_configs": given}],
    }
    if alertmanager is not None:
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
    (folder / "prometheus.yml").write_text(json.dumps(config))
    (port,) = free_ports(1)
    options = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with _running("prometheus", [PROMETHEUS, *options], port, folder) as url:
        yield Prometheus(url)


@contextlib.contextmanager
def running_alertmanager(folder: Path, webhook: str) -> Iterator[str]:
    """Alertmanager that tells a webhook at once, and again when an alert resolves; its host:port."""
    assert ALERTMANAGER is not None
    folder.mkdir()
    route = {"receiver": "tests", "group_by": ["alertname"], "group_wait": "0s", "group_interval": "1s"}
    receiver = {"name": "tests", "webhook_configs": [{"url": webhook, "send_resolved": True}]}
    (folder / "alertmanager.yml").write_text(json.dumps({"route": route, "receivers": [receiver]}))
    (port,) = free_ports(1)
    options = [f"--config.file={folder / 'alertmanager.yml'}", f"--storage.path={folder / 'data'}"]
    with _running("alertmanager", [ALERTMANAGER, *options, "--cluster.listen-address="], port, folder) as url:
        yield url.removeprefix("http://")


@contextlib.contextmanager
def _running(name: str, command: list[str], port: int, folder: Path) -> Iterator[str]:
    url = f"http://127.0.0.1:{port}"
    command = [*command, f"--web.listen-address=127.0.0.1:{port}"]
    child = Child(name, command, dict(os.environ), folder / f"{name}.log", _GRACE_SECONDS)

    def ready() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{url}/-/ready", timeout=2).is_success
        return False

    child.start()
    try:
        child.wait_until(ready, _READY_SECONDS)
        yield url
    finally:
        child.stop()


@dataclass
class Peer:
    """A web server in this process: it answers every GET with `text`, and keeps what is posted."""

    text: str = ""
    posted: list[Any] = field(default_factory=list)
    address: str = ""

    @contextlib.contextmanager
    def serving(self) -> Iterator[Peer]:
        """Answer as long as the context lasts; `address` is a host:port."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.daemon_threads = True
        self.address = f"127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        peer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(peer.text.encode())

            def do_POST(self) -> None:
                peer.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self._answer(b"")

            def _answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
                return

        return Handler
