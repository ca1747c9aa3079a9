"""Figures, thresholds and shapes, and what counts as a right answer: without a service."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages

from loadtest.calls import (
    KINDS,
    Call,
    NoFilms,
    WrongAnswer,
    calls_of,
    check_answer,
    check_grpc_answer,
    find_films,
)
from loadtest.shapes import shape
from loadtest.summary import NOT_SENT, Outcome, Summary, Thresholds, table
from tests.integration.loadtest.stub_server import RELEASE, infer_response

ASKS_NOTHING = Thresholds(1.0, 0.0, None, None, None)
FILMS = [b"one", b"two", b"three"]


def outcome(due: float, late: float = 0.0, took: float = 0.01, problem: str | None = None) -> Outcome:
    return Outcome("v1", due, due + late, due + late + took, problem)


def summary(outcomes: list[Outcome], thresholds: Thresholds = ASKS_NOTHING, seconds: float = 10.0) -> Summary:
    return Summary({"shape": "ramp"}, outcomes, thresholds, seconds, most_under_way=7, processor_share=0.1)


# --- shapes


def test_a_constant_rate_is_evenly_spaced() -> None:
    due = list(shape("constant", 20.0, 5.0).due())
    assert due == pytest.approx([number / 20 for number in range(100)])


def test_a_ramp_grows_evenly_from_nothing() -> None:
    due = list(shape("ramp", 40.0, 10.0).due())
    assert len(due) == 200
    # The rate is 4 t, so by t 2 t² calls have fallen due.
    assert [2 * moment**2 for moment in due] == pytest.approx(list(range(200)))
    assert due[-1] < 10.0


@pytest.mark.parametrize(("seconds", "rise"), [(100.0, 10.0), (3600.0, 60.0)])
def test_a_soak_rises_and_then_stays(seconds: float, rise: float) -> None:
    soak = shape("soak", 10.0, seconds)
    due = list(soak.due())
    assert soak.seconds == seconds
    assert len(due) == pytest.approx(soak.rate * seconds, abs=1) == pytest.approx(10 * (seconds - rise / 2), abs=1)
    assert sum(moment < rise for moment in due) == pytest.approx(5 * rise, abs=1)
    gaps = [after - before for before, after in pairwise(due) if before > rise]
    assert gaps == pytest.approx([0.1] * len(gaps))


# --- figures


def test_latency_counts_from_when_a_call_was_due() -> None:
    found = summary([outcome(number / 10, late=0.05, took=0.02) for number in range(100)]).document()
    assert found["latency"] == {"p50_ms": 70.0, "p95_ms": 70.0, "p99_ms": 70.0, "max_ms": 70.0}


def test_percentiles_are_those_of_the_nearest_rank() -> None:
    found = summary([outcome(0, took=number / 1000) for number in range(1, 101)]).document()
    assert found["latency"] == {"p50_ms": 50.0, "p95_ms": 95.0, "p99_ms": 99.0, "max_ms": 100.0}


def test_a_failed_call_is_later_than_every_answer() -> None:
    calls = [outcome(0, took=0.01) for _ in range(97)] + [outcome(0, took=0.0001, problem="status 503")] * 3
    found = summary(calls, Thresholds(0.05, 0.0, None, 20.0, 20.0))
    assert found.document()["latency"] == {"p50_ms": 10.0, "p95_ms": 10.0, "p99_ms": None, "max_ms": None}
    assert [(check.name, check.met) for check in found.checks if check.name.startswith("p")] == [
        ("p95_ms", True),
        ("p99_ms", False),
    ]
    assert found.verdict == "missed"
    assert "MISSED p99_ms <= 20: none, since calls failed" in table(found)
    assert "failed: 3 x status 503" in table(found)


def test_a_queue_that_is_worked_off_afterwards_is_no_rate() -> None:
    calls = [outcome(number / 10, took=number / 10) for number in range(100)]
    assert summary(calls).document()["calls_per_second"] == {"due": 10.0, "answered": round(100 / 19.8, 3)}


def test_windows_show_where_it_became_slow() -> None:
    calls = [outcome(number / 10, took=0.5 if number >= 90 else 0.01) for number in range(100)]
    windows = summary(calls).document()["windows"]
    assert [window["latency"]["p99_ms"] for window in windows] == [10.0] * 9 + [500.0]
    assert [window["due"] for window in windows] == [10] * 10
    assert "9, 10.0             10       0     500.0     500.0     500.0     500.0" in table(summary(calls))


@pytest.mark.parametrize(
    ("thresholds", "missed"),
    [
        (Thresholds(0.01, 9.9, 10.0, 10.0, 10.0), []),
        (Thresholds(0.009, 9.9, 10.0, 10.0, 10.0), ["failed_share"]),
        (Thresholds(0.01, 9.91, 10.0, 10.0, 10.0), ["rate"]),
        (Thresholds(0.01, 9.9, 9.9, 10.0, 10.0), ["p50_ms"]),
        (Thresholds(0.01, 9.9, 10.0, 9.9, None), ["p95_ms"]),
        (Thresholds(0.01, 9.9, None, None, 9.9), ["p99_ms"]),
    ],
)
def test_each_threshold_decides(thresholds: Thresholds, missed: list[str]) -> None:
    calls = [outcome(number / 10, problem="status 503" if number == 0 else None) for number in range(100)]
    found = summary(calls, thresholds)
    assert [check.name for check in found.checks if not check.met] == missed
    assert found.verdict == ("missed" if missed else "met")


def test_a_generator_that_fell_behind_proves_nothing() -> None:
    on_time, late = outcome(0.0), outcome(0.0, late=0.11)
    assert summary([on_time] * 99 + [late]).verdict == "met"
    behind = summary([on_time] * 98 + [late] * 2)
    assert behind.verdict == "invalid"
    assert "INVALID. The generator fell behind: 2.0% of the calls" in table(behind)
    assert "met" not in table(behind)


def test_a_call_that_was_never_sent_proves_nothing() -> None:
    unsent = summary([outcome(0.0)] * 999 + [outcome(0.0, problem=NOT_SENT)])
    assert unsent.verdict == "invalid"
    assert "1 calls were due and not sent, since 7 were under way" in table(unsent)


# --- answers


def v1(predictions: list[dict[str, str]]) -> bytes:
    return json.dumps({"predictions": predictions}).encode()


def header(name: str) -> str | None:
    return {"pneumoserve-release": RELEASE}.get(name)


GOOD = [{"prediction_id": str(number), "release": RELEASE} for number in range(2)]
CALL = Call("v1", "", b"", {}, 2)


def test_a_right_answer_gives_its_predictions_and_release() -> None:
    answer = check_answer(CALL, 200, header, v1(GOOD))
    assert (answer.predictions, answer.release) == (["0", "1"], RELEASE)


@pytest.mark.parametrize(
    ("status", "heads", "body", "sentence"),
    [
        (503, header, v1(GOOD), "status 503"),
        (200, lambda _: None, v1(GOOD), "no pneumoserve-release header"),
        (200, lambda _: "other", v1(GOOD), "header and answer name different releases"),
        (200, header, v1(GOOD[:1]), "1 predictions for 2 films"),
        (200, header, v1([GOOD[0], GOOD[0]]), "1 predictions for 2 films"),
        (200, header, v1([GOOD[0], {**GOOD[1], "release": "other"}]), "the predictions do not name one release"),
        (200, header, b'{"error": "Mustermann"}', "the answer is not of the protocol's form"),
        (200, header, b"<html>", "the answer is not of the protocol's form"),
    ],
)
def test_a_wrong_answer_is_told_by_what_is_wrong(
    status: int, heads: Callable[[str], str | None], body: bytes, sentence: str
) -> None:
    with pytest.raises(WrongAnswer) as wrong:
        check_answer(CALL, status, heads, body)
    assert str(wrong.value) == sentence


def test_grpc_answers_are_checked_too() -> None:
    call = Call("grpc", "", b"", {}, 2)
    assert check_grpc_answer(call, messages, infer_response(["a", "b"], [RELEASE] * 2)).predictions == ["a", "b"]
    for body in (infer_response(["a"], [RELEASE]), infer_response(["a", "b"], [RELEASE, "x"]), b"\xff", b""):
        with pytest.raises(WrongAnswer):
            check_grpc_answer(call, messages, body)


@pytest.mark.parametrize("kind", KINDS)
def test_each_film_has_its_turn_in_calls_of_several(kind: str) -> None:
    calls = calls_of(kind, FILMS, 2, messages)
    assert [call.films for call in calls] == [1 if kind == "dicom" else 2] * 3
    assert len({call.body for call in calls}) == 3


def test_films_of_a_folder_are_found_by_their_endings(tmp_path: Path) -> None:
    for name in ("a.JPG", "deep/b.png", "c.dcm", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    found = find_films(tmp_path)
    assert sorted(found.images) == [b"a.JPG", b"deep/b.png"]
    assert found.dicoms == [b"c.dcm"]
    (tmp_path / "c.dcm").unlink()
    with pytest.raises(NoFilms, match="leave dicom out"):
        find_films(tmp_path).of("dicom")


def test_the_sample_gives_originals_and_a_chest() -> None:
    films: Any = find_films(None)
    assert len(films.of("v1")) == 6
    assert min(map(len, films.of("v1"))) > 50_000
    assert len(films.of("dicom")) == 1
