"""Calls from web pages of other origins: by setting, errors included; each a real HTTP client's."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from pneumoserve.front.settings import FrontSettings
from tests.support import films
from tests.support.front import Front, run_front

FILM = films.sample_films()[0].read_bytes()
PREDICT = "/v1/models/pneumonia:predict"
PAGE = "https://pacs.example"
ASKED = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type,idempotency-key,pneumoserve-study",
}
SENT = ("pneumoserve-recorded", "pneumoserve-receipts", "pneumoserve-release", "retry-after",
        "inference-header-content-length", "allow")  # fmt: skip


@pytest.fixture(scope="module")
async def open_front() -> AsyncIterator[Front]:
    """A front that a page may call."""
    async with run_front(origins=[PAGE]) as running:
        yield running


async def preflight(front: Front, origin: str) -> httpx.Response:
    return await front.http.options(PREDICT, headers={"Origin": origin, **ASKED})


async def test_by_default_no_page_may_call(front: Front) -> None:
    for response in (await preflight(front, PAGE), await front.predict(FILM, {"Origin": PAGE})):
        assert not [name for name in response.headers if name.startswith("access-control")]


async def test_a_page_asks_then_calls_and_reads_the_receipt(open_front: Front) -> None:
    asked = await preflight(open_front, PAGE)
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, PAGE)
    allowed = asked.headers["access-control-allow-headers"].lower()
    assert all(name in allowed for name in ASKED["Access-Control-Request-Headers"].split(","))
    assert "POST" in asked.headers["access-control-allow-methods"]
    answered = await open_front.predict(FILM, {"Origin": PAGE})
    assert (answered.status_code, answered.headers["access-control-allow-origin"]) == (200, PAGE)
    exposed = answered.headers["access-control-expose-headers"].lower()
    assert all(name in exposed for name in SENT)
    assert "pneumoserve-receipts" in answered.headers
    # No cookie, whoever asks.
    assert "access-control-allow-credentials" not in {**asked.headers, **answered.headers}


async def test_an_error_is_for_the_page_too(open_front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_: object) -> None:
        raise ZeroDivisionError

    origin = {"Origin": PAGE}
    answers = [
        await open_front.predict(b"no image", origin),
        await open_front.http.get("/v3", headers=origin),
        await open_front.http.get(PREDICT, headers=origin),
    ]
    monkeypatch.setattr("pneumoserve.front.pipeline.Pipeline.run", fail)
    answers.append(await open_front.predict(FILM, origin))
    assert [answer.status_code for answer in answers] == [400, 404, 405, 500]
    assert {answer.headers["access-control-allow-origin"] for answer in answers} == {PAGE}


@pytest.mark.parametrize("origin", ["https://pacs.example.org", "http://pacs.example", "null", f"{PAGE}:8443", ""])
async def test_another_page_may_not(origin: str, open_front: Front) -> None:
    asked = await preflight(open_front, origin)
    assert asked.status_code == 400
    assert "access-control-allow-origin" not in asked.headers
    assert "access-control-allow-origin" not in (await open_front.predict(FILM, {"Origin": origin})).headers


async def test_all_pages_may_where_that_is_said_but_with_no_cookie() -> None:
    async with run_front(origins=["*"]) as running:
        for response in (await preflight(running, PAGE), await running.predict(FILM, {"Origin": "null"})):
            assert response.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize("origin", ["*", PAGE, "http://localhost:3000", "http://[::1]:8080", "http://10.0.0.1"])
def test_an_origin_is_taken_as_browsers_send_it(origin: str) -> None:
    assert FrontSettings.from_flags([f"--cors-origin={origin}"]).cors_origin == [origin]


@pytest.mark.parametrize(
    "origin",
    ["pacs.example", f"{PAGE}/", f"{PAGE}/viewer", "https://PACS.example", "https://*.example", f"{PAGE}:443",
     "http://pacs.example:80", ""],
)  # fmt: skip
def test_what_no_browser_sends_is_no_origin(origin: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        FrontSettings.from_flags([f"--cors-origin={origin}"])
    assert "--cors-origin" in (said := capsys.readouterr().err)
    assert "give an origin as browsers do" in said
