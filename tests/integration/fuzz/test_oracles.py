"""Each rule is one that the judge sees broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pneumoserve.imaging import Facts, ImageError, PreparedImage
from pneumoserve.imaging.prepare import prepare
from tests.integration.fuzz.oracles import judge, judge_answer
from tests.integration.fuzz.seeds import PATIENT, seeds

FILM = seeds()["jpeg-baseline"]


def raise_error(error: Exception) -> Callable[[bytes], PreparedImage]:
    def fail(data: bytes) -> PreparedImage:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (ImageError(400, "Send another."), None),
        (ImageError(500, "Send another."), "status 500"),
        (ImageError(400, f"No film: {PATIENT.decode()}"), "payload in the error's text"),
        (ImageError(400, "No film: \x00\x07"), "payload in the error's text"),
        (KeyError("x"), "exception KeyError: KeyError in fail"),
    ],
)
def test_refusals(error: Exception, fault: str | None) -> None:
    assert judge(FILM, raise_error(error)).fault == fault


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"stored": FILM[:2] + b"\xff\xfe\x00\x1d" + PATIENT + FILM[2:]}, "patient in the stored copy"),
        ({"stored": prepare(FILM).stored + PATIENT}, "patient in the stored copy"),
        ({"stored": b"x"}, "stored copy not accepted: ImageError"),
        ({"pixels_sha256": "0"}, "other pixels from the stored copy"),
        ({"stored_sha256": "0"}, "another stored copy from the stored copy"),
        ({"facts": Facts(age_years=0.99)}, "other facts from the stored copy"),
    ],
)
def test_accepted_films(change: dict[str, object], fault: str | None) -> None:
    def prepare_and_change(data: bytes) -> PreparedImage:
        return replace(prepare(data), **(change if data is FILM else {}))  # type: ignore[arg-type]

    assert judge(FILM, prepare_and_change).fault == fault


def test_answers_of_a_service() -> None:
    assert judge_answer(200, b"{}").fault is None
    assert judge_answer(415, b'{"error": "Send another."}').fault is None
    assert judge_answer(500, b"Internal Server Error").fault == "status 500"
    assert judge_answer(400, b'{"error": "' + PATIENT + b'"}').fault == "payload in the answer"
