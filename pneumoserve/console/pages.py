"""Pages made of templates, and what they say where something cannot be done."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse

from pneumoserve.alerts import ADVICE, WHY
from pneumoserve.console.headers import HEADERS
from pneumoserve.console.heat_maps import HeatMapBusyError, HeatMapError
from pneumoserve.console.words import WORDS
from pneumoserve.errors import PneumoserveError
from pneumoserve.imaging import ImageError
from pneumoserve.imaging.pool import NotDecodedError
from pneumoserve.local.answers import describe_confidence
from pneumoserve.review import ClaimError, DatabaseError, ReviewError, VerdictError, study_number
from pneumoserve.store import NotFoundError, StoreError

_TEMPLATES: Final = Environment(
    loader=PackageLoader("pneumoserve.console"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals.update(
    {
        "words": WORDS,
        "why": WHY,
        "advice": ADVICE,
        "describe_confidence": describe_confidence,
        "study_number": study_number,
    }
)
_STATUS: Final[dict[type[PneumoserveError], int]] = {
    VerdictError: 422,
    ClaimError: 409,
    DatabaseError: 503,
    ReviewError: 404,
    HeatMapBusyError: 503,
    HeatMapError: 404,
    NotFoundError: 404,
    StoreError: 503,
    # It was not tried, and may be tried again; any other image was decoded once, when it was answered.
    NotDecodedError: 503,
    ImageError: 500,
}
_GONE: Final = "The store no longer has this image; tell whoever runs the archive."
_STORE: Final = (
    "The archive did not answer, and nothing was saved. What you typed is still there; try again in a moment."
)
_BUSY: Final = "The console is busy with other images; try again in a moment."
_RETRY_SECONDS: Final = 2
_FAULT: Final = "Something went wrong here, and it is in the console's log. Nothing was saved; try again."

_log = logging.getLogger(__name__)


def show(request: Request, template: str, status: int = 200, **context: Any) -> HTMLResponse:
    """A page, with who looks at it and the token of its forms."""
    common = {
        "person": getattr(request.state, "person", None),
        "token": request.app.state.tokens.make(request),
        "local": request.app.state.settings.oidc_issuer is None,
    }
    return HTMLResponse(_TEMPLATES.get_template(template).render(**common, **context), status)


def go(request: Request, place: str) -> Response:
    """Send the browser to another page: what a form did is not done again when that is loaded anew."""
    if "hx-request" in request.headers:
        return Response(status_code=204, headers={"HX-Redirect": place})
    return RedirectResponse(place, 303)


def status_of(error: PneumoserveError) -> int:
    """The HTTP status that an error has."""
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)


def sentence_of(error: PneumoserveError) -> str:
    """What a page says of an error."""
    if isinstance(error, NotFoundError):
        return _GONE
    if isinstance(error, NotDecodedError):
        return _BUSY
    return _STORE if isinstance(error, StoreError) else str(error)


def show_problem(request: Request, status: int, sentence: str) -> HTMLResponse:
    """A page, or the part of one that a form asked for, that says what is wrong and what to do."""
    title = HTTPStatus(status).phrase
    template = "part_problem.html" if "hx-request" in request.headers else "problem.html"
    page = show(request, template, status, title=title, sentence=sentence)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        page.headers["Retry-After"] = str(_RETRY_SECONDS)
    return page


def explain_errors(app: FastAPI) -> None:
    """Have every error end in a page."""

    def explain_ours(request: Request, error: Exception) -> Response:
        if not isinstance(error, PneumoserveError):
            raise error
        status = status_of(error)
        if status >= 500:
            _log.error("%s was not shown (%s)", request.scope["route"].name, type(error).__name__)
        return show_problem(request, status, sentence_of(error))

    def explain_http(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        if error.headers is not None and "Location" in error.headers:
            return RedirectResponse(error.headers["Location"], error.status_code)
        sentence = "There is no such page; go back to the beginning." if error.status_code == 404 else error.detail
        return show_problem(request, error.status_code, sentence)

    def explain_form(request: Request, _: Exception) -> Response:
        return show_problem(request, 404, "There is no such page; go back to the beginning.")

    def explain_fault(request: Request, _: Exception) -> Response:
        # Nothing stands between this and the browser that would add them.
        answer = show_problem(request, 500, _FAULT)
        answer.headers.update(HEADERS)
        return answer

    app.add_exception_handler(PneumoserveError, explain_ours)
    app.add_exception_handler(HTTPException, explain_http)
    app.add_exception_handler(RequestValidationError, explain_form)
    app.add_exception_handler(Exception, explain_fault)
