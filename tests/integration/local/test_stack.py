"""`pneumoserve serve` as a process: one line when ready, nothing left after."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import httpx
import psutil
import pytest

from pneumoserve.local.process import free_ports
from pneumoserve.local.stack import s3_alone
from pneumoserve.local.state import State
from pneumoserve.records import append, find_record
from pneumoserve.store import S3Settings, S3Store
from tests.conftest import PNEUMOSERVE, Stack, start_stack, wait_for
from tests.support import films
from tests.support.commands import invoke, trusting
from tests.support.entries import KEY, refusal

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


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One that tests take parts from, and that each leaves whole. Its path is too long for the name of a socket."""
    long = tmp_path_factory.mktemp("disturbed") / ("long" * 20)
    long.mkdir()
    running = start_stack(long / "state", "--show-secrets")
    yield running
    assert running.stop() == 0


def test_sigterm_leaves_no_process_and_no_port(own: Stack) -> None:
    assert set(own.announced) == {"url", "grpc", "console", "release", "s3", "stack"}
    assert set(own.announced["s3"]) == {"endpoint", "access_key", "bucket", "ca_file"}
    assert json.loads(Path(own.announced["stack"]).read_text())["s3"]["secret_key"] == own.s3.secret_key
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
        lines = (await client.get(stack.metrics_url)).text.splitlines()
    counted = ("pneumoserve_calls_in_flight ", 'pneumoserve_calls_total{model="pneumonia",outcome="answered",')
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
    said = (own.state.parent / "state.err").read_text()
    assert re.search(r"^stopping; waiting for [1-9]\d* calls?\nstopped$", said, re.MULTILINE), said


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


