"""Making a store ready for its first record."""

from __future__ import annotations

import os
import subprocess

import pytest

from pneumoserve.ledger import set_up
from pneumoserve.local.process import free_ports
from pneumoserve.store import S3Settings, S3Store, StoreError
from tests.conftest import PNEUMOSERVE


def test_a_bucket_is_made_once_and_tried_each_time(s3_server: S3Settings) -> None:
    store = S3Store(s3_server.in_bucket("fresh"))
    with pytest.raises(StoreError, match="no bucket fresh"):
        store.check()
    for _ in range(2):
        set_up(store, 0, print)
    store.check()


def test_a_store_has_room_for_many_buckets(s3_server: S3Settings) -> None:
    for number in range(6):
        set_up(S3Store(s3_server.in_bucket(f"one-of-many-{number}")), 0, print)


def test_a_store_that_does_not_answer_is_waited_for_then_reported(s3_server: S3Settings) -> None:
    reported: list[str] = []
    store = S3Store(S3Settings(f"http://127.0.0.1:{free_ports(1)[0]}", "a", "b", "fresh"))
    with pytest.raises(StoreError, match="could not be reached"):
        set_up(store, 3, reported.append)
    assert len(reported) == 1


def test_wrong_keys_are_reported(s3_server: S3Settings) -> None:
    environment = {"S3_ENDPOINT": s3_server.endpoint, "S3_ACCESS_KEY": "nobody", "S3_SECRET_KEY": "nothing"}
    done = subprocess.run(
        [PNEUMOSERVE, "archive", "setup"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 1
    assert "check keys and rights" in done.stderr
    assert "nothing" not in done.stderr
