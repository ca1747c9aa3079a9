"""Who has signed in, in a signed cookie; tokens that show that a form comes from a page of ours; a body's limit."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from fastapi import HTTPException, Request
from itsdangerous import BadSignature, URLSafeTimedSerializer

# However busy somebody is: after a working day they sign in again.
_LONGEST_SECONDS: Final = 12 * 3600
# So often is a session that is used written anew.
_RENEWED_SECONDS: Final = 60
# A comment of 2,000 characters, each as long as it can be in a form, with room for the rest.
MOST_BYTES: Final = 64 * 1024
_GLASS_SECONDS: Final = 1800


@dataclass(frozen=True)
class Person:
    """Somebody who has signed in, and what they may."""

    name: str
    roles: frozenset[str]


def start_session(request: Request, person: Person) -> None:
    """Begin a session in the place of whatever there was."""
    now = int(time.time())
    request.session.clear()
    request.session.update({"name": person.name, "roles": sorted(person.roles), "since": now, "seen": now})


def read_person(request: Request) -> Person | None:
    """Who has signed in; None where nobody has, or their time has run out."""
    session, now = request.session, int(time.time())
    if "name" not in session:
        return None
    idle = 60 * request.app.state.settings.session_minutes
    if now - session["seen"] > idle or now - session["since"] > _LONGEST_SECONDS:
        session.clear()
        return None
    # A page that asks anew by itself is nobody at work.
    by_itself = request.method == "GET" and "hx-request" in request.headers
    if now - session["seen"] > _RENEWED_SECONDS and not by_itself:
        session["seen"] = now
    return Person(session["name"], frozenset(session["roles"]))


def let_see(request: Request, case_id: str) -> None:
    """Let a person see a study for half an hour that they stated a reason for."""
    glass = {case: until for case, until in request.session.get("glass", {}).items() if until > time.time()}
    request.session["glass"] = {**glass, case_id: int(time.time()) + _GLASS_SECONDS}


def may_see(request: Request, case_id: str) -> bool:
    """Whether the person stated a reason for seeing this study within the last half hour."""
    return bool(request.session.get("glass", {}).get(case_id, 0) > time.time())


class FormTokens:
    """Tokens of forms, each for one person, or for one visitor who has not signed in; good for twelve hours.

    A person who signs in anew can still send the page that they had open before.
    """

    def __init__(self, key: bytes) -> None:
        self._serializer = URLSafeTimedSerializer(key, salt="form")

    def make(self, request: Request) -> str:
        """The token for a page's forms."""
        return str(self._serializer.dumps(self._subject(request)))

    def holds(self, request: Request, token: str) -> bool:
        """Whether a token was made for whoever sends it."""
        try:
            return bool(self._serializer.loads(token, max_age=_LONGEST_SECONDS) == self._subject(request))
        except BadSignature:
            return False

    def _subject(self, request: Request) -> list[str]:
        if "name" in request.session:
            return ["person", request.session["name"]]
        if "visitor" not in request.session:
            request.session["visitor"] = secrets.token_urlsafe(16)
        return ["visitor", request.session["visitor"]]


async def check_form(request: Request) -> None:
    """See that what is sent comes from a form on one of our pages; every route has this before it.

    Raises:
        HTTPException: 403 for any other page, 400 for what is no form.
    """
    if request.method != "POST":
        return
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise HTTPException(403, "Another site sent this form, so nothing was saved; use the console's own pages.")
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(400, "This is not a form of the console; use the console's own pages.")
    request.state.form = await request.form()
    tokens: FormTokens = request.app.state.tokens
    if not tokens.holds(request, text_of(request, "token")):
        raise HTTPException(
            403, "This page is too old, or is another person's; nothing was saved. Open it again, and send it anew."
        )


def text_of(request: Request, name: str) -> str:
    """A field of the form that was sent, empty where there is none; line ends as everywhere else."""
    value = request.state.form.get(name)
    return value.replace("\r\n", "\n").strip() if isinstance(value, str) else ""


class LimitBody:
    """Refuses bodies that are larger than any form of ours, before they are read."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        taken = 0

        async def receive_part() -> Any:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MOST_BYTES:
                raise HTTPException(413, f"A form has at most {MOST_BYTES // 1024} KiB; shorten what you typed.")
            return message

        await self._app(scope, receive_part, send)
