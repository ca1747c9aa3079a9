"""Which web pages of other origins may call, and read what is answered: none but those that a setting names.

What is refused before a request was read (`connections`) has no such headers, since no origin is known.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

ANY_ORIGIN: Final = "*"
# As browsers write them (RFC 6454, 6.1): in lower case, without a path, and with no port that is the scheme's own.
_ORIGIN: Final = re.compile(r"(http(?!.*:80$)|https(?!.*:443$))://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
# What callers may send beside what any page may, and what they may read.
REQUEST_HEADERS: Final = (
    "Authorization", "Content-Type", "Idempotency-Key", "Inference-Header-Content-Length", "Pneumoserve-Origin",
    "Pneumoserve-Patient", "Pneumoserve-Practitioner", "Pneumoserve-Reference", "Pneumoserve-Study",
)  # fmt: skip
RESPONSE_HEADERS: Final = (
    "Allow", "Inference-Header-Content-Length", "Pneumoserve-Receipts", "Pneumoserve-Recorded", "Pneumoserve-Release",
    "Retry-After",
)  # fmt: skip


def check_origin(origin: str) -> str:
    """An origin as it was given.

    Raises:
        ValueError: no browser calls an origin so.
    """
    if origin != ANY_ORIGIN and not _ORIGIN.fullmatch(origin):
        raise ValueError("give an origin as browsers do, such as https://pacs.example or http://localhost:3000, or *")
    return origin


def allow_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The application, which pages of these origins may call; without any it stays as it is.

    Cookies and the like (credentials) are never allowed: callers name themselves in a header.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app, allow_origins=origins, allow_methods=("GET", "HEAD", "POST"), allow_headers=REQUEST_HEADERS,
        expose_headers=RESPONSE_HEADERS,
    )  # fmt: skip
