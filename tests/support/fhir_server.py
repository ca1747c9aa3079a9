"""A FHIR server for tests: Medplum's, from npm, in memory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

_SOURCE = Path(__file__).with_name("fhir")
needs_node = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None, reason="Node.js with npm is not on every machine"
)


class FhirServer:
    """One at a URL."""

    def __init__(self, url: str) -> None:
        self.url = url

    def take(self, body: bytes) -> dict[str, Any]:
        """What it answers to a transaction."""
        answer = httpx.post(self.url, content=body, headers={"content-type": "application/fhir+json"}, timeout=30)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def find(self, kind: str) -> list[dict[str, Any]]:
        """Its resources of a type."""
        return [each["resource"] for each in httpx.get(f"{self.url}/{kind}", timeout=30).json().get("entry", [])]


@contextlib.contextmanager
def run_fhir_server() -> Iterator[FhirServer]:
    """An empty one on a free port."""
    command = ["node", _install() / "server.mjs"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield FhirServer(f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.terminate()


def _install() -> Path:
    """The server's folder with its packages, in the user's cache by what it is made of."""
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(_SOURCE.iterdir()))).hexdigest()[:12]
    target = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pneumoserve-fhir" / key
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
            folder = shutil.copytree(_SOURCE, Path(temporary) / "made")
            options = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock")
            installed = subprocess.run(["npm", "install", *options], cwd=folder, check=False, capture_output=True)
            if installed.returncode != 0:
                pytest.skip("npm cannot have Medplum's packages here")
            # Another process may have been faster.
            with contextlib.suppress(OSError):
                folder.rename(target)
    return target
