"""Retention: our lifecycle rules in a real bucket, beside those of others."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from pneumoserve.ledger import Expiry, RetentionError, list_expiries, set_expiry
from pneumoserve.store import Lock, S3Settings, S3Store, StoreError
from tests.support.archives import client_of
from tests.support.commands import Ran, invoke

FOREIGN = (
    "<LifecycleConfiguration><Rule><ID>somebody-else</ID><Status>Enabled</Status><Filter><And><Prefix>other/</Prefix>"
    "<ObjectSizeGreaterThan>1000</ObjectSizeGreaterThan></And></Filter><Expiration><Days>7</Days></Expiration></Rule>"
    "</LifecycleConfiguration>"
)


RAW, IMAGES, ROLLUPS = (("raw", "records/"), ("images", "images/"), ("rollups", "rollups/"))


def rules(store: S3Store) -> dict[str, tuple[str, int | None, int | None]]:
    """What the client makes of the bucket's rules: id → prefix, days, days of earlier versions."""
    config = client_of(store.settings).get_bucket_lifecycle(bucket_name=store.bucket)
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


def test_rules_are_set_changed_and_removed(store: S3Store) -> None:
    assert not set_expiry(store, [Expiry(*RAW, None)])
    assert set_expiry(store, [Expiry(*RAW, 30), Expiry(*IMAGES, 365)])
    assert rules(store) == {
        "pneumoserve-raw": ("records/", 30, 1),
        "pneumoserve-raw-markers": ("records/", None, None),
        "pneumoserve-images": ("images/", 365, 1),
        "pneumoserve-images-markers": ("images/", None, None),
    }
    assert not set_expiry(store, [Expiry(*RAW, 30), Expiry(*IMAGES, 365)])
    assert set_expiry(store, [Expiry(*RAW, 31), Expiry(*IMAGES, None), Expiry(*ROLLUPS, 3650)])
    assert {name: days for name, (_, days, _) in rules(store).items() if days} == {
        "pneumoserve-raw": 31,
        "pneumoserve-rollups": 3650,
    }
    assert list_expiries(store) == [Expiry(*RAW, 31), Expiry(*ROLLUPS, 3650)]
    assert set_expiry(store, [Expiry(*RAW, None), Expiry(*ROLLUPS, None)])
    assert rules(store) == {}


def test_a_change_names_what_it_changes(store: S3Store) -> None:
    set_expiry(store, [Expiry(*RAW, 30), Expiry(*IMAGES, 365)])
    assert not set_expiry(store, [])
    assert set_expiry(store, [Expiry(*IMAGES, 366)])
    assert list_expiries(store) == [Expiry(*RAW, 30), Expiry(*IMAGES, 366)]
    assert set_expiry(store, [Expiry(*RAW, None)])
    assert list_expiries(store) == [Expiry(*IMAGES, 366)]


def test_rules_of_others_stay_as_they_are(store: S3Store) -> None:
    store.set_lifecycle(FOREIGN.encode())
    assert set_expiry(store, [Expiry(*RAW, 30)])
    assert b"somebody-else" in (store.lifecycle() or b"")
    assert b"pneumoserve-raw" in (store.lifecycle() or b"")
    assert Expiry("somebody-else", "other/", 7) in list_expiries(store)
    assert set_expiry(store, [Expiry(*RAW, None)])
    assert unqualified(store.lifecycle()) == FOREIGN


def test_nothing_expires_while_it_is_locked(store: S3Store) -> None:
    lock = Lock(datetime.now(UTC) + timedelta(days=10), "GOVERNANCE")
    store.put("records/date=2026-05-01/release=0123456789ab/x-00000000-00000001.jsonl", b"", "text/plain")
    store.put("records/date=2026-05-02/release=0123456789ab/x-00000000-00000001.jsonl", b"", "text/plain", lock)
    with pytest.raises(RetentionError, match="--expire-raw-days 10 or more"):
        set_expiry(store, [Expiry(*RAW, 9)])
    assert store.lifecycle() is None
    assert set_expiry(store, [Expiry(*RAW, 10), Expiry(*IMAGES, 1)])


def test_setup_changes_what_its_options_name_and_shows_the_rest(settings: S3Settings, store: S3Store) -> None:
    def setup(*words: str) -> Ran:
        return invoke(["archive", "setup", *words], settings.to_env())

    assert "what expires: nothing\n" in setup().stdout
    store.set_lifecycle(FOREIGN.encode())
    done = setup("--expire-raw-days", "30")
    assert done.returncode == 0, done.stderr
    assert "earlier versions of objects: kept; locks: possible\n" in done.stdout
    assert "what expires: other/ after 7 days (rule somebody-else), records/ after 30 days\n" in done.stdout
    assert "(as before)" in setup("--expire-raw-days", "30").stdout
    lock = Lock(datetime.now(UTC) + timedelta(days=10), "GOVERNANCE")
    store.put("images/sha256/aa/" + "a" * 64, b"film", "image/jpeg", lock)
    refused = setup("--expire-images-days", "3")
    assert refused.returncode == 2
    assert "is locked for 10 days" in refused.stderr
    for wrong in ("0", "-1", "ever"):
        done = setup("--expire-raw-days", wrong)
        assert done.returncode == 2
        assert "or none to keep" in " ".join(done.stderr.replace("│", "").split())
    before = store.lifecycle()
    assert "records/ after 30 days\n" in setup().stdout
    assert store.lifecycle() == before
    assert "what expires: other/ after 7 days (rule somebody-else)\n" in setup("--expire-raw-days", "none").stdout
    assert "pneumoserve-raw" not in rules(store)


def test_keys_that_may_not_read_rules_change_none(monkeypatch: pytest.MonkeyPatch, settings: S3Settings) -> None:
    """The set-up Job of a chart whose values let nothing expire may have the fronts' credential."""

    def refuse(_store: S3Store) -> bytes:
        raise StoreError("The store refused to read the lifecycle rules of it (AccessDenied); check keys and rights.")

    monkeypatch.setattr(S3Store, "lifecycle", refuse)
    done = invoke(["archive", "setup", "--expire-raw-days", "none"], settings.to_env())
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        0, "its lifecycle rules cannot be read with these keys, and stay as they are",
    )  # fmt: skip
    done = invoke(["archive", "setup", "--expire-raw-days", "30"], settings.to_env())
    assert (done.returncode, "AccessDenied" in done.stderr) == (1, True)
