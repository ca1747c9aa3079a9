"""What is sent to bring a front down leaves others answered, and the front in its memory: one of its own in 2 GiB."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from pneumoserve.front.admission import MAX_BODY_BYTES
from tests.conftest import wait_for
from tests.integration.front.conftest import SecondFront, StartFront
from tests.support import films
from tests.support.attacks import LARGE_DOCUMENTS, LARGE_MESSAGES, attacker, write_large_document

FILM = films.sample_films()[0].read_bytes()
LIMIT = 2 * 1024**3
_GROUPS = Path("/sys/fs/cgroup/memory")


@dataclass(frozen=True)
class Front:
    """A front in a memory group of 2 GiB."""

    second: SecondFront
    group: Path

    @property
    def most_memory(self) -> int:
        """The most that the group has used, in bytes, its cached files included."""
        return int((self.group / "memory.max_usage_in_bytes").read_text())

    @property
    def resident(self) -> int:
        """Bytes of it that are in memory."""
        return int(Path(f"/proc/{self.second.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def memory_group() -> Iterator[Path]:
    """A memory group of 2 GiB (cgroup v1), where this user may make one."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = next((line.split(":", 2)[2] for line in lines if "memory" in line.split(":", 2)[1].split(",")), None)
    if own is None:
        pytest.skip("no cgroup v1 memory group can be made here")
    group = _GROUPS / own.lstrip("/") / f"pneumoserve-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(LIMIT))
    except OSError:
        pytest.skip("no cgroup v1 memory group can be made here")
    yield group
    wait_for(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


@pytest.fixture(scope="module")
def front(start_front: StartFront) -> Iterator[Front]:
    with memory_group() as group:
        enter = ["sh", "-c", 'echo $$ > "$0"/cgroup.procs && exec "$@"', str(group)]
        with start_front(within=enter) as second:
            yield Front(second, group)


@dataclass
class Seen:
    """What another caller saw meanwhile: statuses of its calls, and the longest waits in seconds."""

    statuses: list[int]
    call: float = 0.0
    live: float = 0.0


def others(front: Front, attack: subprocess.Popen[bytes] | None = None, calls: int = 5) -> Seen:
    """Call with an ordinary film for as long as an attack lasts, or so often."""
    seen = Seen([])
    while attack.poll() is None if attack is not None else len(seen.statuses) < calls:
        began = time.monotonic()
        seen.statuses.append(
            httpx.post(f"{front.second.url}/v1/models/pneumonia:predict", content=FILM, timeout=60).status_code
        )
        seen.call = max(seen.call, time.monotonic() - began)
        began = time.monotonic()
        assert httpx.get(f"{front.second.url}/v2/health/live", timeout=60).is_success
        seen.live = max(seen.live, time.monotonic() - began)
        time.sleep(0.05)  # a caller, not a load: the attack needs processor time too
    return seen


def check(front: Front, seen: Seen) -> None:
    """Others were answered, at once, and the front is within its memory."""
    assert set(seen.statuses) == {200}
    assert seen.call < 5  # 2 s on a machine that is not busy with tests
    assert seen.live < 2
    assert front.second.process.poll() is None
    assert front.most_memory < 0.95 * LIMIT


@pytest.mark.parametrize(("count", "announced"), [(12, MAX_BODY_BYTES), (256, 1)])
def test_idle_connections_with_announced_bodies(front: Front, count: int, announced: int) -> None:
    head = f"POST /v1/models/pneumonia:predict HTTP/1.1\r\nHost: a\r\nContent-Length: {announced}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection(("127.0.0.1", front.second.port))).sendall(head)
        check(front, others(front))
        assert front.second.is_ready()


@pytest.mark.parametrize(("encoding", "size"), [("gzip", 60), ("identity", 44)])
def test_many_large_grpc_messages(front: Front, encoding: str, size: int) -> None:
    attack = attacker(LARGE_MESSAGES, front.second.grpc, encoding, str(size))
    check(front, others(front, attack))
    assert attack.wait() == 0


def test_many_large_documents_and_memory_comes_back(front: Front, tmp_path: Path) -> None:
    before = front.resident
    attack = attacker(LARGE_DOCUMENTS, front.second.url, str(write_large_document(tmp_path)))
    check(front, others(front, attack))
    assert attack.wait() == 0
    wait_for(lambda: front.resident < before + 150 * 1024**2)


def test_a_header_without_end(front: Front) -> None:
    before = front.resident
    with socket.create_connection(("127.0.0.1", front.second.port), timeout=30) as connection:
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\nA: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                connection.sendall(b"a" * 1024 * 1024)
    check(front, others(front))
    assert front.resident < before + 32 * 1024**2


def test_metrics_have_a_port_of_their_own(front: Front) -> None:
    assert httpx.get(f"{front.second.url}/metrics").status_code == 404
    assert "pneumoserve_calls_in_flight" in httpx.get(front.second.metrics).text
