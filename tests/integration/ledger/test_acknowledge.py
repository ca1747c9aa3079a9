"""An auditor's way by commands: from a finding to its acknowledgement."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pneumoserve.signing import write_public_key
from pneumoserve.store import S3Settings
from tests.support.archives import Archive
from tests.support.commands import Ran, invoke

A, B = "front-0000000a", "front-0000000b"


def test_an_auditor_acknowledges_by_a_command(archive: Archive, settings: S3Settings, tmp_path: Path) -> None:
    for film in (b"film 1", b"film 2"):
        archive.write(A, [film])
        archive.seal()
    archive.write(A, [b"film 3"])
    archive.write(B, [b"film 4"], last=True)
    folder = tmp_path / "keys"
    folder.mkdir()
    key = folder / "sealer.pem"
    key.write_bytes(_pem(archive.sealer_key))
    write_public_key(archive.sealer_key, folder / "sealers")
    write_public_key(archive.writer_key, folder / "writers")

    def run(*words: str) -> Ran:
        trust = ("--trust", str(folder / "writers"), "--sealer-trust", str(folder / "sealers"))
        return invoke(["archive", *words, *trust, "--state", str(folder / "state")], settings.to_env())

    archive.store.put("seals/x", b"x", "text/plain")
    sealing = run("seal", "--key", str(key), "--lock-days", "0")
    assert sealing.returncode == 1
    (line,) = [line for line in sealing.stdout.splitlines() if "it is 3:" in line]
    last = line.split()[2].rstrip(";")
    assert run("verify").returncode == 1
    unknown = run("acknowledge", "seals/y", "--reason", "why", "--key", str(key))
    assert (unknown.returncode, "seals/y" in unknown.stderr) == (1, True)
    done = run("acknowledge", "seals/x", "--reason", "a drill", "--key", str(key))
    assert done.returncode == 0, done.stdout + done.stderr
    verified = run("verify", "--last-seal", last)
    assert verified.returncode == 0, verified.stdout
    assert "acknowledged: seals/x: a drill" in verified.stdout
    assert f"the last seal is {last} of" in verified.stdout
    assert run("seal", "--key", str(key), "--lock-days", "0").returncode == 0
    archive.remove("seals/00000003.json")
    cut = run("verify", "--last-seal", last)
    assert cut.returncode == 1
    assert "cut (sealed)  seals/00000003.json" in cut.stdout
    assert run("verify", "--last-seal", "3").returncode == 2


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
