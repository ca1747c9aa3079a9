"""Ports that several processes choose at the same time, and paths that a socket's name can begin with."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pneumoserve.local import process
from pneumoserve.local.process import StackError, free_ports, hold, listen, short_path

CHOOSE = """
import sys
from pneumoserve.local import process
count, *ports = map(int, sys.argv[1:])
process._PORTS = ports or process._PORTS
print(*process.free_ports(count), flush=True)
sys.stdin.read()
"""


def choose(count: int, *ports: int) -> subprocess.Popen[str]:
    """A process that has ports as long as its stdin is open; it prints them."""
    command = [sys.executable, "-c", CHOOSE, *map(str, (count, *ports))]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_port_is_given_to_one_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with choose(4) as first:
        ports = [int(port) for port in first.communicate()[0].split()]
    monkeypatch.setattr(process, "_PORTS", ports)
    with choose(2, *ports) as other:
        assert other.stdout is not None
        theirs = {int(port) for port in other.stdout.readline().split()}
        assert set(free_ports(2)) == set(ports) - theirs
        with pytest.raises(StackError, match="No port of loopback is free"):
            free_ports(1)
        other.communicate()
    # What a process had is free once it has ended.
    assert set(free_ports(2)) == theirs


def can_listen(port: int, *, as_servers_do: bool) -> bool:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, as_servers_do)
        try:
            other.bind(("127.0.0.1", port))
            other.listen()
        except OSError:
            return False
        return True


def test_a_port_that_was_chosen_cannot_be_lost_and_a_child_can_listen_there() -> None:
    for port in (*free_ports(1), hold(listening_nowhere())):
        assert not can_listen(port, as_servers_do=False)
        assert can_listen(port, as_servers_do=True)


def listening_nowhere() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_port_where_somebody_listens_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for take in (hold, listen):
            with pytest.raises(StackError, match=f"Port {port} is in use") as caught:
                take(port)
            assert caught.value.exit_code == 2


def test_a_socket_that_listens_is_one_process_own() -> None:
    with listen(None) as listening:
        port = listening.getsockname()[1]
        assert not can_listen(port, as_servers_do=True)
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass


def test_a_long_path_has_a_short_one_for_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    with short_path(folder, "name") as short, socket.socket(socket.AF_UNIX) as server:
        server.bind(str(short / "name"))
        assert (folder / "name").is_socket()
    assert not short.parent.exists()
    assert (folder / "name").exists()
    with short_path(Path("/var"), "name") as short:
        assert short == Path("/var")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(StackError, match="give a shorter --state or TMPDIR"), short_path(folder, "name"):
        pass
