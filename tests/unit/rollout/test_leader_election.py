"""Why a rollout keeps a lease of its own: what the Kubernetes client's leader election does not do.

A test that fails here after an update says that the client has caught up; docs/explanation/decisions.md has the entry.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client
from kubernetes.leaderelection.electionconfig import Config
from kubernetes.leaderelection.leaderelection import LeaderElection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

from tests.support.apiserver import listening


class Leases:
    """An API server that keeps one Lease."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] | None = None

    def answer(self, method: str, _path: str, _kind: str, body: bytes) -> tuple[int, Any]:
        if method != "GET":
            self.kept = json.loads(body)
        return (404, {"code": 404}) if self.kept is None else (200, self.kept)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Leases, str, contextlib.ExitStack]]:
    leases = Leases()
    with contextlib.ExitStack() as stack:
        kubeconfig = json.loads(stack.enter_context(listening(leases.answer, tmp_path)).read_text())
        yield leases, kubeconfig["clusters"][0]["cluster"]["server"], stack


def election(address: str, work: Callable[[], None], stopped: Callable[[], None]) -> LeaderElection:
    lock = LeaseLock("rollout", "pneumo", "first")
    configuration = client.Configuration(host=address)
    configuration.retries = False
    # A connection that is kept would outlive the server's socket.
    lock.api_instance = client.CoordinationV1Api(client.ApiClient(configuration, "Connection", "close"))
    return LeaderElection(Config(lock, 15, 10, 1, work, stopped))


def test_work_goes_on_unwarned_once_the_api_server_is_out_of_reach(
    server: tuple[Leases, str, contextlib.ExitStack],
) -> None:
    _, address, stack = server
    begun, end, stopped = threading.Event(), threading.Event(), threading.Event()
    raised: list[BaseException] = []

    def work() -> None:
        begun.set()
        end.wait(30)

    def run() -> None:
        try:
            election(address, work, stopped.set).run()
        except Exception as error:  # noqa: BLE001 - whatever it is
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(10)
    stack.close()
    thread.join(10)
    try:
        # The renewal ended with the first refused connection, long before its deadline, and nobody told the work.
        assert [type(error).__module__.partition(".")[0] for error in raised] == ["urllib3"]
        assert not stopped.is_set()
    finally:
        end.set()


def test_a_lease_whose_work_has_ended_is_not_given_back(server: tuple[Leases, str, contextlib.ExitStack]) -> None:
    leases, address, _ = server
    stopped = threading.Event()

    def work() -> None:
        raise RuntimeError("the only way to end it")

    election(address, work, stopped.set).run()
    assert stopped.is_set()
    assert leases.kept is not None
    assert leases.kept["spec"]["holderIdentity"] == "first"
