"""The client of the models container, against a server that stands for TorchServe where it misbehaves."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np
import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from pneumoserve.front import torchserve
from pneumoserve.models.scorer import Score

PROFILE = {"engine": "none", "engine_version": "1"}
SCORE = Score(0.25, -1.0, PROFILE, chest_probability=0.9, typer=Score(0.75, 1.0, PROFILE))
TOLD: dict[str, str | int] = {**PROFILE, "server": "torchserve"}
FILM = np.zeros((224, 224), dtype=np.uint8)


@pytest.mark.parametrize("misdeed", ["never answers", "507", "hangs up"])
async def test_a_request_that_a_dying_worker_drops_is_sent_again(misdeed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchserve, "_TRY_SECONDS", 0.5)
    calls = 0

    async def predict(request: web.Request) -> web.StreamResponse:
        nonlocal calls
        calls += 1
        assert await request.read() == FILM.tobytes()
        if calls > 1:
            return web.json_response(dataclasses.asdict(SCORE))
        if misdeed == "507":
            return web.Response(status=507)
        if misdeed == "hangs up":
            assert request.transport is not None
            request.transport.close()
        await asyncio.sleep(60)
        return web.Response()

    async def describe(_: web.Request) -> web.Response:
        return web.json_response([{"workers": [{"status": "READY"}, {"status": "UNLOADING"}, {"status": "READY"}]}])

    application = web.Application()
    application.router.add_post("/predictions/pneumonia-detector", predict)
    application.router.add_get("/models/pneumonia-detector", describe)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    client = torchserve.TorchServe(url, url, ("pneumonia-detector",), 2)
    before = shown("seconds_count")
    client.start()
    try:
        assert await client.score("pneumonia-detector", FILM) == Score(0.25, -1.0, TOLD, 0.9, Score(0.75, 1.0, TOLD))
        async with asyncio.timeout(10):
            while not client.ready:
                await asyncio.sleep(0.02)
    finally:
        await client.close()
        await runner.cleanup()
    assert calls == 2
    # The dropped one has no duration.
    assert (shown("seconds_count"), shown("workers"), shown("waiting")) == (before + 1, 2, 0)
    # The typer's score came with the detector's.
    for model in ("pneumonia-detector", "pneumonia-typer"):
        assert shown("info", model=model, engine="none", engine_version="1") == 1


def shown(name: str, **labels: str) -> float:
    labels = {"model": "pneumonia-detector", **labels}
    return REGISTRY.get_sample_value(f"pneumoserve_engine_{name}", labels) or 0.0
