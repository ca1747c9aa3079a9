"""The S3 store, by the contract, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pneumoserve.canonical import digest_of
from pneumoserve.store import NotFoundError, S3Settings, S3Store, StoreError
from tests.support.archives import S3Administrator, client_of
from tests.support.store_contract import StoreContract


class TestS3Store(StoreContract):
    @pytest.fixture
    def store(self, s3_server: S3Settings, request: pytest.FixtureRequest) -> Iterator[S3Store]:
        own = s3_server.in_bucket(f"contract-{digest_of(request.node.nodeid.encode())[:12]}")
        # A new bucket's first object waits for room that the server makes, on a busy machine for more than 2 s.
        S3Store(own, patient=True).ensure_bucket()
        S3Store(own, patient=True).put("warm", b"", "text/plain")
        opened = S3Store(own)
        S3Administrator(opened).remove("warm")
        yield opened
        opened.close()

    @pytest.fixture
    def patient(self, store: S3Store) -> Iterator[S3Store]:
        # SeaweedFS lets conditional writes of one key wait for each other, each for a second: the last for over 2 s.
        opened = S3Store(store.settings, patient=True)
        yield opened
        opened.close()

    @pytest.fixture
    def plain(self, s3_server: S3Settings) -> Iterator[S3Store]:
        opened = S3Store(s3_server.in_bucket("made-without-locks"))
        client_of(s3_server).make_bucket("made-without-locks")
        yield opened
        opened.close()

    def test_versions_of_one_key_come_together_over_pages(self, store: S3Store) -> None:
        """A listing's page has a thousand, and its delete markers come last."""
        keys = [f"a/{number:03d}" for number in range(260)]

        def write(key: str) -> None:
            S3Administrator(store).hide(key)
            for _ in range(3):
                store.put(key, b"film", "text/plain")

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(write, keys))
        found = [(each.key, each.etag is None) for each in store.versions("a/")]
        assert found == [(key, marker) for key in keys for marker in (False, False, False, True)]

    def test_large_objects_are_whole(self, store: S3Store) -> None:
        body = bytes(range(256)) * (40 << 12)
        store.put("large", body, "application/octet-stream")
        assert store.digest("large") == digest_of(body)


def test_errors_name_no_secret(s3_server: S3Settings) -> None:
    with pytest.raises(NotFoundError):
        S3Store(s3_server).get("nothing")
    wrong = S3Settings(s3_server.endpoint, "test-access", "not-the-secret", "tests")
    for call in (lambda store: store.get("nothing"), lambda store: store.put("a", b"1", "text/plain")):
        with pytest.raises(StoreError, match="check keys") as caught:
            call(S3Store(wrong))
        assert "not-the-secret" not in str(caught.value) + repr(wrong)


def test_settings_say_what_is_missing() -> None:
    with pytest.raises(StoreError, match="S3_ENDPOINT, S3_SECRET_KEY"):
        S3Settings.from_env({"S3_ACCESS_KEY": "a"})
