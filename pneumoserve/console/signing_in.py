"""Signing people in: by OpenID Connect, or as the one built-in user of a console on loopback."""

from __future__ import annotations

import re
import warnings
from typing import Any, Final

import httpx
from authlib.deprecate import AuthlibDeprecationWarning
from fastapi import APIRouter, HTTPException, Request, Response
from joserfc.errors import JoseError
from starlette.responses import RedirectResponse

from pneumoserve.console.access import ROLES
from pneumoserve.console.pages import go, show
from pneumoserve.console.session import Person, start_session
from pneumoserve.console.settings import ConsoleError, ConsoleSettings
from pneumoserve.review import VerdictError, check_name

with warnings.catch_warnings():
    # Authlib would rather have a second httpx, and says so to whoever starts the console.
    warnings.simplefilter("ignore", AuthlibDeprecationWarning)
    from authlib.integrations.base_client import OAuthError
    from authlib.integrations.starlette_client import OAuth

# The built-in user has all roles that need no accounts.
_LOCAL: Final = Person("local", frozenset(ROLES) - {"admin"})
_AWAY: Final = "The sign-in provider does not answer; try again in a moment, or tell whoever runs it."

router = APIRouter()


def provider_of(settings: ConsoleSettings) -> Any:
    """The client of the sign-in provider; None for a console without one. It asks the provider nothing yet.

    Raises:
        ConsoleError: the client's secret cannot be read.
    """
    if settings.oidc_issuer is None or settings.oidc_client_secret is None:
        return None
    try:
        secret = settings.oidc_client_secret.read_text().strip()
    except OSError:
        raise ConsoleError("The file of --oidc-client-secret cannot be read; see that it is there.") from None
    return OAuth().register(
        "provider",
        client_id=settings.oidc_client_id,
        client_secret=secret,
        server_metadata_url=f"{settings.oidc_issuer.rstrip('/')}/.well-known/openid-configuration",
        client_kwargs={
            "scope": settings.oidc_scopes,
            "code_challenge_method": "S256",
            "timeout": 10,
        },
    )


@router.get("/sign-in")
async def sign_in(request: Request, next: str = "/") -> Response:  # noqa: A002 - the name in the URL
    """Begin to sign in; afterwards the browser goes to `next`, a page of ours."""
    settings: ConsoleSettings = request.app.state.settings
    place = _own(next)
    if settings.oidc_issuer is None:
        start_session(request, _LOCAL)
        return RedirectResponse(place, 303)
    request.session["next"] = place
    back = f"{settings.url.rstrip('/')}/sign-in/done"
    try:
        answer: Response = await request.app.state.provider.authorize_redirect(request, back)
    except (httpx.HTTPError, OAuthError, ValueError, KeyError, RuntimeError):
        raise HTTPException(503, _AWAY) from None
    return answer


@router.get("/sign-in/done")
async def finish_sign_in(request: Request) -> Response:
    """Take what the provider says of the person."""
    settings: ConsoleSettings = request.app.state.settings
    if settings.oidc_issuer is None:
        return RedirectResponse("/", 303)
    place = _own(request.session.get("next", "/"))
    try:
        token = await request.app.state.provider.authorize_access_token(request)
    except (OAuthError, JoseError, ValueError, KeyError):
        raise HTTPException(403, "The provider did not sign you in; begin again from the first page.") from None
    except httpx.HTTPError:
        raise HTTPException(503, _AWAY) from None
    start_session(request, _person_of(token.get("userinfo") or {}, settings))
    return RedirectResponse(place, 303)


@router.post("/sign-out")
def sign_out(request: Request) -> Response:
    """End the session here; the provider may still know the person."""
    request.session.clear()
    request.state.person = None
    return show(request, "signed_out.html") if "hx-request" not in request.headers else go(request, "/")


def _person_of(claims: dict[str, Any], settings: ConsoleSettings) -> Person:
    name = str(claims.get(settings.oidc_name_claim, ""))
    try:
        check_name(name)
    except VerdictError:
        raise HTTPException(
            403,
            "The provider gives you no name that records can hold: up to 64 letters, digits and . _ @ -. "
            "Whoever runs the console can choose another claim by --oidc-name-claim.",
        ) from None
    stated = _find_claim(claims, settings.oidc_roles_claim)
    given = [stated] if isinstance(stated, str) else stated if isinstance(stated, list) else []
    return Person(name, frozenset(settings.oidc_roles[role] for role in given if role in settings.oidc_roles))


def _find_claim(claims: dict[str, Any], name: str) -> Any:
    """A claim of this name, or where the name has dots, one inside of others: `realm_access.roles`."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _own(place: str) -> str:
    """A place on this console: the path that was asked for, or the first page where it leads elsewhere."""
    return place if re.fullmatch(r"/(?![/\\])[!-~]*", place) and "\\" not in place else "/"
