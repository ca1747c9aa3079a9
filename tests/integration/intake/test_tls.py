"""DICOM by TLS, with DCMTK on the other side: each side knows the other by its certificate."""

from __future__ import annotations

import contextlib
import io
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from pneumoserve.intake import IntakeRules, IntakeRulesError, Tls, echo, parse_address
from pneumoserve.intake.errors import PeerAwayError
from pneumoserve.intake.results import make_report
from pneumoserve.intake.scp import Receiver
from pneumoserve.intake.sender import send
from pneumoserve.intake.spool import Batch, ReadImage, StudyAnswer
from pneumoserve.local.process import free_ports
from pneumoserve.store import MemoryStore
from tests.conftest import start_stack, wait_for
from tests.support.cluster.certificates import new_authority
from tests.support.commands import invoke
from tests.support.dicom_peers import dcmtk, needs_dcmtk
from tests.support.intake import PNEUMONIA, child_xray, make_object, make_spool

# Less than we wait for a peer that stops in its handshake.
_WITHIN = 25
pytestmark = needs_dcmtk


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of one authority for us and a PACS, and of another for a stranger."""
    folder = tmp_path_factory.mktemp("keys")
    (folder / "strange").mkdir()
    authority, other = new_authority(folder), new_authority(folder / "strange")
    for name in ("ours", "pacs"):
        authority.issue(name, name, hosts=("127.0.0.1",))
    other.issue("pacs", "pacs", hosts=("127.0.0.1",))
    return folder


def tls_of(keys: Path, *, mutual: bool = True) -> Tls:
    return Tls(keys / "ours.crt", keys / "ours.key", keys / "ca.crt" if mutual else None)


@contextlib.contextmanager
def listening(tls: Tls) -> Iterator[int]:
    receiver = Receiver(make_spool(MemoryStore()), IntakeRules(), ("127.0.0.1", 0), tls)
    try:
        yield receiver.port
    finally:
        receiver.close()


def run(program: str, port: int, *options: object, file: Path | None = None) -> int:
    """The exit status of a program of DCMTK's that calls us."""
    command = [
        dcmtk(program),
        "-aec",
        "PNEUMOSERVE",
        "-to",
        "10",
        *options,
        "127.0.0.1",
        port,
        *([file] if file else []),
    ]
    return subprocess.run([str(each) for each in command], check=False, capture_output=True, timeout=_WITHIN).returncode


def shown(keys: Path, folder: str = "") -> tuple[object, ...]:
    """DCMTK's options for the certificate of a PACS, which trusts our authority."""
    return ("+tls", keys / folder / "pacs.key", keys / folder / "pacs.crt", "+cf", keys / "ca.crt")


def test_dcmtk_sends_by_tls_and_without_a_certificate_of_the_authority_it_may_not(keys: Path, tmp_path: Path) -> None:
    file = tmp_path / "image.dcm"
    file.write_bytes(make_object())
    with listening(tls_of(keys)) as port:
        assert run("echoscu", port, *shown(keys)) == 0
        assert run("storescu", port, *shown(keys), file=file) == 0
        for other in (shown(keys, "strange"), ("+tla", "+cf", keys / "ca.crt"), ()):
            assert run("echoscu", port, *other) != 0
        assert run("echoscu", port, *shown(keys)) == 0


def test_without_an_authority_a_sender_needs_no_certificate(keys: Path) -> None:
    with listening(tls_of(keys, mutual=False)) as port:
        assert run("echoscu", port, "+tla", "+cf", keys / "ca.crt") == 0


def test_whoever_stops_in_the_handshake_holds_up_nobody(keys: Path) -> None:
    with listening(tls_of(keys)) as port, socket.create_connection(("127.0.0.1", port)):
        assert run("echoscu", port, *shown(keys)) == 0


