"""`python -m loadtest` as it is run: against a stub that misbehaves on demand, and against the real local stack."""

from __future__ import annotations

import csv
import datetime
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from loadtest.__main__ import main
from loadtest.calls import KINDS
from tests.conftest import Stack, wait_for
from tests.integration.loadtest.stub_server import RELEASE, Stub, infer_response, served
from tests.support import films

NAME = "Mustermann"
SECRET = "Bearer 0123456789"


@dataclass(frozen=True)
class Run:
    """One run: its exit code, what it printed, and where its reports are."""

    code: int
    out: str
    err: str
    reports: Path

    @property
    def summary(self) -> Any:
        return json.loads((self.reports / "summary.json").read_text())


def command(url: str, out: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "loadtest", "--url", url, "--out", str(out), *words]


def load(url: str, out: Path, *words: str) -> Run:
    done = subprocess.run(command(url, out, *words), capture_output=True, text=True, timeout=60, check=False)
    return Run(done.returncode, done.stdout, done.stderr, out)


def valid(make: Callable[[], Run], excuse: str = "INVALID") -> Run:
    """A load's run whose generator kept up: on a machine that is busy for a moment, one is made again."""
    for _ in range(5):
        run = make()
        if excuse not in run.out:
            break
    return run


def v1(rate: float, seconds: float, *words: str) -> tuple[str, ...]:
    return ("--kinds", "v1", "--rate", f"{rate:g}", "--seconds", f"{seconds:g}", *words)


# --- the truth about time


