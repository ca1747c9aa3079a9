"""examples/erase_patient.py on a real S3 server: whose images go, what a lock says to it, and what is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.ledger import SealSettings
from pneumoserve.records import Pseudonyms, image_key
from pneumoserve.signing import write_public_key
from pneumoserve.store import S3Settings
from tests.support.archives import Archive, record_of
from tests.support.documents import ROOT

SCRIPT = ROOT / "examples" / "erase_patient.py"
THEIRS, SHARED, ANOTHERS = b"their film", b"a film of both", b"another's film"


@dataclass
class Desk:
    """What a person has who erases."""

    folder: Path
    settings: S3Settings

    def run(self, reference: str, *options: str) -> subprocess.CompletedProcess[str]:
        words = [reference, "--reference-key", str(self.folder / "references.key")]
        for name in ("archive", "sealer"):
            words += [f"--{name}-trust", str(self.folder / name)]
        environment = {**os.environ, **self.settings.to_env()}
        command = [sys.executable, str(SCRIPT), *words, *options]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def desk(archive: Archive, settings: S3Settings, tmp_path: Path) -> Desk:
    """An archive with images of a patient, of another one, and of both."""
    (tmp_path / "references.key").write_text("k" * 32)
    write_public_key(archive.writer_key, tmp_path / "archive")
    write_public_key(archive.sealer_key, tmp_path / "sealer")
    pseudonyms = Pseudonyms(b"k" * 32)

    def record(film: bytes, reference: str) -> bytes:
        archive.store.put(image_key(digest_of(film)), film, "image/jpeg")
        made = json.loads(record_of(film))
        made["call"]["patient"] = pseudonyms.hash("patient", reference)
        return canonical_json(made)

    def write(lines: Sequence[bytes]) -> None:
        place, body = archive.next("pneumonia-00000001", lines)
        archive.store.put(place.key, body, "application/x-ndjson")

    write([record(THEIRS, "4711"), record(SHARED, "4711")])
    write([record(ANOTHERS, "4712"), record(SHARED, "4712")])
    return Desk(tmp_path, settings)


def stored(archive: Archive) -> set[str]:
    return set(archive.keys("images/"))


def test_it_lists_the_images_of_one_patient_and_removes_none(archive: Archive, desk: Desk) -> None:
    before = stored(archive)
    done = desk.run("4711")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "2 records, 2 images, 1 of them of others too\n"
    assert image_key(digest_of(THEIRS)) in done.stdout
    assert "4711" not in done.stdout + done.stderr
    assert desk.run("0815").stderr == "0 records, 0 images, 0 of them of others too\n"
    assert stored(archive) == before


def test_what_is_erased_is_a_finding_until_it_is_acknowledged(archive: Archive, desk: Desk) -> None:
    archive.seal()
    done = desk.run("4711", "--erase")
    # The image that another patient's record names stays, and that is told.
    assert done.returncode == 1
    assert "(of others too: kept)" in done.stdout
    assert stored(archive) == {image_key(digest_of(film)) for film in (SHARED, ANOTHERS)}
    assert list(archive.store.versions(image_key(digest_of(THEIRS)))) == []
    assert [(kind, key) for kind, key, _ in archive.found()] == [("missing_image", image_key(digest_of(THEIRS)))]


@pytest.mark.parametrize(("mode", "goes"), [("GOVERNANCE", True), ("COMPLIANCE", False)])
def test_a_governance_lock_can_be_bypassed_and_compliance_not(
    archive: Archive, desk: Desk, mode: Literal["GOVERNANCE", "COMPLIANCE"], goes: bool
) -> None:
    archive.seal(SealSettings(lock_days=1, lock_mode=mode))
    done = desk.run("4711", "--erase")
    assert (image_key(digest_of(THEIRS)) not in stored(archive)) == goes
    assert ("not removed: images/" in done.stderr) != goes
