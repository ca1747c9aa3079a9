"""Paths and the methods they take: any other method is answered with the right ones, before a longer path can match."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

_METHODS: Final = {"GET": "GET, HEAD, OPTIONS", "POST": "POST, OPTIONS"}

Handler = Callable[..., Awaitable[Response]]


def add_path(app: FastAPI, path: str, handler: Handler, method: str = "GET", **described: Any) -> None:
    """Serve a path by one method (and HEAD, where that is GET); `described` is what its description says."""
    app.add_api_route(path, handler, methods=[method], **described)
    if method == "GET":
        app.add_api_route(path, handler, methods=["HEAD"], include_in_schema=False)
    app.router.routes.append(Route(path, _OtherMethods(_METHODS[method]), include_in_schema=False))


def add_missing_path(app: FastAPI, path: str) -> None:
    """Answer a path as one that is not there, though a later one would match it."""
    app.router.routes.append(Route(path, _Missing(), include_in_schema=False))


class _OtherMethods:
    """An ASGI application; a function would be taken for a handler of GET alone."""

    def __init__(self, allow: str) -> None:
        self._allow = allow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {"Allow": self._allow}
        if scope["method"] != "OPTIONS":
            raise HTTPException(405, headers=headers)
        await Response(status_code=204, headers=headers)(scope, receive, send)


class _Missing:
    async def __call__(self, *_: object) -> None:
        raise HTTPException(404)