@pytest.fixture(scope="module")
def stalled(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A service that stands still for 1 s once, under 50 calls a second for 5 s."""
    words = v1(50, 5, "--p50-ms", "100", "--p99-ms", "500")

    def make() -> Run:
        # The call before the clock starts is the first.
        with served(Stub(stall_at=100, stall_seconds=1.0)) as stub:
            return load(stub.url, tmp_path_factory.mktemp("stalled"), *words)

    return valid(make)


def test_a_second_of_standing_still_is_the_wait_of_every_call_that_was_due_in_it(stalled: Run) -> None:
    found = stalled.summary
    latency = found["latency"]
    assert found["due"] == 250
    assert found["failed"] == 0
    assert latency["p50_ms"] < 100
    # 50 calls waited, from a whole second down to nothing: the 13th longest of 250 for three quarters of one.
    assert 650 < latency["p95_ms"] < 900
    assert 900 < latency["p99_ms"] < 1100
    # A closed loop of one user would have one slow call, and this many fewer.
    assert stalled.summary["generator"]["most_under_way"] >= 45


def test_a_missed_threshold_is_exit_code_1_and_told(stalled: Run) -> None:
    assert stalled.code == 1
    assert stalled.summary["verdict"] == "missed"
    assert [(check["name"], check["met"]) for check in stalled.summary["thresholds"]] == [
        ("failed_share", True),
        ("rate", True),
        ("p50_ms", True),
        ("p99_ms", False),
    ]
    assert "MISSED p99_ms <= 500" in stalled.out


def test_locusts_reports_are_there_and_count_from_due_too(stalled: Run) -> None:
    with (stalled.reports / "locust_stats.csv").open() as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    assert rows["v1"]["Request Count"] == "250"
    assert 900 <= float(rows["v1"]["99%"]) <= 1100
    with (stalled.reports / "locust_stats_history.csv").open() as file:
        assert len(list(csv.DictReader(file))) >= 4
    html = (stalled.reports / "report.html").read_text()
    assert html.startswith("<!DOCTYPE html>")
    assert '"num_requests": 250' in html


def test_parameters_are_in_the_summary(stalled: Run) -> None:
    parameters = stalled.summary["parameters"]
    assert (parameters["rate"], parameters["seconds"], parameters["shape"]) == (50, 5, "constant")
    assert parameters["kinds"] == ["v1"]
    assert parameters["films"]["different"] == 6


def test_a_generator_that_was_held_up_says_that_its_result_is_invalid(tmp_path: Path) -> None:
    with served(Stub()) as stub:
        process = subprocess.Popen(
            command(stub.url, tmp_path, *v1(50, 3)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_for(lambda: stub.calls > 20)
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.8)
        os.kill(process.pid, signal.SIGCONT)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    found = json.loads((tmp_path / "summary.json").read_text())
    assert found["verdict"] == "invalid"
    assert "INVALID. The generator fell behind" in out
    # Every call was made all the same, and none is left out of the figures.
    assert found["due"] == 150
    assert found["failed"] == 0


def test_calls_that_do_not_fit_make_the_result_invalid(tmp_path: Path) -> None:
    def make() -> Run:
        with served(Stub(stall_at=10, stall_seconds=1.0)) as stub:
            return load(stub.url, tmp_path, *v1(30, 2, "--most-under-way", "5"))

    run = valid(make, "fell behind")
    assert run.code == 1
    assert "INVALID" in run.out
    assert "raise --most-under-way" in run.summary["invalid_because"]
    assert run.summary["due"] == 60
    assert 0 < run.summary["failed"] == run.summary["problems"]["not sent: too many calls under way"] <= 30


# --- thresholds and failures


def test_failed_calls_are_allowed_as_far_as_told_and_reports_hold_no_word_of_them(tmp_path: Path) -> None:
    folder = tmp_path / NAME
    folder.mkdir()
    for number, path in enumerate(films.sample_films()[:2]):
        (folder / f"{NAME}-{number}.jpeg").write_bytes(path.read_bytes())
    (tmp_path / "headers").write_text(f"Authorization: {SECRET}\n\n")
    words = ("--films", str(folder), "--headers", str(tmp_path / "headers"), "--max-failed", "0.11")
    with served(Stub(fail_every=10)) as stub:
        run = valid(lambda: load(stub.url, tmp_path / "out", *v1(40, 1, *words, "--min-rate", "25")))
    assert run.code == 0, run.out
    assert run.summary["verdict"] == "met"
    assert run.summary["failed"] == run.summary["problems"]["status 503"] == 4
    assert {headers["Authorization"] for headers in stub.seen_headers} == {SECRET}
    texts = [run.out, run.err, *(path.read_text() for path in run.reports.iterdir())]
    assert len(texts) == 8
    assert not [text for text in texts if NAME in text or SECRET in text or "busy" in text]


@pytest.mark.parametrize(
    ("stub", "sentence"),
    [
        (Stub(status=500, body=NAME.encode()), "v1: status 500"),
        (Stub(body=b'{"predictions": []}'), "v1: 0 predictions for 1 films"),
    ],
)
def test_a_service_that_does_not_answer_rightly_gets_no_load(stub: Stub, sentence: str, tmp_path: Path) -> None:
    with served(stub):
        run = load(stub.url, tmp_path, *v1(10, 1))
    assert run.code == 1
    assert sentence in run.err
    assert NAME not in run.out + run.err
    assert stub.calls == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--rate", "0"), "--rate: a number above 0"),
        (("--kinds", "v1,v3"), "--kinds: choose among v1,v2-json"),
        (("--url", "http://user:pass@host"), "put a header into --headers"),
        (("--url", "host:80"), "give it as http://host:port"),
        (("--grpc", "http://host"), "give it as host:port"),
        (("--films", "nowhere"), "there is no such folder"),
        (("--films", "."), "has no images"),
        (("--headers", "nowhere"), "the file cannot be read"),
        (("--max-failed", "5"), "a share from 0 to 1"),
        (("--images", "17"), "--images"),
        (("--seconds", "0.1"), "not even one call of each kind"),
    ],
)
def test_what_is_used_wrongly_is_exit_code_2_with_what_to_do(
    words: tuple[str, ...],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["--url", "http://127.0.0.1:1", *words])
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_a_load_that_is_stopped_by_hand_has_no_result(tmp_path: Path) -> None:
    with served(Stub()) as stub:
        words = command(stub.url, tmp_path, *v1(20, 30))
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: stub.calls > 5)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 1
    assert err.endswith("Stopped by hand; there is no result.\n")
    assert "Traceback" not in err
    assert not (tmp_path / "summary.json").exists()


def test_the_local_load_refuses_wrong_options_before_it_starts_anything() -> None:
    words = [sys.executable, "-m", "loadtest.local", "--rate", "0"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "--rate: a number above 0" in done.stderr
    assert done.stdout == ""


# --- a gateway with TLS


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "ca.pem", folder / "key.pem"


def grpc_stub(ca: Path, key: Path) -> tuple[grpc.Server, int]:
    """A gRPC server that answers ModelInfer as the service does, behind TLS."""
    answers = (infer_response([str(number)], [RELEASE]) for number in count())
    handler = grpc.unary_unary_rpc_method_handler(lambda *_: next(answers))
    methods = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": handler})
    server = grpc.server(ThreadPoolExecutor(4), handlers=[methods])
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), ca.read_bytes())])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    return server, port


def test_a_gateway_with_tls_and_another_name_is_loaded(tmp_path: Path) -> None:
    ca, key = certificate(tmp_path, "pneumonia.example.org")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca, key)
    server, port = grpc_stub(ca, key)
    words = ("--kinds", "v1,grpc", "--rate", "10", "--seconds", "1", "--grpc", f"127.0.0.1:{port}", "--min-rate", "1")
    named = ("--host-name", "pneumonia.example.org")
    with served(Stub(), context) as stub:
        run = valid(lambda: load(stub.url, tmp_path / "out", *words, *named, "--ca", str(ca)))
        refused = load(stub.url, tmp_path / "refused", *words, *named)
        no_authority = load(stub.url, tmp_path / "refused", *words, *named, "--ca", str(key))
    server.stop(None).wait()
    assert run.code == 0, run.out + run.err
    assert {headers["Host"] for headers in stub.seen_headers} == {"pneumonia.example.org"}
    assert refused.code == 1
    assert "v1: SSLCertVerificationError" in refused.err
    assert "grpc: gRPC UNAVAILABLE" in refused.err
    assert no_authority.code == 1
    assert "v1: SSLError" in no_authority.err


# --- the real service


@pytest.fixture(scope="module")
def real(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All kinds against the local stack, two films a call."""
    words = ("--grpc", stack.grpc, "--rate", "5", "--seconds", "4", "--images", "2", "--min-rate", "1")
    return valid(lambda: load(stack.url, tmp_path_factory.mktemp("real"), *words))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_user_gets_right_answers_of_the_real_service(kind: str, real: Run) -> None:
    found = real.summary["by_kind"][kind]
    assert (found["due"], found["failed"], found["problems"]) == (4, 0, {})
    assert found["latency"]["p50_ms"] > 1


def test_a_real_load_names_the_release_and_meets_its_thresholds(real: Run, stack: Stack) -> None:
    assert real.code == 0, real.out + real.err
    assert real.summary["releases"] == {stack.release: 20}
    assert "met    failed_share <= 0: 0" in real.out
