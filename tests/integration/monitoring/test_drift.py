"""Drift on a served stack: images change, drift finds it, the site's plan stops the release, and the front refers all.

Each image is a study of its own, sent as callers do. It takes as many calls as a baseline and a window have studies.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from pneumoserve.monitoring.drift import WINDOW_STUDIES
from pneumoserve.monitoring.drift_watch import FEWEST_BASELINE_STUDIES
from tests.conftest import PNEUMOSERVE, Stack, start_stack, wait_for
from tests.support import films

# As many images as a call may have.
_A_CALL = 16


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stack]:
    """A stack whose release may be stopped: the one that tests share must go on to answer."""
    running = start_stack(tmp_path / "state")
    yield running
    assert running.stop() == 0


def send(stack: Stack, images: list[bytes], count: int) -> list[dict[str, Any]]:
    """Send so many of these images, again and again, and return the answers."""
    encoded = [{"image": {"b64": base64.b64encode(each).decode()}} for each in islice(cycle(images), count)]
    calls = [encoded[first : first + _A_CALL] for first in range(0, count, _A_CALL)]
    with httpx.Client(base_url=stack.url, timeout=120) as client, ThreadPoolExecutor(3) as callers:
        made = callers.map(lambda call: client.post("/v1/models/pneumonia:predict", json={"instances": call}), calls)
        return [answer for response in made for answer in response.raise_for_status().json()["predictions"]]


def turn(path: Path) -> bytes:
    """An image as a detector would make it that hangs askew."""
    with Image.open(path) as image:
        return films.encoded(image.convert("L").rotate(10), "JPEG", quality=90)


def test_changed_images_are_found_and_stop_the_release_by_the_plan_alone(own: Stack, tmp_path: Path) -> None:
    release, state = own.release, str(own.state)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [PNEUMOSERVE, *words, "--state", state]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    def reasons() -> list[str]:
        (answer,) = send(own, usual[:1], 1)
        return list(answer["reasons"])

    usual = [path.read_bytes() for path in films.sample_films()]
    send(own, usual, FEWEST_BASELINE_STUDIES)
    renewed = run("drift", "--release", release, "--renew", "--by", "lead", "--why", "first")
    assert renewed.returncode == 0, renewed.stderr
    changed = send(own, [turn(path) for path in films.sample_films()], WINDOW_STUDIES)
    assert not any("release_stopped" in each["reasons"] for each in changed)
    plan = tmp_path / "stop.yaml"
    plan.write_text("drift: {alarm: any, windows: 1, looks: 10}")
    found = run("drift", "--release", release, "--plan", str(plan), "--json")
    assert found.returncode == 1, found.stderr
    (source,) = json.loads(found.stdout)
    assert [window["alarm"] for window in source["windows"]] == [True]
    assert f"release {release} is stopped by" in found.stderr
    wait_for(lambda: reasons() == ["release_stopped"], 60)
