"""`pneumoserve serve` as a process: one line when ready, nothing left after."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

import httpx
import psutil
import pytest

from pneumoserve.archive.find import find_record
from pneumoserve.archive.store import ObjectStore, S3Settings
from pneumoserve.local.process import free_ports
from pneumoserve.local.state import State
from tests import films
from tests.conftest import PNEUMOSERVE, Stack, start_stack, wait_for

FILM = films.sample_films()[0]


def ports_of(stack: Stack) -> set[int]:
    return {
        connection.laddr.port
        for process in stack.descendants()
        for connection in process.connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def nobody_listens(ports: set[int]) -> bool:
    for port in ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return False
    return True


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PNEUMOSERVE, *map(str, words)], capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stack]:
    running = start_stack(tmp_path / "state")
    yield running
    if running.process.poll() is None:
        running.stop()
    running.close()


def test_sigterm_leaves_no_process_and_no_port(own: Stack) -> None:
    assert set(own.announced) == {"url", "grpc", "release", "s3"}
    assert set(own.announced["s3"]) == {"endpoint", "access_key", "secret_key", "bucket", "ca_file"}
    assert stat.S_IMODE((own.state / "stack.json").stat().st_mode) == 0o600
    assert len(own.worker_pids()) == 2
    processes, ports = own.descendants(), ports_of(own)
    assert own.stop() == 0
    assert not any(process.is_running() for process in processes)
    assert nobody_listens(ports)
    assert not (own.state / "stack.json").exists()


async def inside(stack: Stack) -> float:
    """Calls that the front has taken in, answered or not."""
    async with httpx.AsyncClient() as client:
        lines = (await client.get(f"{stack.url}/metrics")).text.splitlines()
    counted = ("pneumoserve_calls_in_flight ", 'pneumoserve_calls_total{model="pneumonia",protocol="v1",status="200"} ')
    return sum(float(line.split()[-1]) for line in lines if line.startswith(counted))


async def test_sigterm_answers_what_was_asked_before(own: Stack) -> None:
    data = FILM.read_bytes()
    async with httpx.AsyncClient(base_url=own.url, timeout=60, limits=httpx.Limits(max_connections=40)) as client:
        calls = [asyncio.create_task(client.post("/v1/models/pneumonia:predict", content=data)) for _ in range(40)]
        # Every call is inside when the signal comes; on a connection it has not read, a server may hang up.
        while await inside(own) < 40:
            assert all(call.result().status_code == 200 for call in calls if call.done())
        own.process.terminate()
        responses = await asyncio.gather(*calls)
    assert [response.status_code for response in responses] == [200] * 40
    assert own.process.wait(60) == 0


def test_kill_9_leaves_no_process_and_no_port(own: Stack) -> None:
    processes, ports = own.descendants(), ports_of(own)
    os.kill(own.process.pid, signal.SIGKILL)
    own.process.wait()
    wait_for(lambda: not any(process.is_running() for process in processes))
    assert nobody_listens(ports)


def test_everything_listens_on_loopback_only(stack: Stack) -> None:
    addresses = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in stack.descendants()
        for connection in process.connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}


def test_a_second_stack_on_the_same_state_is_refused(stack: Stack) -> None:
    done = run("serve", "--state", stack.state)
    assert done.returncode == 2
    assert "already runs" in done.stderr
    assert httpx.get(f"{stack.url}/v2/health/ready").status_code == 200


def ready(stack: Stack) -> bool:
    try:
        return httpx.get(f"{stack.url}/v2/health/ready", timeout=3).status_code == 200
    except httpx.TransportError:
        return False


def test_what_dies_is_started_again_and_readiness_tells(own: Stack) -> None:
    for word in ("org.pytorch.serve.ModelServer", "pneumoserve.front"):
        own.child(word).kill()
        wait_for(lambda: not ready(own), 20)
        wait_for(lambda: ready(own), 60)
        assert recorded(own) == "store"
    # Meanwhile the journal takes the store's place, so that the stack is ready all the time.
    own.child("weed").kill()
    wait_for(lambda: recorded(own) == "journal", 20)
    assert ready(own)
    wait_for(lambda: recorded(own) == "store", 60)


def recorded(own: Stack) -> str:
    """Where a call that is answered now is recorded."""
    response = httpx.post(f"{own.url}/v1/models/pneumonia:predict", content=FILM.read_bytes(), timeout=30)
    assert response.is_success, response.text
    return response.headers["pneumoserve-recorded"]


def test_what_dies_for_good_ends_the_stack(own: Stack) -> None:
    shutil.rmtree(own.state / "releases")
    processes = own.descendants()
    own.child("pneumoserve.front").kill()
    assert own.process.wait(120) == 1
    assert "the front dies again and again; read logs/front.log" in (own.state.parent / "state.err").read_text()
    assert not any(process.is_running() for process in processes)


def test_while_the_store_is_away_the_journal_answers(own: Stack) -> None:
    own.child("weed").suspend()
    response = httpx.post(f"{own.url}/v1/models/pneumonia:predict", content=FILM.read_bytes(), timeout=60)
    assert response.status_code == 200
    assert response.headers["pneumoserve-recorded"] == "journal"
    assert ready(own)
    own.child("weed").resume()
    store = ObjectStore(own.s3)
    (answer,) = response.json()["predictions"]
    wait_for(lambda: find_record(store, answer["prediction_id"]) is not None)
    record = find_record(store, answer["prediction_id"])
    assert record is not None
    assert record.image is not None
    assert store.get(record.image.stored_key)


def test_without_store_and_journal_nothing_is_answered(own: Stack) -> None:
    http_port, grpc_port, nobody = free_ports(3)
    state = State(own.state)
    models = {name: json.loads((own.state / "stack.json").read_text())["torchserve"][name]
              for name in ("inference", "management")}  # fmt: skip
    command = [
        *(sys.executable, "-m", "pneumoserve.front", "--host=127.0.0.1"),
        *(f"--release={state.releases / own.release}", f"--trust={state.trust}"),
        *(f"--http-port={http_port}", f"--grpc-port={grpc_port}"),
        *(f"--models-url={models['inference']}", f"--management-url={models['management']}"),
        *(f"--archive-key={state.archive_key_file}", f"--reference-key={state.reference_key}"),
    ]
    away = S3Settings(f"http://127.0.0.1:{nobody}", "a", "b", "films")
    with (own.state / "logs" / "second.log").open("w") as log:
        process = subprocess.Popen(command, env={**os.environ, **away.to_env()}, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{http_port}"
    try:
        wait_for(lambda: answers(f"{url}/v2/health/live"))
        response = httpx.post(f"{url}/v1/models/pneumonia:predict", content=FILM.read_bytes(), timeout=60)
        assert response.status_code == 503
        assert response.headers["retry-after"]
        assert set(response.json()) == {"error", "prediction_id"}
        assert httpx.get(f"{url}/v2/health/ready").status_code == 503
        assert httpx.get(f"{url}/v2/models/pneumonia/ready").status_code == 503
    finally:
        process.terminate()
        assert process.wait(60) == 0


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.HTTPError:
        return False


def test_predict_and_archive_show(stack: Stack) -> None:
    done = run("predict", FILM, films.LEG_DICOM, "--state", stack.state, "--json")
    assert done.returncode == 0, done.stderr
    film, leg = json.loads(done.stdout)
    assert film["file"] == FILM.name
    assert leg["reasons"] == ["not_a_chest_film"]
    shown = run("archive", "show", film["prediction_id"], "--state", stack.state, "--json")
    record = json.loads(shown.stdout)
    assert record["prediction_id"] == film["prediction_id"]
    assert record["decision"]["finding"] == film["finding"]


def test_lineage_of_an_answer(stack: Stack, tmp_path: Path) -> None:
    done = run("predict", FILM, films.LEG_DICOM, "--state", stack.state, "--json")
    for answer, referred in zip(json.loads(done.stdout), (False, True), strict=True):
        picture = tmp_path / f"{answer['prediction_id']}.svg"
        told = run("lineage", answer["prediction_id"], "--state", stack.state, "--json", "--svg", picture)
        assert told.returncode == 0, told.stdout + told.stderr
        lineage = json.loads(told.stdout)
        assert lineage["image"]["stored"] == "whole"
        assert lineage["decision"]["agrees"]
        assert lineage["decision"]["recorded"]["referred"] is referred
        assert lineage["release"]["id"] == stack.release
        assert lineage["release"]["intact"]
        assert lineage["release"]["signer"]
        assert lineage["films"]["count"] == 5141
        assert lineage["films"]["asked"] is None
        groups = ElementTree.parse(picture).getroot().iter("{http://www.w3.org/2000/svg}g")
        assert len([group.get("id") for group in groups]) == 10
        assert answer["prediction_id"] in picture.read_text(encoding="utf-8")


def test_predict_tells_what_failed(stack: Stack, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpeg"
    bad.write_bytes(b"\xff\xd8\xff")
    done = run("predict", FILM, bad, tmp_path / "none.jpeg", "--state", stack.state, "--json")
    assert done.returncode == 1
    good, damaged, missing = json.loads(done.stdout)
    assert "error" not in good
    assert damaged["prediction_id"]
    assert "No such file" in missing["error"]


def test_commands_used_wrongly(tmp_path: Path, stack: Stack) -> None:
    for words, code, told in [
        (("predict", FILM, "--state", tmp_path / "none"), 2, "pneumoserve serve"),
        (("predict", FILM, "--url", "http://127.0.0.1:9"), 1, "No service answers"),
        (("archive", "show", "17", "--state", stack.state), 2, "is a UUIDv7"),
        (("archive", "show", "01890a5d-ac96-774b-bcce-b302099a8057", "--state", stack.state), 1, "no such record"),
        (("serve", "--release", "nothing", "--state", tmp_path / "state"), 2, "There is no release nothing"),
        (("release", "verify", "nothing", "--state", tmp_path / "state"), 2, "There is no release nothing"),
        (("package", tmp_path, "--out", tmp_path / "out", "--state", tmp_path / "state"), 1, "holds no run.json"),
        (("train", "--dataset", tmp_path / "none", "--out", tmp_path / "run"), 2, "There is no folder none"),
    ]:
        done = run(*words)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        assert told in done.stdout + done.stderr


def test_archive_show_starts_the_store_alone(tmp_path: Path) -> None:
    running = start_stack(tmp_path / "state")
    (answer,) = json.loads(run("predict", FILM, "--state", running.state, "--json").stdout)
    assert running.stop() == 0
    shown = run("archive", "show", answer["prediction_id"], "--state", running.state, "--json")
    assert json.loads(shown.stdout)["prediction_id"] == answer["prediction_id"]
    assert nobody_listens({urlsplit(running.s3.endpoint).port or 0})


def test_release_commands(stack: Stack, tmp_path: Path) -> None:
    listed = json.loads(run("release", "list", "--state", stack.state, "--json").stdout)
    assert {"id": stack.release, "state": "verified"} in listed
    assert run("release", "verify", stack.release, "--state", stack.state).returncode == 0
    shown = json.loads(run("release", "show", stack.release, "--state", stack.state, "--json").stdout)
    assert shown["schema"] == "pneumoserve.release/2"
    key, trust = tmp_path / "approver.pem", tmp_path / "trust"
    assert run("release", "key", key, "--trust", trust).returncode == 0
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    copy = Path(shutil.copytree(stack.state / "releases" / stack.release, tmp_path / stack.release))
    assert run("release", "verify", copy, "--trust", trust).returncode == 1
    assert run("release", "sign", copy, "--key", key).returncode == 0
    assert run("release", "verify", copy, "--trust", trust).returncode == 0
    assert run("release", "push", stack.release, "--state", stack.state).returncode == 0


def test_sigterm_while_it_starts_ends_it_at_once(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [PNEUMOSERVE, "serve", "--state", tmp_path / "state"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    wait_for(
        lambda: any("weed" in part for child in psutil.Process(process.pid).children() for part in child.cmdline())
    )
    process.terminate()
    out, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert out == b""
    assert not (tmp_path / "state" / "stack.json").exists()
