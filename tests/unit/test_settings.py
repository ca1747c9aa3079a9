"""What the front and the models container read when they start: their flags, and nothing else."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from pneumoserve.front.settings import FrontSettings
from pneumoserve.models.settings import ModelsSettings


def test_flags_are_read_in_both_forms() -> None:
    words = ["--release-id", "000000000000", "--http-port=8090", "--journal=/journal", "--subject-header=X-Subject"]
    settings = FrontSettings.from_flags([*words, "--proxy", "10.0.0.0/8", "--proxy=fd00::/8"])
    assert (settings.release_id, settings.http_port, settings.journal) == ("000000000000", 8090, Path("/journal"))
    assert settings.subject_header == "x-subject"
    assert settings.proxy == [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.mark.parametrize("release_id", ["123e45678901", "999999999999", "0e0000000000"])
def test_an_id_that_looks_like_a_number_stays_as_it_is(release_id: str) -> None:
    assert ModelsSettings.from_flags([f"--release-id={release_id}"]).release_id == release_id


def test_a_gpu_is_used_only_where_it_is_said() -> None:
    assert not ModelsSettings.from_flags([]).gpu
    assert ModelsSettings.from_flags(["--gpu"]).gpu


def test_the_environment_sets_no_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes puts a variable for every Service there."""
    for name in ("HOST", "RELEASE", "HTTP_PORT", "PROXY"):
        monkeypatch.setenv(name, "tcp://10.0.0.1:80")
    assert FrontSettings.from_flags([]) == FrontSettings()
    assert FrontSettings().http_port == 8080


@pytest.mark.parametrize(
    ("words", "named"),
    [(["--http-port=x"], "--http-port"), (["--lock-mode=none"], "--lock-mode"), (["--proxy=nowhere"], "--proxy"),
     (["--unknown"], "--unknown")],
)  # fmt: skip
def test_what_is_wrong_is_named_and_ends_the_start_with_2(
    words: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        FrontSettings.from_flags(words)
    assert ended.value.code == 2
    assert named in capsys.readouterr().err.splitlines()[-1]
