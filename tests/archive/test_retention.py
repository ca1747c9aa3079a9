"""Retention: our lifecycle rules in a real bucket, beside those of others."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from pneumoserve.archive.retention import Expiry, RetentionError, set_expiry
from pneumoserve.archive.store import Lock, ObjectStore, S3Settings
from tests.archive.commands import Ran, invoke

FOREIGN = (
    "<LifecycleConfiguration><Rule><ID>somebody-else</ID><Status>Enabled</Status><Filter><And><Prefix>other/</Prefix>"
    "<ObjectSizeGreaterThan>1000</ObjectSizeGreaterThan></And></Filter><Expiration><Days>7</Days></Expiration></Rule>"
    "</LifecycleConfiguration>"
)


def rules(store: ObjectStore) -> dict[str, tuple[str, int | None, int | None]]:
    """What the client makes of the bucket's rules: id → prefix, days, days of earlier versions."""
    config = store._client.get_bucket_lifecycle(bucket_name=store.settings.bucket)
    return {
        rule.rule_id: (
            rule.rule_filter.prefix,
            rule.expiration.days,
            rule.noncurrent_version_expiration and rule.noncurrent_version_expiration.noncurrent_days,
        )
        for rule in (config.rules if config else [])
    }


def unqualified(document: bytes | None) -> str:
    """XML without namespace and declaration."""
    assert document is not None
    return re.sub(r' xmlns="[^"]*"|<\?.*?\?>', "", document.decode())


def test_rules_are_set_changed_and_removed(store: ObjectStore) -> None:
    assert not set_expiry(store, Expiry())
    assert set_expiry(store, Expiry(raw=30, images=365))
    assert rules(store) == {
        "pneumoserve-raw": ("records/", 30, 1),
        "pneumoserve-raw-markers": ("records/", None, None),
        "pneumoserve-images": ("images/", 365, 1),
        "pneumoserve-images-markers": ("images/", None, None),
    }
    assert not set_expiry(store, Expiry(raw=30, images=365))
    assert set_expiry(store, Expiry(raw=31, rollups=3650))
    assert {name: days for name, (_, days, _) in rules(store).items() if days} == {
        "pneumoserve-raw": 31,
        "pneumoserve-rollups": 3650,
    }
    assert set_expiry(store, Expiry())
    assert rules(store) == {}


def test_rules_of_others_stay_as_they_are(store: ObjectStore) -> None:
    store.set_lifecycle(FOREIGN.encode())
    assert set_expiry(store, Expiry(raw=30))
    assert b"somebody-else" in (store.lifecycle() or b"")
    assert b"pneumoserve-raw" in (store.lifecycle() or b"")
    assert set_expiry(store, Expiry())
    assert unqualified(store.lifecycle()) == FOREIGN


def test_nothing_expires_while_it_is_locked(store: ObjectStore) -> None:
    lock = Lock(datetime.now(UTC) + timedelta(days=10), "GOVERNANCE")
    store.put("records/date=2026-05-01/release=0123456789ab/x-00000000-00000001.jsonl", b"", "text/plain")
    store.put("records/date=2026-05-02/release=0123456789ab/x-00000000-00000001.jsonl", b"", "text/plain", lock)
    with pytest.raises(RetentionError, match="--expire-raw-days 10 or more"):
        set_expiry(store, Expiry(raw=9))
    assert store.lifecycle() is None
    assert set_expiry(store, Expiry(raw=10, images=1))


def test_setup_sets_and_removes_them(settings: S3Settings, store: ObjectStore) -> None:
    def setup(*words: str) -> Ran:
        return invoke(["archive", "setup", *words], settings.to_env())

    done = setup("--expire-raw-days", "30")
    assert done.returncode == 0, done.stderr
    assert "what expires: records/ after 30 days\n" in done.stdout
    assert "as before" in setup("--expire-raw-days", "30").stdout
    lock = Lock(datetime.now(UTC) + timedelta(days=10), "GOVERNANCE")
    store.put("images/sha256/aa/" + "a" * 64, b"film", "image/jpeg", lock)
    refused = setup("--expire-images-days", "3")
    assert refused.returncode == 2
    assert "is locked for 10 days" in refused.stderr
    assert setup("--expire-raw-days", "0").returncode == 2
    assert "what expires: nothing\n" in setup().stdout
    assert rules(store) == {}
