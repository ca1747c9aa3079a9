"""A sign-in provider as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from pneumoserve.local.process import free_ports
from tests.conftest import wait_for

PEOPLE = {
    "d.1": ["practitioner"],
    "r.1": ["reader"],
    "r.2": ["reader"],
    "r.3": ["reader"],
    "l.1": ["lead"],
    "a.1": ["auditor"],
}


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/.well-known/openid-configuration").status_code == 200
    except httpx.HTTPError:
        return False


@contextmanager
def running_provider(log: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The provider's address, and its process."""
    port = free_ports(1)[0]
    people = [{"sub": name, "roles": roles} for name, roles in PEOPLE.items()]
    people += [{"sub": "realm", "realm_access": {"roles": ["xray-readers", "others"]}}, {"sub": "a|b c", "roles": []}]
    claims = [f"--user-claims={json.dumps(each)}" for each in people]
    command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", f"--port={port}", "--require-nonce", *claims]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: _answers(url))
        yield url, process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_provider(tmp_path_factory.mktemp("provider") / "log") as (url, _):
        yield url
