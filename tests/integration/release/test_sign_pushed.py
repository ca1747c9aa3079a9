"""Signing a release in the store, as the signing Job does, which has nothing but its id."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pneumoserve.cli import app
from pneumoserve.errors import PneumoserveError
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.release import ReleaseError
from pneumoserve.release.fetch import fetch
from pneumoserve.release.package import package
from pneumoserve.release.push import upload
from pneumoserve.signing import generate_key, write_public_key
from pneumoserve.store import S3Settings, S3Store


def sign(release: str, key: Path) -> None:
    result = CliRunner().invoke(app, ["release", "sign", release, "--pushed", "--key", str(key)])
    if result.exception is not None:
        raise result.exception


def test_a_pushed_release_runs_once_it_is_signed(
    s3_server: S3Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = s3_server.in_bucket("sign-pushed")
    for name, value in settings.to_env().items():
        monkeypatch.setenv(name, value)
    store = S3Store(settings)
    store.ensure_bucket()
    write_public_key(generate_key(key := tmp_path / "approver.pem"), trust := tmp_path / "trust")
    release = package(REFERENCE_RUN, tmp_path / "packaged", None).name
    list(upload(tmp_path / "packaged" / release, store))
    with pytest.raises(ReleaseError, match="is not signed"):
        fetch(store, release, tmp_path / "fetched", trust)
    card = f"releases/{release}/MODEL_CARD.md"
    text = store.get(card)
    store.put(card, b"altered", "text/plain")
    with pytest.raises(PneumoserveError, match="was altered"):
        sign(release, key)
    store.put(card, text, "text/plain")
    with pytest.raises(PneumoserveError, match="There is no release 0123456789ab"):
        sign("0123456789ab", key)
    sign(release, key)
    assert fetch(store, release, tmp_path / "fetched", trust).id == release