def test_a_port_in_use_is_told_at_once(stack: Stack, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        for option, port in (
            ("--port", stack.url.rpartition(":")[2]),
            ("--grpc-port", stack.grpc.rpartition(":")[2]),
            ("--port", str(server.getsockname()[1])),
        ):
            done = run("serve", option, port, "--state", tmp_path / "other")
            assert (done.returncode, done.stdout) == (2, "")
            assert f"Port {port} is in use" in done.stderr
            assert not list((tmp_path / "other" / "logs").iterdir())
    done = run("serve", "--port", "9000", "--grpc-port", "9000", "--state", tmp_path / "other")
    assert (done.returncode, done.stdout) == (2, "")
    assert "need two ports" in done.stderr


def test_the_secret_is_shown_to_who_asks(disturbed: Stack, stack: Stack) -> None:
    assert disturbed.announced["s3"]["secret_key"] == disturbed.s3.secret_key
    assert stack.s3.secret_key not in json.dumps(stack.announced)


def ready(stack: Stack) -> bool:
    try:
        return httpx.get(f"{stack.url}/v2/health/ready", timeout=3).status_code == 200
    except httpx.TransportError:
        return False


def test_what_dies_is_started_again_and_readiness_tells(disturbed: Stack) -> None:
    for word in ("org.pytorch.serve.ModelServer", "pneumoserve.front"):
        disturbed.child(word).kill()
        wait_for(lambda: not ready(disturbed), 20)
        wait_for(lambda: ready(disturbed), 60)
        assert recorded(disturbed) == "store"
    # Meanwhile the journal takes the store's place, so that the stack is ready all the time.
    disturbed.child("weed").kill()
    wait_for(lambda: recorded(disturbed) == "journal", 20)
    assert ready(disturbed)
    wait_for(lambda: recorded(disturbed) == "store", 60)


def test_a_call_waits_while_the_front_starts_again(disturbed: Stack) -> None:
    front = disturbed.child("pneumoserve.front")
    front.kill()
    wait_for(lambda: not front.is_running() or front.status() == psutil.STATUS_ZOMBIE)
    assert recorded(disturbed) == "store"


def recorded(stack: Stack) -> str:
    """Where a call that is answered now is recorded."""
    response = httpx.post(f"{stack.url}/v1/models/pneumonia:predict", content=FILM.read_bytes(), timeout=60)
    assert response.is_success, response.text
    return response.headers["pneumoserve-recorded"]


def test_what_dies_for_good_ends_the_stack(own: Stack) -> None:
    shutil.rmtree(own.state / "releases")
    processes = own.descendants()
    own.child("pneumoserve.front").kill()
    assert own.process.wait(120) == 1
    assert "the front dies again and again; read logs/front.log" in (own.state.parent / "state.err").read_text()
    assert not any(process.is_running() for process in processes)


def test_while_the_store_is_away_the_journal_answers(disturbed: Stack) -> None:
    disturbed.child("weed").suspend()
    response = httpx.post(f"{disturbed.url}/v1/models/pneumonia:predict", content=FILM.read_bytes(), timeout=60)
    assert response.status_code == 200
    assert response.headers["pneumoserve-recorded"] == "journal"
    assert ready(disturbed)
    disturbed.child("weed").resume()
    reader = disturbed.reader
    (answer,) = response.json()["predictions"]
    wait_for(lambda: find_record(reader, answer["prediction_id"]) is not None)
    record = find_record(reader, answer["prediction_id"])
    assert record is not None
    assert record.image is not None
    assert reader.store.get(record.image.stored_key)


def test_without_store_and_journal_nothing_is_answered(disturbed: Stack) -> None:
    http_port, grpc_port, metrics_port, nobody = free_ports(4)
    state = State(disturbed.state)
    models = {name: json.loads((disturbed.state / "stack.json").read_text())["torchserve"][name]
              for name in ("inference", "management")}  # fmt: skip
    command = [
        *(sys.executable, "-m", "pneumoserve.front", "--host=127.0.0.1"),
        *(f"--release={state.releases / disturbed.release}", f"--trust={state.trust}"),
        *(f"--http-port={http_port}", f"--grpc-port={grpc_port}", f"--metrics-port={metrics_port}"),
        *(f"--models-url={models['inference']}", f"--management-url={models['management']}"),
        *(f"--archive-key={state.archive_key_file}", f"--reference-key={state.reference_key}"),
    ]
    away = S3Settings(f"http://127.0.0.1:{nobody}", "a", "b", "films")
    with (disturbed.state / "logs" / "second.log").open("w") as log:
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
    listed = run("archive", "list", "--limit", "2", "--state", stack.state, "--json")
    ids = [json.loads(line)["prediction_id"] for line in listed.stdout.splitlines()]
    assert ids == [leg["prediction_id"], film["prediction_id"]], listed.stderr


def test_lineage_of_an_answer(stack: Stack, tmp_path: Path) -> None:
    done = run("predict", FILM, films.LEG_DICOM, "--state", stack.state, "--json")
    for answer, reason in zip(json.loads(done.stdout), ("uncertain_type", "not_a_chest_film"), strict=True):
        picture = tmp_path / f"{answer['prediction_id']}.svg"
        sentence = run("lineage", answer["prediction_id"], "--state", stack.state, "--json", "--svg", picture)
        assert sentence.returncode == 0, sentence.stdout + sentence.stderr
        lineage = json.loads(sentence.stdout)
        assert lineage["image"]["stored"] == "whole"
        assert lineage["decision"]["agrees"]
        assert lineage["decision"]["recorded"]["reasons"] == [reason]
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
    for words, code, sentence in [
        (("predict", FILM, "--state", tmp_path / "none"), 2, "pneumoserve serve"),
        (("predict", FILM, "--url", "http://127.0.0.1:9"), 1, "No service answers"),
        (("archive", "verify", "--trust", tmp_path / "w", "--state", stack.state), 2, "archive writers' public keys"),
        (("archive", "show", "17", "--state", stack.state), 2, "is a UUIDv7"),
        (("archive", "show", "01890a5d-ac96-774b-bcce-b302099a8057", "--state", stack.state), 1, "no such record"),
        (("serve", "--release", "nothing", "--state", tmp_path / "state"), 2, "There is no release nothing"),
        (("release", "verify", "nothing", "--state", tmp_path / "state"), 2, "There is no release nothing"),
        (("package", tmp_path, "--out", tmp_path / "out", "--state", tmp_path / "state"), 1, "holds no run.json"),
        (("train", "--dataset", tmp_path / "none", "--out", tmp_path / "run"), 2, "There is no folder none"),
    ]:
        done = invoke([str(word) for word in words], {})
        assert done.returncode == code, (words, done.stdout, done.stderr)
        assert sentence in done.stdout + done.stderr


def test_archive_show_starts_the_store_alone(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    written = refusal()
    with s3_alone(state) as settings:
        store = S3Store(settings)
        append(store, KEY, [written], "test")
        store.close()
    words = ("archive", "show", written.prediction_id, "--state", state.folder, "--json")
    shown = run(*words, *trusting(tmp_path, KEY))
    assert json.loads(shown.stdout)["prediction_id"] == written.prediction_id, shown.stderr
    assert not [each for each in psutil.process_iter() if str(state.folder) in " ".join(words_of(each))]


def words_of(process: psutil.Process) -> list[str]:
    """A process's command line; nothing of one that has just ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return list(process.cmdline())
    return []


def test_release_commands(stack: Stack, tmp_path: Path) -> None:
    listed = json.loads(run("release", "list", "--state", stack.state, "--json").stdout)
    assert {"id": stack.release, "state": "verified"} in listed
    assert run("release", "verify", stack.release, "--state", stack.state).returncode == 0
    shown = json.loads(run("release", "show", stack.release, "--state", stack.state, "--json").stdout)
    assert shown["schema"] == "pneumoserve.release/3"
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
