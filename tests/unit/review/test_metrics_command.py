"""`pneumoserve metrics`: what a person types, what they read, and what they are told where there is nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pneumoserve.cli import reviews
from pneumoserve.cli.reviews import Review
from pneumoserve.records import FolderTarget, export
from pneumoserve.release import fetch
from pneumoserve.review import ReviewDatabase
from tests.support.commands import Ran, invoke
from tests.support.entries import RELEASE
from tests.support.metrics import POLICY, read_ward
from tests.support.reviews import Ward

Run = Callable[..., Ran]


def ward_in(folder: Path) -> Ward:
    return Ward(ReviewDatabase(f"sqlite:///{folder / 'review.sqlite'}"))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    ward = ward_in(tmp_path_factory.mktemp("done"))
    read_ward(ward, capacity=500)
    yield ward
    ward.database.close()


@pytest.fixture
def run_on(monkeypatch: pytest.MonkeyPatch) -> Callable[[Ward], Run]:
    def patched(ward: Ward) -> Run:
        @contextlib.contextmanager
        def review_of(*_: object) -> Iterator[Review]:
            yield Review(ward.database, ward.reader, ward.store)

        monkeypatch.setattr(reviews, "review_of", review_of)
        monkeypatch.setattr(fetch, "find_policy", lambda *_: POLICY)
        return lambda *words: invoke(["metrics", *words], {})

    return patched


def test_people_read_figures_with_intervals(done: Ward, run_on: Callable[[Ward], Run]) -> None:
    """All is drawn: 15 of 25 sick are referred, 8 called so, 2 missed; of one referral nobody could tell."""
    ran = run_on(done)("--prevalence", "0.01")
    assert ran.returncode == 0, ran.stderr
    rows = {line.split("│")[1].strip(): line for line in ran.stdout.splitlines() if line.count("│") > 3}
    shown = [each.strip() for each in rows["Sensitivity, product"].split("│")]
    assert shown[2].startswith("92.2 % (74.")
    assert shown[3:6] == ["92.0 to 92.3 %", "92.0 %", "0.0 %"]
    assert "at a prevalence of 1 %" in ran.stdout
    assert (
        "174 studies count: 30 referred, 120 confidently normal, 24 confidently pneumonia; 173 were read" in ran.stdout
    )
    assert "174 studies name no patient" in ran.stdout
    assert "2.0 a reading" in ran.stdout
    assert "what blind readers found" in ran.stdout


def test_machines_read_json(done: Ward, run_on: Callable[[Ward], Run]) -> None:
    ran = run_on(done)("--json", "--prevalence", "0.01", "--release", RELEASE, "--site", "hospital-a")
    assert ran.returncode == 0, ran.stderr
    (found,) = json.loads(ran.stdout)
    figure: dict[str, Any] = found["figures"]["product_sensitivity"]
    # Of the 30 referred, one is not told: its weight goes to the 29 others.
    assert figure["interval"]["value"] == pytest.approx((15 * 30 / 29 + 8) / (15 * 30 / 29 + 10))
    assert figure["interval"]["low"] < figure["bounds"][0] < figure["bounds"][1] < figure["interval"]["high"]
    assert (figure["naive"], figure["always_normal"]) == (0.92, 0)
    assert found["prevalence"] == 0.01
    assert found["at_prevalence"]["product_npv"]["always_normal"] == 0.99
    assert found["reference"] == "blind readings"
    assert found["strata"][-1] == {
        "name": "referred", "studies": 30, "chosen": 30, "outcomes": {"cannot_tell": 1, "read": 29}
    }  # fmt: skip
    assert found["effort"] == {"read": 174, "readings": 174, "minutes": 2.0, "blood_tests": 0, "experts": 0}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--prevalence", "0"], "between 0 and 1"),
        (["--prevalence", "2"], "between 0 and 1"),
        (["--release", "fedcba987654"], "has answered no study"),
        (["--site", "nowhere"], "No study came from that site"),
        (["--since", "2999-01-01"], "No study was answered in that time"),
    ],
)
def test_what_cannot_be_measured_is_told(
    done: Ward, run_on: Callable[[Ward], Run], words: list[str], sentence: str
) -> None:
    ran = run_on(done)(*words)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert sentence in ran.stderr


def test_an_export_gives_the_same_without_a_database(
    done: Ward, run_on: Callable[[Ward], Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_on(done)
    words = ("--json", "--prevalence", "0.01")
    expected = json.loads(run(*words).stdout)
    export(done.reader, FolderTarget(tmp_path))
    monkeypatch.setattr(reviews, "review_of", None)
    ran = run(*words, "--export", str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == expected


def test_an_empty_archive_is_told(tmp_path: Path, run_on: Callable[[Ward], Run]) -> None:
    ward = ward_in(tmp_path)
    ran = run_on(ward)("--json")
    ward.database.close()
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "nothing to measure" in ran.stderr


def test_with_too_few_readings_it_says_how_many_more(tmp_path: Path, run_on: Callable[[Ward], Run]) -> None:
    ward = ward_in(tmp_path)
    ward.later(days=-60)
    ward.study("one", "normal")
    ran = run_on(ward)()
    ward.database.close()
    assert ran.returncode == 0, ran.stderr
    assert "no study with the answer normal was read" in ran.stdout
    assert "10 readings more" in ran.stdout
