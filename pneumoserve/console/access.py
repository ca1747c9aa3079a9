"""Who may open which page: one table, and the guard that reads it for every route."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args
from urllib.parse import urlencode

from fastapi import HTTPException, Request

from pneumoserve.console.session import Person, read_person

Role = Literal["practitioner", "reader", "lead", "auditor", "admin"]
ROLES: Final = get_args(Role)


@dataclass(frozen=True)
class Access:
    """The roles that may; `unsigned`: so may somebody who has not signed in."""

    roles: frozenset[Role]
    unsigned: bool = False


def _for(*roles: Role, unsigned: bool = False) -> Access:
    return Access(frozenset(roles), unsigned)


_ALL: Final = Access(frozenset(ROLES))
_ANYBODY: Final = Access(frozenset(ROLES), unsigned=True)
_CLINICAL: Final = _for("practitioner", "reader", "lead")
_OF_CASE: Final = _for("practitioner", "reader", "lead", "auditor")
_OVERSIGHT: Final = _for("lead", "auditor")

# By the route's name. A page may ask for more, such as that a study is claimed by this very reader.
ACCESS: Final[dict[str, Access]] = {
    "show_health": _ANYBODY,
    "show_readiness": _ANYBODY,
    "sign_in": _ANYBODY,
    "finish_sign_in": _ANYBODY,
    "sign_out": _ANYBODY,
    "show_home": _ALL,
    "list_alerts": _for("practitioner"),
    "show_alert": _for("practitioner", unsigned=True),
    "acknowledge_alert": _for("practitioner", unsigned=True),
    "order": _for("practitioner"),
    "take_next_study": _for("reader"),
    "claim_study": _for("reader"),
    "give_study_back": _for("reader"),
    "show_study": _for("reader"),
    "save_reading": _for("reader"),
    "show_image": _CLINICAL,
    "find_study": _OVERSIGHT,
    "show_case": _OF_CASE,
    "show_heat_map": _CLINICAL,
    "show_record": _OF_CASE,
    "show_lineage": _OF_CASE,
    "ask_to_break_glass": _CLINICAL,
    "break_glass": _CLINICAL,
    "list_adjudications": _for("lead"),
    "show_adjudication": _for("lead"),
    "adjudicate": _for("lead"),
    "show_overview": _OVERSIGHT,
    "show_numbers": _OVERSIGHT,
    "show_figures": _OVERSIGHT,
    "show_drift": _OVERSIGHT,
    "list_incidents": _OVERSIGHT,
    "ask_for_incident": _CLINICAL,
    "report_incident": _CLINICAL,
    "confirm_incident": _CLINICAL,
}


async def guard(request: Request) -> None:
    """Let a request through to its route, or refuse it; every route has this before it.

    Raises:
        HTTPException: 303 to the sign-in, 401 where something was sent, 403 where the person has no such role.
    """
    # A route that nobody entered is for nobody.
    access = ACCESS.get(request.scope["route"].name, Access(frozenset()))
    person = read_person(request)
    request.state.person = person
    if person is None:
        if access.unsigned:
            return
        if request.method == "GET" and "hx-request" not in request.headers:
            place = "/sign-in?" + urlencode({"next": request.url.path})
            raise HTTPException(303, headers={"Location": place})
        raise HTTPException(
            401,
            "Your session has ended, and nothing was saved. Sign in again in another window, then send this page "
            "once more: what you typed is still in it.",
        )
    # Routes for anybody are for people without a role too: they can read why they see nothing, and sign out.
    if access is _ANYBODY or access.roles & person.roles:
        return
    needed = " or ".join(sorted(access.roles))
    raise HTTPException(403, f"This page is for the role {needed}, which you do not have; ask whoever gives roles.")


def person_of(request: Request) -> Person:
    """Who asks; there is somebody wherever the table lets nobody in unsigned.

    Raises:
        HTTPException: 401, nobody has signed in.
    """
    person: Person | None = request.state.person
    if person is None:
        raise HTTPException(401, "Sign in first; nothing was saved.")
    return person
