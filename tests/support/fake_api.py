"""A fake API server, on a loopback port."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.support.apiserver import listening

Server = TypeVar("Server", bound="ApiServer")


class ApiServer:
    """Gives the answers that are set, else 404 to a GET and 200 to the rest; keeps what was asked."""

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
    with listening(api.answer, tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        yield api
