"""Logs in JSON, of a real front and a real console, after calls that try to write into them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import httpx

from pneumoserve.ids import uuid7
from pneumoserve.local.process import free_ports
from pneumoserve.store import S3Store
from tests.conftest import Stack, wait_for
from tests.integration.front.conftest import StartFront
from tests.integration.front.test_privacy import Words, ask_grpc, calls


def read_log(log: Path, *, beside: int = 0) -> list[dict[str, Any]]:
    """Each line of a log, which is JSON; `beside` of them are a process's own output."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    said = [line for line in lines if "message" in line]
    assert len(lines) - len(said) == beside
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in said)
    return said


def test_every_line_of_the_fronts_log_is_json_and_a_calls_line_has_its_ids(
    start_front: StartFront, stack: Stack
) -> None:
    words, request_id = Words(), uuid7()
    # Another test counts what is in the stack's own.
    own = stack.s3.in_bucket("logs")
    S3Store(own).ensure_bucket()
    with start_front(LOG_FORMAT="json", **own.to_env()) as front:
        answered = list(calls(front.url, words))
        ask_grpc(front.grpc, words)
        url = f"{front.url}/v1/models/pneumonia:predict"
        named = httpx.post(url, content=b"nothing", headers={"X-Request-Id": request_id}, timeout=60).json()
    said = read_log(front.log)
    assert not [word for word in words.given if word in front.log.read_text()]
    by_id = {each: line for line in said for each in line.get("prediction_ids", [])}
    assert by_id[named["prediction_id"]]["request_id"] == request_id
    assert by_id[named["prediction_id"]]["status"] == 400
    # Of those that were refused the answer names the record; of V1's that were answered, each image does.
    refused = [answer.json()["prediction_id"] for answer in answered if not answer.is_success]
    predictions = [each for answer in answered if answer.is_success for each in answer.json().get("predictions", [])]
    assert {*refused, *(each["prediction_id"] for each in predictions)} <= by_id.keys()
    assert all(line["request_id"] for line in by_id.values())
    assert {line["logger"] for line in by_id.values()} == {"pneumoserve.front.service"}


def test_every_line_of_the_consoles_log_is_json_and_names_pages_alone(stack: Stack, tmp_path: Path) -> None:
    running = stack.child("pneumoserve.console")
    (port,) = free_ports(1)
    words = [word for word in running.cmdline() if not word.startswith("--port=")]
    log = tmp_path / "console.log"
    environment = {
        **os.environ, **stack.s3.to_env(), "LOG_FORMAT": "json", "REVIEW_DATABASE": f"sqlite:///{tmp_path / 'review'}",
    }  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen([*words, f"--port={port}"], stdout=output, stderr=output, env=environment)
    url = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        try:
            return httpx.get(f"{url}/health").is_success
        except httpx.TransportError:
            return False

    try:
        wait_for(is_up, 60)
        for place in ("/studies/Mustermann?name=Mustermann", "/alerts/Mustermann", "/Mustermann"):
            httpx.get(url + place, headers={"X-Request-Id": "Mustermann"})
        httpx.request("MUSTERMANN", url)
    finally:
        process.terminate()
        # uvicorn ends by the signal that it caught.
        assert process.wait(60) == -signal.SIGTERM, log.read_text()
    said = read_log(log, beside=1)
    assert "mustermann" not in log.read_text().lower()
    pages = [line for line in said if line["message"] == "page"]
    assert {"show_health", "other"} <= {line["page"] for line in pages}
    assert all(line["request_id"] and line["duration_ms"] >= 0 for line in pages)
