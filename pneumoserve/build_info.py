"""What runs, for whoever watches it: one series a process, the same for all parts of the product."""

from __future__ import annotations

from typing import Final, Literal

from prometheus_client import Gauge

import pneumoserve

_BUILD: Final = Gauge(
    "pneumoserve_build_info", "1, with the part that runs, its version, and the release it serves (empty: none).",
    ["part", "version", "release"],
)  # fmt: skip


def show_build(part: Literal["front", "alerts", "console", "intake"], release: str = "") -> None:
    """Let the metrics say which part this process is, and which release it serves."""
    _BUILD.labels(part, pneumoserve.__version__, release).set(1)
