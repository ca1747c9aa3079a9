"""Having the running stack serve another release."""

from __future__ import annotations

import contextlib
import http
import os
import time
from typing import Any, Final

import urllib3

from pneumoserve.errors import PneumoserveError
from pneumoserve.local.stack import REDEPLOY_SIGNAL
from pneumoserve.local.state import State
from pneumoserve.names import DECISION
from pneumoserve.release import Release

_POLL_SECONDS: Final = 0.1
_TIMEOUT_SECONDS: Final = 10.0


class RedeployError(PneumoserveError):
    """The stack does not serve the release; the text says why."""


def redeploy(state: State, release: Release) -> bool:
    """Have the stack serve a release of the state folder, now if it runs, and whenever `serve` starts it.

    Returns whether a stack runs; it then answers with the release.

    Raises:
        RedeployError: the release did not start; what was served before is served again, and stays chosen.
    """
    announced, before = state.running(), state.selected_release
    state.choose(release.id)
    if announced is None:
        return False
    try:
        # Had it ended meanwhile, `running` would say so next.
        with contextlib.suppress(ProcessLookupError):
            os.kill(announced["pid"], REDEPLOY_SIGNAL)
        _wait_for(state, announced["redeploys"], release)
    except RedeployError:
        state.choose(before)
        raise
    return True


def _wait_for(state: State, redeploys: int, release: Release) -> None:
    """Wait until the stack has gone over, or has said why it did not; it does either in bounded time."""
    while (announced := _running(state))["redeploys"] == redeploys:
        time.sleep(_POLL_SECONDS)
    if announced["refused"] is not None:
        raise RedeployError(
            f"Release {release.id} did not start, {announced['release']} goes on: {announced['refused']}"
        )
    url = f"{announced['url']}/v2/models/{DECISION}/versions/{release.id}/ready"
    try:
        status = urllib3.request("GET", url, timeout=_TIMEOUT_SECONDS, retries=False).status
    except urllib3.exceptions.HTTPError:
        status = None
    if status != http.HTTPStatus.OK:
        raise RedeployError(f"The stack does not answer with release {release.id}; read logs/front.log.")


def _running(state: State) -> dict[str, Any]:
    announced = state.running()
    if announced is None:
        raise RedeployError("The stack ended while it went over; read what `pneumoserve serve` printed, and logs/.")
    return announced
