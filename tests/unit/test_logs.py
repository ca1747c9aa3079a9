"""Logs: one line an event in either form, ids that a gateway gave, and no text of an error."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import datetime

import pytest

from pneumoserve.logs import request_id_of

UUID = "7f3c0a52-9e6b-4c1d-8a77-0123456789ab"
# What happens in a process that has set its logs up.
PROGRAM = """
import asyncio, logging, threading, warnings
from pneumoserve.logs import bind, log_event, set_up_logs
from pneumoserve.termination import explain_end
set_up_logs()
log = logging.getLogger("pneumoserve.x")
with bind(request_id="r1"):
    with bind(trace_id=None):
        log_event(log, "call", prediction_ids=["p1"], status=200)
    asyncio.run(asyncio.to_thread(log.warning, "in a thread"))
log.info("after it")
logging.getLogger("library").info("GET /?name=Mustermann")
def fail(): raise ValueError("Mustermann")
try: fail()
except ValueError: log.exception("a fault")
async def forget(): asyncio.get_running_loop().call_soon(fail); await asyncio.sleep(0)
asyncio.run(forget())
warnings.warn("a warning\\nof two lines")
thread = threading.Thread(target=fail); thread.start(); thread.join()
explain_end("It ends.")
fail()
"""


def run(form: str) -> list[str]:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={"LOG_FORMAT": form}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert not ended.stdout
    assert "Mustermann" not in ended.stderr
    return ended.stderr.splitlines()


def test_each_event_is_one_line_of_json() -> None:
    lines = [json.loads(line) for line in run("json")]
    call, threaded, after, fault, forgotten, warned, in_thread, end, uncaught = lines
    assert datetime.fromisoformat(call.pop("time")).utcoffset().total_seconds() == 0
    assert call == {"level": "info", "logger": "pneumoserve.x", "message": "call", "request_id": "r1",
                    "prediction_ids": ["p1"], "status": 200}  # fmt: skip
    assert (threaded["request_id"], threaded["level"]) == ("r1", "warning")
    assert "request_id" not in after
    assert fault["error"] == "ValueError"
    assert re.fullmatch(r"<string>:\d+ fail", fault["stack"][-1])
    assert forgotten["logger"] == "asyncio"
    assert "a warning" in warned["message"]
    assert (in_thread["level"], in_thread["error"]) == ("critical", "ValueError")
    assert (end["message"], end["level"]) == ("It ends.", "critical")
    assert uncaught["message"] == "nothing caught an error"


def test_each_event_is_one_line_of_text() -> None:
    lines = run("text")
    assert len(lines) == 9
    assert re.fullmatch(r"\S+Z INFO pneumoserve.x: call request_id=r1 prediction_ids=\['p1'\] status=200", lines[0])
    # For whoever starts a process by hand.
    assert lines[-2] == "It ends."


@pytest.mark.parametrize("given", [[UUID], [UUID.upper()]])
def test_a_gateways_id_is_kept(given: list[str]) -> None:
    assert request_id_of([("Accept", "*/*"), *(("X-Request-Id", each) for each in given)]) == UUID


@pytest.mark.parametrize(
    "given", [[], [UUID, UUID], ["Mustermann"], [UUID + "\n"], [f"{UUID} Mustermann"], [UUID.encode()], ["1" * 10_000]]
)
def test_anything_else_gets_an_id_of_ours(given: list[str | bytes]) -> None:
    made = request_id_of([("x-request-id", each) for each in given])
    assert re.fullmatch(r"[0-9a-f-]{36}", made)
    assert made != UUID
