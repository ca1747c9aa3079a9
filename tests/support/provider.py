"""A sign-in provider as a process of its own, and the people whom it knows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

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
def running_provider(log: Path, host: str = "127.0.0.1") -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The provider's address, and its process."""
    port = free_ports(1)[0]
    people = [{"sub": name, "roles": roles} for name, roles in PEOPLE.items()]
    people += [{"sub": "realm", "realm_access": {"roles": ["xray-readers", "others"]}}, {"sub": "a|b c", "roles": []}]
    claims = [f"--user-claims={json.dumps(each)}" for each in people]
    program = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*program, f"--host={host}", f"--port={port}", "--require-nonce", *claims], stdout=out, stderr=out
        )
    try:
        url = f"http://{host}:{port}"
        wait_for(lambda: _answers(url), 60)
        yield url, process
    finally:
        process.kill()
        process.wait()
