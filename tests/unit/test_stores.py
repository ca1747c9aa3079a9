"""Which store a command works on, and what it says while that starts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pneumoserve.cli import stores
from pneumoserve.local.state import State
from pneumoserve.store import S3Settings

SETTINGS = S3Settings("http://127.0.0.1:9", "a", "b", "bucket")


@pytest.mark.parametrize("is_running", [True, False])
def test_a_store_that_must_start_is_announced_before_it_does(
    is_running: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    @contextlib.contextmanager
    def s3_alone(_state: State) -> Iterator[S3Settings]:
        said.append(capsys.readouterr().err)
        yield SETTINGS

    monkeypatch.delenv("S3_ENDPOINT", raising=False)
    monkeypatch.setattr(stores, "s3_alone", s3_alone)
    monkeypatch.setattr(State, "running", lambda _self: {} if is_running else None)
    with stores.settings_of(tmp_path) as settings:
        assert settings == SETTINGS
    assert said == ["" if is_running else "starting the local store …\n"]


def test_a_store_that_is_named_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SETTINGS.to_env().items():
        monkeypatch.setenv(name, value)
    with stores.settings_of(tmp_path / "none") as settings:
        assert settings == SETTINGS
    assert not (tmp_path / "none").exists()
