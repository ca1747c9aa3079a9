"""The store over TLS: its certificate counts where its authority was given, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pneumoserve.local.process import free_ports
from pneumoserve.local.s3 import s3_child, start_s3
from pneumoserve.store import S3Settings, S3Store, StoreError
from tests.support.cluster.certificates import Authority, new_authority
from tests.support.seaweed import over_tls


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = new_authority(tmp_path_factory.mktemp("authority"))
    made.issue("store", "store", hosts=("127.0.0.1",))
    return made


@pytest.fixture(scope="module")
def settings(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Settings]:
    """A real S3 server with a certificate of that authority."""
    folder = tmp_path_factory.mktemp("tls")
    settings = S3Settings(
        f"https://127.0.0.1:{free_ports(1)[0]}", "access", "secret", "films", ca_file=str(authority.file)
    )
    child = over_tls(s3_child(folder / "data", settings, folder / "s3.log"), authority, "store")
    start_s3(child, settings)
    yield settings
    child.stop()


def refused(settings: S3Settings) -> str:
    store = S3Store(settings)
    with pytest.raises(StoreError) as error:
        store.check()
    return str(error.value)


def test_with_its_authority_the_store_answers(settings: S3Settings) -> None:
    store = S3Store(S3Settings.from_env(settings.to_env()))
    store.put("a", b"b", "text/plain")
    assert store.get("a") == b"b"


def test_without_its_authority_or_with_another_it_is_not_trusted(settings: S3Settings, tmp_path: Path) -> None:
    stranger = new_authority(tmp_path / "stranger")
    for ca_file in ("", str(stranger.file)):
        given = S3Settings.from_env({**settings.to_env(), "S3_CA_FILE": ca_file})
        assert "certificate is not trusted; give its authority's as S3_CA_FILE" in refused(given)


def test_a_name_that_the_certificate_does_not_hold_is_not_trusted(settings: S3Settings) -> None:
    other = settings.to_env() | {"S3_ENDPOINT": settings.endpoint.replace("127.0.0.1", "localhost")}
    assert "certificate is not trusted" in refused(S3Settings.from_env(other))


def test_a_file_without_certificates_is_reported(settings: S3Settings, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for name in ("empty.pem", "none.pem"):
        with pytest.raises(StoreError, match="S3_CA_FILE names no file with certificates"):
            S3Store(S3Settings.from_env({**settings.to_env(), "S3_CA_FILE": str(tmp_path / name)}))
