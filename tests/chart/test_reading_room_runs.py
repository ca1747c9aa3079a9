"""Console, alert sender and sample Job as the chart starts them, with the files, keys and rights that it gives them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pneumoserve.evidence import check_package
from pneumoserve.ledger.keys import new_secret
from pneumoserve.local.process import free_ports
from pneumoserve.local.s3 import s3_child, start_s3
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.release.fetch import find_or_fetch
from pneumoserve.release.package import package
from pneumoserve.release.push import upload
from pneumoserve.signing import generate_key, load_key, load_trust, write_public_key
from pneumoserve.store import S3Settings, S3Store
from tests.chart.api import Object
from tests.chart.conftest import TRIAL, Helm, the
from tests.chart.test_reading_room import JOBS, ROOM, container_of
from tests.chart.test_rendered import ARMS
from tests.support.front import wait_until
from tests.support.seaweed import give_rights

PLACE = "/etc/pneumoserve"
OUT = "/var/lib/pneumoserve"


@dataclass
class Room:
    """What the chart makes, files where its volumes would be, and a store that knows its credentials."""

    objects: list[Object]
    folder: Path
    credentials: dict[str, S3Settings]

    def command(self, part: str, **instead: object) -> list[str]:
        """The command of a container, on this machine; `instead` are its ports."""
        words: list[str] = []
        for word in container_of(self.objects, part)["command"]:
            name, equals, value = word.partition("=")
            value = str(instead.get(name.removeprefix("--").replace("-", "_"), value))
            words.append(f"{name}{equals}{value}".replace(PLACE, str(self.folder)).replace(OUT, str(self.folder)))
        program = words.pop(0)
        return [str(Path(sys.executable).with_name(program)), *words]

    def environment(self, part: str) -> dict[str, str]:
        credential = {"sample": "console", "drift": "rollout", "evidence": "seal"}.get(part, part)
        (database,) = [
            each["value"] for each in container_of(self.objects, part)["env"] if each["name"] == "REVIEW_DATABASE"
        ]
        own = database.replace("/tmp", str(self.folder / part))
        return {**os.environ, **self.credentials[credential].to_env(), "REVIEW_DATABASE": own}

    @contextmanager
    def running(self, part: str, **instead: object) -> Iterator[subprocess.Popen[str]]:
        """A part's process; it ends by SIGTERM as a pod does, and in any case with the context."""
        with subprocess.Popen(
            self.command(part, **instead), env=self.environment(part), cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            try:
                yield process
                process.send_signal(signal.SIGTERM)
                _, said = process.communicate(timeout=60)
                assert process.returncode in (0, -signal.SIGTERM), said
            finally:
                process.kill()


@pytest.fixture(scope="module")
def room(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    folder = tmp_path_factory.mktemp("room")
    objects = helm.render(TRIAL, ARMS, ROOM, JOBS)
    signing, sealer, review = (
        new_secret(kind, "s", "n", "i")["stringData"] for kind in ("signing", "sealer", "review")
    )
    files: dict[str, str] = {
        "archive/key.pem": signing["key.pem"],
        "archive-trust/in-use.pem": signing["public.pem"],
        "sealer-trust/in-use.pem": sealer["public.pem"],
        "oidc/secret": "secret",
        "drift/stop.yaml": the(objects, "ConfigMap", "pneumoserve-drift")["data"]["stop.yaml"],
        "evidence-key/key.pem": new_secret("signing", "e", "n", "i")["stringData"]["key.pem"],
        "alerts/alerts.yaml": the(objects, "ConfigMap", "pneumoserve-alerts")["data"]["alerts.yaml"],
        **{f"review/{name}": text for name, text in review.items()},
        **{f"trust/{name}": text for name, text in the(objects, "ConfigMap", "pneumoserve-trust")["data"].items()},
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    for part in ("console", "sample", "evidence"):
        (folder / part).mkdir()
    admin = S3Settings(f"http://127.0.0.1:{free_ports(1)[0]}", "admin", "secret", "films")
    child = s3_child(folder / "data", admin, folder / "s3.log")
    credentials = give_rights(folder / "data" / "identities.json", admin)
    start_s3(child, credentials["setup"])
    yield Room(objects, folder, credentials)
    child.stop()


def run_job(room: Room, part: str, **instead: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        room.command(part, **instead), env=room.environment(part), cwd=room.folder, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip


def test_the_sample_job_draws(room: Room) -> None:
    done = run_job(room, "sample")
    assert done.returncode == 0, done.stderr
    assert "0 of 0 confident studies" in done.stdout


def test_the_drift_job_compares_and_the_evidence_job_leaves_a_signed_file(room: Room, tmp_path: Path) -> None:
    key = generate_key(tmp_path / "key.pem")
    made = package(REFERENCE_RUN, tmp_path / "made", key)
    with closing(S3Store(room.credentials["setup"])) as store:
        list(upload(made, store))
    compared = run_job(room, "drift", release=made.name, state=tmp_path / "state")
    assert compared.returncode == 0, compared.stderr
    assert f"no answers of release {made.name}" in compared.stdout
    assert "the plan stops the release at 2 windows in a row" in compared.stderr
    collected = run_job(room, "evidence", state=tmp_path / "state")
    assert collected.returncode == 0, collected.stderr
    (file,) = (room.folder / "evidence").glob("evidence-*.zip")
    trust = tmp_path / "trust"
    write_public_key(load_key(room.folder / "evidence-key" / "key.pem"), trust)
    assert check_package(file.read_bytes(), load_trust(trust)).manifest.until == file.stem.removeprefix("evidence-")


async def test_the_console_answers_to_its_own_name_alone(room: Room) -> None:
    (metrics_port,) = free_ports(1)
    with room.running("console", port=0, metrics_port=metrics_port, host="127.0.0.1") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        address = urlsplit(json.loads(line)["console"]).netloc
        probe: dict[str, Any] = container_of(room.objects, "console")["readinessProbe"]["httpGet"]
        named = {each["name"]: each["value"] for each in probe["httpHeaders"]}

        def ask(headers: dict[str, str]) -> int:
            connection = http.client.HTTPConnection(address, timeout=30)
            connection.request("GET", probe["path"], headers=headers)
            status = connection.getresponse().status
            connection.close()
            return status

        # It is ready once it has followed the archive.
        await wait_until(lambda: ask(named) == 200, 60)
        assert ask({}) == 400


async def test_the_alert_sender_is_ready_once_it_has_metrics(room: Room) -> None:
    (port,) = free_ports(1)
    with room.running("alerts", metrics_port=port, hint_port=0, hint_host="127.0.0.1") as process:

        def asked() -> str:
            assert process.poll() is None, process.communicate()[1]
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                    return str(answer.read())
            except OSError:
                return ""

        await wait_until(lambda: "pneumoserve_alerts_waiting" in asked(), 120)


def test_the_console_fetches_a_release_with_its_own_credential(room: Room, tmp_path: Path) -> None:
    """For heat maps; the credential of the set-up pushed it, as it does in a cluster."""
    key = generate_key(tmp_path / "key.pem")
    write_public_key(key, tmp_path / "trust")
    made = package(REFERENCE_RUN, tmp_path / "made", key)
    with closing(S3Store(room.credentials["setup"])) as store:
        list(upload(made, store))
    with closing(S3Store(room.credentials["console"])) as store:
        found = find_or_fetch(store, made.name, tmp_path / "fetched", tmp_path / "trust")
    assert found.folder == tmp_path / "fetched" / made.name