@contextlib.contextmanager
def storescp(folder: Path, keys: Path) -> Iterator[int]:
    (port,) = free_ports(1)
    options = ("+tls", keys / "pacs.key", keys / "pacs.crt", "+cf", keys / "ca.crt", "-od", folder)
    command = [str(each) for each in (dcmtk("storescp"), *options, port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield port
        finally:
            process.kill()


def answers(address: str, tls: Tls) -> bool:
    with contextlib.suppress(PeerAwayError):
        echo("PNEUMOSERVE", parse_address(address), tls)
        return True
    return False


def test_results_go_to_dcmtk_by_tls_and_to_nobody_else(keys: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    header = pydicom.dcmread(io.BytesIO(make_object()))
    read = ReadImage(instance="a" * 64, prediction_id="p", decision=PNEUMONIA)
    answer = StudyAnswer(
        time="2026-12-01T00:00:00.000Z", release="0" * 12, intended_use="Research only.", assumed_prevalence=0.5,
        notice=None, read=(read,), unreadable=(), unread=(), study=PNEUMONIA,
    )  # fmt: skip
    report = make_report(Batch("b" * 64, 1), answer, {"a" * 64: header}, make_spool(MemoryStore()).uid)
    with storescp(taken, keys) as port:
        to = parse_address(f"PACS@127.0.0.1:{port}/tls")
        wait_for(lambda: answers(str(to), tls_of(keys)), 20)
        send("PNEUMOSERVE", to, pydicom.dcmread(io.BytesIO(report)), tls_of(keys))
        assert len(list(taken.iterdir())) == 1
        # It shows no certificate, and believes only those of another authority.
        for tls in (Tls(authority=keys / "ca.crt"), Tls(keys / "ours.crt", keys / "ours.key", keys / "strange/ca.crt")):
            with pytest.raises(PeerAwayError, match="trust each other's certificate"):
                echo("PNEUMOSERVE", to, tls)
        # Its certificate is of an address.
        with pytest.raises(PeerAwayError):
            echo("PNEUMOSERVE", parse_address(f"PACS@localhost:{port}/tls"), tls_of(keys))


@pytest.mark.parametrize("name", ["missing.pem", "ca.crt"])
def test_files_that_cannot_be_used_are_told(name: str, keys: Path) -> None:
    with pytest.raises(IntakeRulesError, match="give a certificate, its key, and an authority in PEM"):
        Tls(keys / "ours.crt", keys / name).listen()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--tls-authority=ca.crt",), "go with --dicom-port"),
        (("--dicom-port=11112", "--tls-key=ours.key"), "give both or neither"),
        (("--dicom-port=11112", "--tls-certificate=ours.crt", "--tls-key=ca.crt"), "give a certificate, its key"),
    ],
)
def test_the_local_stack_refuses_files_that_cannot_be_used_before_it_starts(
    options: tuple[str, ...], sentence: str, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(keys)
    refused = invoke(["serve", f"--state={tmp_path}", *options], {})
    assert (refused.returncode, sentence in refused.stderr, list(tmp_path.iterdir())) == (2, True, [])


def test_the_local_stack_takes_and_sends_by_tls(keys: Path, tmp_path: Path) -> None:
    file, taken, state = tmp_path / "image.dcm", tmp_path / "taken", tmp_path / "state"
    file.write_bytes(child_xray(1))
    for folder in (taken, state):
        folder.mkdir()
    (state / "intake.yaml").write_text("quietSeconds: 1\n")
    (port,) = free_ports(1)
    ours = [f"--tls-{name}={keys / end}" for name, end in (("certificate", "ours.crt"), ("key", "ours.key"))]
    with storescp(taken, keys) as pacs:
        stack = start_stack(
            state, f"--dicom-port={port}", *ours, f"--tls-authority={keys / 'ca.crt'}",
            f"--dicom-to=PACS@127.0.0.1:{pacs}/tls",
        )  # fmt: skip
        assert run("storescu", port, file=file) != 0
        assert run("storescu", port, *shown(keys), file=file) == 0
        wait_for(lambda: list(taken.iterdir()), 60)
        assert stack.stop() == 0
