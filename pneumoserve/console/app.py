"""The application: routes behind one guard, headers on every answer, sessions, errors as pages."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse
from starlette.staticfiles import StaticFiles

from pneumoserve.console import drift, figures, oversight, practice, reading, signing_in
from pneumoserve.console.access import guard
from pneumoserve.console.headers import AddHeaders
from pneumoserve.console.metrics import CountRequests
from pneumoserve.console.pages import explain_errors
from pneumoserve.console.services import Estimator, Follower, Services
from pneumoserve.console.session import FormTokens, LimitBody, check_form
from pneumoserve.console.settings import ConsoleError, ConsoleSettings
from pneumoserve.review import DatabaseError
from pneumoserve.signing import SHORTEST_SECRET, read_secret

_STATIC: Final = Path(__file__).parent / "static"

health = APIRouter()


@health.get("/health")
def show_health(request: Request) -> Response:
    """Whether pages can be shown: 200, or 503 where the database does not answer."""
    services: Services = request.app.state.services
    try:
        services.database.check()
    except DatabaseError:
        return JSONResponse({"status": "the review database does not answer"}, 503)
    return JSONResponse({"status": "ok"})


@health.get("/ready")
def show_readiness(request: Request) -> Response:
    """Whether pages show what the archive says: 200, or 503 where the database is empty yet or does not answer."""
    services: Services = request.app.state.services
    try:
        filled = services.database.is_filled()
    except DatabaseError:
        return JSONResponse({"status": "the review database does not answer"}, 503)
    if not filled:
        return JSONResponse({"status": "the review database is being made from the archive"}, 503)
    return JSONResponse({"status": "ok"})


def create_app(settings: ConsoleSettings, services: Services) -> FastAPI:
    """The console as an application; while it runs it follows the archive.

    Raises:
        ConsoleError: a key or secret cannot be read.
    """

    @contextlib.asynccontextmanager
    async def follow(_: FastAPI) -> AsyncIterator[None]:
        with Follower(services), Estimator(services):
            yield

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=follow)
    key = _session_key(settings)
    app.state.settings, app.state.services = settings, services
    app.state.tokens, app.state.provider = FormTokens(key), signing_in.provider_of(settings)
    pages = (signing_in, reading, practice, oversight, figures, drift)
    for router in (health, *(each.router for each in pages)):
        app.include_router(router, dependencies=[Depends(guard), Depends(check_form)])
    app.mount("/static", StaticFiles(directory=_STATIC))
    explain_errors(app)
    # The last one added is the first that a request meets.
    app.add_middleware(LimitBody)
    app.add_middleware(
        SessionMiddleware,
        secret_key=key.hex(),
        session_cookie="__Host-console" if settings.secure else "console",
        max_age=None,
        https_only=settings.secure,
    )
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=settings.host_names)
    app.add_middleware(AddHeaders, secure=settings.secure)
    app.add_middleware(CountRequests)

    return app


def _session_key(settings: ConsoleSettings) -> bytes:
    """The key of sessions: a file's where several consoles share it, else one that ends with this process."""
    if settings.session_key is None:
        return secrets.token_bytes(SHORTEST_SECRET)
    key = read_secret(settings.session_key)
    if key is None:
        raise ConsoleError(f"The file of --session-key must hold at least {SHORTEST_SECRET} random bytes.")
    return key
