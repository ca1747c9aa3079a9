"""One process at a time: who takes the lease, who waits for it, who has lost it."""

from __future__ import annotations

import threading

import pytest

from pneumoserve.rollout.cluster import UnreachableError
from pneumoserve.rollout.lease import Lease
from tests.support.fake_rollout import FakeClock, FakeCluster


class JumpingEvent(threading.Event):
    """Its waits take no time: the lease's clock goes on by them, and `meanwhile` happens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.now = 1000.0
        self.meanwhile = lambda: None
        monkeypatch.setattr("pneumoserve.rollout.lease.time.monotonic", lambda: self.now)

    def wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0.0
        self.meanwhile()
        return self.is_set()


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster(FakeClock())


@pytest.fixture
def event(monkeypatch: pytest.MonkeyPatch) -> JumpingEvent:
    return JumpingEvent(monkeypatch)


def test_a_free_lease_is_taken_at_once_and_given_back(cluster: FakeCluster, event: JumpingEvent) -> None:
    lease = Lease(cluster, "first", event)
    assert lease.take()
    event.set()
    with lease.keep():
        assert cluster.holder == "first"
        assert lease.is_held()
    assert cluster.holder == ""
    assert Lease(cluster, "second", event).take()


def test_one_whose_holder_was_killed_is_taken_after_15_seconds(cluster: FakeCluster, event: JumpingEvent) -> None:
    cluster.take_lease("killed", 15, None)
    began = event.now
    assert Lease(cluster, "next", event).take()
    assert 15 <= event.now - began <= 17
    assert cluster.holder == "next"


def test_one_whose_holder_lives_is_not_taken(cluster: FakeCluster, event: JumpingEvent) -> None:
    cluster.take_lease("living", 15, None)
    looks = iter(range(100))

    def renew() -> None:
        if next(looks) % 4 == 3:
            cluster.take_lease("living", 15, str(cluster.renewals))

    event.meanwhile = renew
    assert not Lease(cluster, "next", event).take()
    assert cluster.holder == "living"


def test_a_process_that_slept_finds_that_another_one_has_it(cluster: FakeCluster, event: JumpingEvent) -> None:
    lease = Lease(cluster, "sleeper", event)
    assert lease.take()
    event.now += 30
    cluster.take_lease("other", 15, str(cluster.renewals))
    assert not lease.is_held()
    assert cluster.holder == "other"


def test_whether_it_is_held_is_unknown_while_the_cluster_is_away(cluster: FakeCluster, event: JumpingEvent) -> None:
    lease = Lease(cluster, "first", event)
    assert lease.take()
    event.now += 13
    cluster.away_for = 1
    with pytest.raises(UnreachableError):
        lease.is_held()
    assert lease.is_held()
