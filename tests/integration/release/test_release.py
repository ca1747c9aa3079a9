"""Releases: the same run gives the same bytes, and nothing that was tampered with starts."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from pneumoserve.canonical import digest_of
from pneumoserve.cli import app
from pneumoserve.local.process import free_ports
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.names import DETECTOR
from pneumoserve.release import ReleaseError, verify
from pneumoserve.release.package import PackageError, package, sign
from pneumoserve.signing import generate_key, key_id, load_trust, write_public_key
from tests.integration.release.conftest import Made


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


def untrusted_key(folder: Path, made: Made) -> None:
    no_signature(folder, made)
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
    "stranger under a trusted name": (stranger_under_a_trusted_name, "altered"),
    "changed threshold": (changed_threshold, "altered"),
    "garbled signature": (garbled_signature, "altered"),
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
    named = release.signatures[0].key_id if revoked == "keys" else release.digest
    (trust / "revoked.json").write_text(json.dumps({revoked: [named]}))
    with pytest.raises(ReleaseError, match="revoked"):
        verify(made.folder, trust)


def test_a_list_of_revocations_that_is_misread_starts_nothing(made: Made, tmp_path: Path) -> None:
    trust = Path(shutil.copytree(made.trust, tmp_path / "trust"))
    (trust / "revoked.json").write_text(json.dumps({"releases": [made.folder.name]}))
    with pytest.raises(ReleaseError, match="has 12 digits; write all 64 of the digest"):
        verify(made.folder, trust)
    (trust / "revoked.json").unlink()
    for _ in range(2):
        done = CliRunner().invoke(app, ["release", "revoke", str(made.folder), "--trust", str(trust)])
        assert verify(made.folder, made.trust).digest in done.output.replace("\n", "")
    with pytest.raises(ReleaseError, match="is revoked"):
        verify(made.folder, trust)


def test_a_release_other_than_the_one_asked_for_does_not_verify(made: Made, tmp_path: Path) -> None:
    assert verify(made.folder, made.trust, made.folder.name).id == made.folder.name
    with pytest.raises(ReleaseError, match=f"0123456789ab was asked for.* there is {made.folder.name}"):
        verify(made.folder, made.trust, "0123456789ab")
    elsewhere = Path(shutil.copytree(made.folder, tmp_path / "0123456789ab"))
    with pytest.raises(ReleaseError, match="was asked for"):
        sign(elsewhere, generate_key(tmp_path / "key.pem"))


@pytest.fixture
def approvers(made: Made, tmp_path: Path) -> list[Ed25519PrivateKey]:
    """The keys of two people who are trusted in `tmp_path / "trust"`, beside the one who signed."""
    shutil.copytree(made.trust, tmp_path / "trust")
    keys = [Ed25519PrivateKey.generate() for _ in range(2)]
    for key in keys:
        write_public_key(key, tmp_path / "trust")
    return keys


def test_a_policy_of_two_signatures_wants_two_trusted_people(
    broken: Path, approvers: list[Ed25519PrivateKey], tmp_path: Path
) -> None:
    trust = tmp_path / "trust"
    (trust / "policy.json").write_text('{"signatures": 2}')
    before = (broken / "release.json.sig").read_bytes()
    with pytest.raises(ReleaseError, match="is signed by 1 of the 2 trusted keys") as caught:
        verify(broken, trust)
    assert caught.value.fault == "too_few_signatures"
    (broken / "release.json.sig").write_bytes(before.replace(b"{", b'{"cosignatures":[' + before + b"],", 1))
    with pytest.raises(ReleaseError, match="1 of the 2"):
        verify(broken, trust)  # one person twice is one person
    sign(broken, Ed25519PrivateKey.generate())
    with pytest.raises(ReleaseError, match="1 of the 2"):
        verify(broken, trust)
    sign(broken, approvers[0])
    sign(broken, approvers[1])
    found = verify(broken, trust)
    assert len(found.signatures) == 3
    assert found.id == broken.name
    (trust / "revoked.json").write_text(json.dumps({"keys": [key_id(each.public_key()) for each in approvers]}))
    with pytest.raises(ReleaseError, match="1 of the 2"):
        verify(broken, trust)


def test_a_second_signature_leaves_the_first_as_it_was(broken: Path, approvers: list[Ed25519PrivateKey]) -> None:
    first = json.loads((broken / "release.json.sig").read_bytes())
    for _ in range(2):
        sign(broken, approvers[0])
    both = json.loads((broken / "release.json.sig").read_bytes())
    (second,) = both.pop("cosignatures")
    assert both == first
    assert second["key_id"] == key_id(approvers[0].public_key())


def test_a_signature_counts_until_its_last_day(
    broken: Path, approvers: list[Ed25519PrivateKey], tmp_path: Path
) -> None:
    (broken / "release.json.sig").unlink()
    today = datetime.now(UTC).date()
    sign(broken, approvers[0], today + timedelta(days=1))
    assert verify(broken, tmp_path / "trust").signatures[0].expires == today + timedelta(days=1)
    sign(broken, approvers[0], today - timedelta(days=2))
    with pytest.raises(ReleaseError, match=r"expired on .*; sign it with a trusted key") as caught:
        verify(broken, tmp_path / "trust")
    assert caught.value.fault == "expired"
    stated = json.loads((broken / "release.json.sig").read_bytes())
    for changed in ({**stated, "expires": "2999-01-01"}, {k: v for k, v in stated.items() if k != "expires"}):
        (broken / "release.json.sig").write_text(json.dumps(changed))
        with pytest.raises(ReleaseError, match="was altered after key"):
            verify(broken, tmp_path / "trust")


@pytest.mark.parametrize("more", ["7", "[7]", "[[]]", '[{"key_id": []}]', '{"a": 1}', "null"])
def test_what_stands_for_a_second_signature_harms_nothing(more: str, broken: Path, made: Made) -> None:
    stated = (broken / "release.json.sig").read_bytes().decode()
    (broken / "release.json.sig").write_text(stated.replace("{", f'{{"cosignatures":{more},', 1))
    with contextlib.suppress(ReleaseError):
        assert len(verify(broken, made.trust).signatures) == 1


@pytest.mark.parametrize("container", ["models", "front"])
@pytest.mark.parametrize("name", ["changed byte", "extra file", "no signature", "untrusted key", "another release"])
def test_each_container_refuses_before_it_serves(name: str, container: str, made: Made, broken: Path) -> None:
    wanted = broken.name
    if name == "another release":
        wanted = "0123456789ab"
    else:
        FAULTS[name][0](broken, made)
    log = broken.parent / "termination-log"
    port = free_ports(1)[0]
    option = "--inference-port" if container == "models" else "--http-port"
    done = subprocess.run(
        [
            *(sys.executable, "-m", f"pneumoserve.{container}"),
            *("--release", broken, "--release-id", wanted, "--trust", made.trust, option, str(port)),
        ],
        env={**os.environ, "TERMINATION_LOG": str(log)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert log.read_text().startswith(f"Release {wanted}")
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
