"""Releases: the same run gives the same bytes, and nothing that was tampered with starts."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pneumoserve.local.process import free_ports
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.names import DETECTOR
from pneumoserve.release import ReleaseError, verify
from pneumoserve.release.package import PackageError, package, sign
from pneumoserve.release.schema import digest_of
from pneumoserve.release.signing import generate_key, load_trust
from tests.release.conftest import Made


def test_packaging_twice_gives_equal_bytes(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A zip counts time in steps of two seconds: a date in one must have had time to differ.
    time.sleep(2.1)
    monkeypatch.chdir(tmp_path)
    old = os.umask(0o077)
    try:
        again = package(REFERENCE_RUN, tmp_path / "elsewhere", None)
    finally:
        os.umask(old)
    assert again.name == made.folder.name
    for path in (path for path in made.folder.rglob("*") if path.is_file() and path.suffix != ".sig"):
        assert (again / path.relative_to(made.folder)).read_bytes() == path.read_bytes(), path.name


def test_a_release_states_its_digest_files_and_models(made: Made) -> None:
    release = verify(made.folder, made.trust)
    assert release.digest == digest_of((made.folder / "release.json").read_bytes())
    assert release.id == release.digest[:12] == made.folder.name
    assert "model-store/pneumonia-detector.mar" in release.manifest.files
    assert release.manifest.files["data/manifest.json"] == release.manifest.data.digest
    with zipfile.ZipFile(made.folder / "model-store" / f"{DETECTOR}.mar") as archive:
        names = archive.namelist()
        assert digest_of(archive.read(f"{DETECTOR}.safetensors")) == release.manifest.models[0].weights
    assert not [name for name in names if name.endswith((".pt", ".pth", ".pkl", ".bin"))]
    card = (made.folder / "MODEL_CARD.md").read_text()
    assert card.index("not for clinical use") < card.index("## Data")


def changed_byte(folder: Path, _: Made) -> None:
    mar = folder / "model-store" / f"{DETECTOR}.mar"
    data = bytearray(mar.read_bytes())
    data[len(data) // 2] ^= 1
    mar.write_bytes(data)


def extra_file(folder: Path, _: Made) -> None:
    (folder / "model-store" / "other.mar").write_bytes(b"x")


def missing_file(folder: Path, _: Made) -> None:
    (folder / "MODEL_CARD.md").unlink()


def linked_file(folder: Path, _: Made) -> None:
    card = folder / "MODEL_CARD.md"
    card.rename(folder.parent / "card")
    card.symlink_to(folder.parent / "card")


def no_signature(folder: Path, _: Made) -> None:
    (folder / "release.json.sig").unlink()


def untrusted_key(folder: Path, _: Made) -> None:
    sign(folder, generate_key(folder.parent / "stranger.pem"))


def stranger_under_a_trusted_name(folder: Path, made: Made) -> None:
    untrusted_key(folder, made)
    signature = json.loads((folder / "release.json.sig").read_bytes())
    signature["key_id"] = next(iter(load_trust(made.trust).keys))
    (folder / "release.json.sig").write_text(json.dumps(signature))


def changed_threshold(folder: Path, _: Made) -> None:
    manifest = json.loads((folder / "release.json").read_bytes())
    manifest["policy"]["detector_threshold"] = 0.99
    (folder / "release.json").write_text(json.dumps(manifest, sort_keys=True, separators=(",", ":")))


def garbled_signature(folder: Path, _: Made) -> None:
    (folder / "release.json.sig").write_bytes(b"\xff")


FAULTS: dict[str, tuple[Callable[[Path, Made], None], str]] = {
    "changed byte": (changed_byte, "altered"),
    "extra file": (extra_file, "extra_file"),
    "missing file": (missing_file, "missing_file"),
    "linked file": (linked_file, "extra_file"),
    "no signature": (no_signature, "unsigned"),
    "untrusted key": (untrusted_key, "unknown_signer"),
    "stranger under a trusted name": (stranger_under_a_trusted_name, "unknown_signer"),
    "changed threshold": (changed_threshold, "unknown_signer"),
    "garbled signature": (garbled_signature, "unknown_signer"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_was_tampered_with_does_not_verify(name: str, made: Made, broken: Path) -> None:
    spoil, fault = FAULTS[name]
    spoil(broken, made)
    with pytest.raises(ReleaseError) as caught:
        verify(broken, made.trust)
    assert caught.value.fault == fault


@pytest.mark.parametrize("revoked", ["keys", "releases"])
def test_what_is_revoked_does_not_verify(revoked: str, made: Made, tmp_path: Path) -> None:
    trust = Path(shutil.copytree(made.trust, tmp_path / "trust"))
    release = verify(made.folder, made.trust)
    named = release.signer if revoked == "keys" else release.digest
    (trust / "revoked.json").write_text(json.dumps({revoked: [named]}))
    with pytest.raises(ReleaseError, match="revoked"):
        verify(made.folder, trust)


@pytest.mark.parametrize("container", ["models", "front"])
@pytest.mark.parametrize("name", ["changed byte", "extra file", "no signature", "untrusted key"])
def test_each_container_refuses_before_it_serves(name: str, container: str, made: Made, broken: Path) -> None:
    FAULTS[name][0](broken, made)
    log = broken.parent / "termination-log"
    port = free_ports(1)[0]
    option = "--inference-port" if container == "models" else "--http-port"
    done = subprocess.run(
        [
            *(sys.executable, "-m", f"pneumoserve.{container}"),
            *("--release", broken, "--trust", made.trust, option, str(port)),
        ],
        env={**os.environ, "TERMINATION_LOG": str(log)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert log.read_text().startswith(f"Release {made.folder.name}")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_an_unfinished_run_is_not_packaged(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"run\.json"):
        package(tmp_path, tmp_path / "out", None)


def test_weights_that_are_not_the_runs_are_not_packaged(tmp_path: Path) -> None:
    run = Path(shutil.copytree(REFERENCE_RUN, tmp_path / "run"))
    weights = run / "weights" / f"{DETECTOR}.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(PackageError, match="safetensors"):
        package(run, tmp_path / "out", None)


def test_films_that_are_not_the_runs_are_not_packaged(tmp_path: Path) -> None:
    run = Path(shutil.copytree(REFERENCE_RUN, tmp_path / "run"))
    stated = (run / "data" / "manifest.json").read_bytes()
    (run / "data" / "manifest.json").write_bytes(stated.replace(b'"train"', b'"validation"', 1))
    with pytest.raises(PackageError, match="is not the dataset that it states"):
        package(run, tmp_path / "out", None)
    (run / "data" / "manifest.json").write_bytes(stated)
    (run / "data" / "pixels.json").write_text('{"schema": "pneumoserve.pixels/1", "pixels": {}}')
    with pytest.raises(PackageError, match="does not name the films"):
        package(run, tmp_path / "out", None)
    (run / "data" / "pixels.json").write_text("{}")
    with pytest.raises(PackageError, match="not of a form"):
        package(run, tmp_path / "out", None)
    (run / "data" / "pixels.json").unlink()
    with pytest.raises(PackageError, match="the films it learned from"):
        package(run, tmp_path / "out", None)
