"""The sealer and the auditor on a real S3 server."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import timedelta
from pathlib import Path

from pneumoserve.ledger import SealReport, SealSettings
from pneumoserve.ledger import sealer as sealing
from pneumoserve.local.state import State
from pneumoserve.store import S3Settings
from tests.conftest import PNEUMOSERVE
from tests.support.archives import Archive

A, B = "front-00000001", "front-00000002"


def test_what_a_real_store_keeps_of_tampering_is_found(archive: Archive) -> None:
    """Its versions and delete markers; tests/unit/ledger/test_verify.py has every other way."""
    first = archive.write(A, [b"film 1"])
    hidden = archive.write(A, [b"film 2"])
    gone = archive.write(B, [b"film 3"])
    overwritten = archive.write(B, [b"film 4"], last=True)
    assert archive.seal(SealSettings(lock_days=1, segment_days=7)).segments == 4
    assert archive.found() == []
    archive.store.put(overwritten.key, archive.store.get(first.key), "application/x-ndjson")
    archive.hide(hidden.key)
    archive.remove(gone.key)
    assert sorted(archive.found()) == [
        ("delete_marker", hidden.key, True),
        ("overwritten", overwritten.key, True),
        ("removed", gone.key, True),
    ]
    archive.hide(first.key)
    archive.replace(overwritten.key, b"")
    assert {kind for kind, _, _ in archive.found(later=timedelta(days=8))} == {"cut"}


def test_the_command_seals_the_states_archive(archive: Archive, settings: S3Settings, tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    state.make()
    archive.writer_key = state.archive_key
    bad = archive.write(A, [b"film"])
    environment = {**os.environ, **settings.to_env()}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [PNEUMOSERVE, "archive", *arguments, "--state", str(state.folder)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    done = run("seal", "--lock-days", "0")
    assert done.returncode == 0, done.stderr
    assert "seal 1: segments 1, records 1; writers closed 0, open 1" in done.stdout
    assert "nothing is locked: no --lock-days asked for it" in done.stdout
    archive.flip(archive.write(A).key, 20, 0)
    done = run("seal", "--json")
    assert done.returncode == 1
    assert f"({sealing.DEFAULT_LOCK_DAYS} days, GOVERNANCE)" in done.stderr
    report = SealReport(**json.loads(done.stdout))
    assert report.number is None
    assert report.lock_days == sealing.DEFAULT_LOCK_DAYS
    done = run("verify")
    assert done.returncode == 1
    assert "findings 1: it is not as it was written" in done.stdout
    archive.remove(archive.keys("records/")[-1])
    done = run("verify", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout)
    assert document["findings"] == []
    assert document["summary"]["records"] == 1
    assert bad.key in archive.keys("records/")
