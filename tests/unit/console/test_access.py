"""Who may open which page: every route with every role, from the one table; sessions, forms and headers."""

from __future__ import annotations

import json
import re
import time

import pytest
from fastapi.routing import APIRoute

from pneumoserve.console import ACCESS, ROLES, Access, ConsoleSettings
from pneumoserve.console.headers import HEADERS
from pneumoserve.review import ReviewDatabase
from tests.support.consoles import VERDICT, Clinic, new_clinic
from tests.support.documents import ROOT

PLACES = {
    "case_id": lambda clinic: clinic.study("walk", "uncertain", "uncertain"),
    "link": lambda clinic: clinic.alert(),
    "number": lambda clinic: "1",
}
# Who a refusal comes from: the guard names the role that is needed.
NO_ROLE = "which you do not have"


def routes(clinic: Clinic) -> dict[str, APIRoute]:
    found = []
    for route in clinic.app.routes:
        found += [route] if isinstance(route, APIRoute) else getattr(route, "effective_candidates", lambda: [])()
    return {route.name: route for route in found if hasattr(route, "methods")}


def test_every_route_stands_in_the_table_and_nothing_else(clinic: Clinic) -> None:
    assert sorted(routes(clinic)) == sorted(ACCESS)


@pytest.mark.parametrize("role", [*ROLES, None])
async def test_each_route_is_for_the_roles_of_the_table(role: str | None, clinic: Clinic) -> None:
    filled = {name: fill(clinic) for name, fill in PLACES.items()}
    for name, route in routes(clinic).items():
        person = clinic.someone("p.1" if role else None, *([role] if role else []))
        place = route.path.format(**filled)
        if "GET" in route.methods:
            answer = await person.get(place)
        else:
            answer = await person.post(place, data={"token": await person.token()})
        access = ACCESS[name]
        assert answer.status_code != 500, name
        if role is None and not access.unsigned:
            assert (answer.status_code, name) in {(303, name), (401, name)}
            assert answer.status_code == 401 or answer.headers["location"].startswith("/sign-in?next=")
        else:
            refused = answer.status_code == 403 and NO_ROLE in answer.text
            assert refused == (role is not None and role not in access.roles), (name, role, answer.status_code)


def test_the_page_on_roles_has_the_table() -> None:
    text = (ROOT / "docs" / "reference" / "console-roles.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text, re.MULTILINE)
    assert dict(rows) == {name: who(access) for name, access in ACCESS.items()}


def who(access: Access) -> str:
    if access.roles == set(ROLES):
        return "anybody" if access.unsigned else "every role"
    unsigned = ", or nobody signed in" if access.unsigned else ""
    return ", ".join(role for role in ROLES if role in access.roles) + unsigned


async def test_a_practitioner_is_no_reader_of_their_study(clinic: Clinic) -> None:
    case_id = clinic.study("a", "uncertain")
    both = clinic.someone("d.1", "practitioner", "reader")
    link = clinic.alert()
    await both.submit(f"/alerts/{link}/order", ordered="blood_test")
    assert await both.next_study() == "/?empty=1"
    refused = await both.submit(f"/studies/{case_id}/claim", **VERDICT)
    assert (refused.status_code, "You are the practitioner of this study" in refused.text) == (409, True)


async def test_a_reader_sees_no_image_of_a_study_that_is_not_theirs(clinic: Clinic) -> None:
    case_id = clinic.study("a", "uncertain")
    answer = await clinic.someone("r.1", "reader").get(f"/studies/{case_id}/images/1")
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (409, "text/html")


async def test_an_auditor_sees_records_without_images(clinic: Clinic) -> None:
    case_id = clinic.study("a", "uncertain")
    auditor = clinic.someone("a.1", "auditor")
    page = (await auditor.get(f"/studies/{case_id}")).text
    assert ("records without images" in page, "<canvas" in page) == (True, False)
    assert (await auditor.get(f"/studies/{case_id}/images/1")).status_code == 403
    assert '"prediction_id"' in (await auditor.get(f"/studies/{case_id}/records/1")).text.replace("&#34;", '"')


# --- sessions


async def test_a_session_that_nobody_used_ends(clinic: Clinic) -> None:
    now = int(time.time())
    for session, alive in (
        ({"since": now - 60, "seen": now - 60}, True),
        ({"since": now - 3600, "seen": now - 31 * 60}, False),
        ({"since": now - 13 * 3600, "seen": now - 60}, False),
    ):
        person = clinic.someone()
        person.sign_in({"name": "r.1", "roles": ["reader"], **session})
        assert (await person.get("/")).status_code == (200 if alive else 303)


async def test_a_page_that_asks_anew_by_itself_keeps_no_session_alive(clinic: Clinic) -> None:
    now = int(time.time())
    person = clinic.someone()
    person.sign_in({"name": "l.1", "roles": ["lead"], "since": now - 900, "seen": now - 900})
    asked = await person.get("/overview/numbers", headers={"hx-request": "true"})
    assert (asked.status_code, "set-cookie" in asked.headers) == (200, False)
    assert "set-cookie" in (await person.get("/overview")).headers


async def test_what_is_sent_after_a_session_ended_is_not_saved_and_stays_good(clinic: Clinic) -> None:
    """Somebody signs in again in another window, and sends the page that they had open."""
    case_id = clinic.study("a", "uncertain")
    reader = clinic.someone("r.1", "reader")
    place = await reader.next_study()
    data = {**VERDICT, "token": await reader.token(place)}
    reader.cookies.clear()
    refused = await reader.post(place, data=data)
    assert (refused.status_code, "nothing was saved" in refused.text) == (401, True)
    again = clinic.someone("r.1", "reader")
    assert (await again.post(place, data=data)).status_code == 303
    assert len(clinic.labels(case_id)) == 1


@pytest.mark.parametrize("cookie", ["", "x", "eyJuYW1lIjogInIuMSJ9.aaaa.bbbb"])
async def test_a_cookie_of_ones_own_making_is_nothing(cookie: str, clinic: Clinic) -> None:
    person = clinic.someone()
    person.cookies.set("console", cookie, domain="127.0.0.1")
    assert (await person.get("/")).status_code == 303


async def test_the_cookie_is_for_this_console_alone(clinic: Clinic) -> None:
    answer = await clinic.someone().get("/sign-in")
    assert "httponly; samesite=lax" in answer.headers["set-cookie"]
    assert answer.headers["location"] == "/"


@pytest.mark.parametrize("next_page", ["https://elsewhere.example", "//elsewhere.example", "/\\elsewhere.example", "x"])
async def test_signing_in_leads_to_no_other_place(next_page: str, clinic: Clinic) -> None:
    answer = await clinic.someone().get("/sign-in", params={"next": next_page})
    assert answer.headers["location"] == "/"


async def test_signing_out_ends_the_session(clinic: Clinic) -> None:
    person = clinic.someone("r.1", "reader")
    assert (await person.submit("/sign-out")).status_code == 200
    assert (await person.get("/")).status_code == 303


# --- forms


@pytest.mark.parametrize(
    ("data", "headers", "status"),
    [
        ({"other": "x"}, {}, 403),
        ({"token": "x"}, {}, 403),
        ({"token": "other"}, {}, 403),
        ({"token": "mine"}, {"sec-fetch-site": "cross-site"}, 403),
        ({"token": "mine"}, {"sec-fetch-site": "same-site"}, 403),
        ({"token": "mine"}, {"content-type": "text/plain"}, 400),
        ({"token": "mine"}, {"content-type": "multipart/form-data; boundary=x"}, 400),
        ({"token": "mine"}, {}, 303),
    ],
)
async def test_a_form_of_another_page_is_refused(
    data: dict[str, str], headers: dict[str, str], status: int, clinic: Clinic
) -> None:
    clinic.study("a", "uncertain")
    reader = clinic.someone("r.1", "reader")
    tokens = {"mine": await reader.token(), "other": await clinic.someone("r.2", "reader").token()}
    sent = {name: tokens.get(value, value) for name, value in data.items()}
    answer = await reader.post("/studies/next", data=sent, headers=headers)
    assert answer.status_code == status


# --- what every answer has


@pytest.mark.parametrize("place", ["/", "/nowhere", "/static/console.css", "/health", "/studies/x/read"])
async def test_every_answer_has_the_headers(place: str, clinic: Clinic) -> None:
    answer = await clinic.someone("r.1", "reader").get(place)
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS


async def test_a_fault_of_ours_is_a_page_that_tells_nothing(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("Mustermann")

    monkeypatch.setattr(clinic.services.cases, "count", fail)
    answer = await clinic.someone("r.1", "reader").get("/")
    assert (answer.status_code, "it is in the console" in answer.text) == (500, True)
    assert "Mustermann" not in answer.text
    assert answer.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]


async def test_pages_hold_no_script_and_no_style_of_their_own(clinic: Clinic) -> None:
    for file in (ROOT / "pneumoserve" / "console" / "templates").iterdir():
        text = file.read_text()
        assert not re.search(r"<script(?! src=)|<style| style=| on[a-z]+=|javascript:|\|safe", text), file.name


async def test_a_name_that_is_not_ours_is_refused(clinic: Clinic) -> None:
    """A page elsewhere whose name leads to loopback is no page of ours."""
    answer = await clinic.someone("r.1", "reader").get("/", headers={"host": "elsewhere.example"})
    assert answer.status_code == 400


async def test_ready_says_whether_the_database_holds_what_the_archive_says(clinic: Clinic) -> None:
    anybody = clinic.someone()
    answer = await anybody.get("/ready")
    assert (answer.status_code, "being made from the archive" in answer.text) == (503, True)
    clinic.ward.database.follow(clinic.ward.reader)
    assert (await anybody.get("/ready")).status_code == 200
    with clinic.ward.database.write() as connection:
        connection.exec_driver_sql("drop table positions")
    assert (await anybody.get("/ready")).status_code == 503


async def test_health_says_whether_the_database_answers(clinic: Clinic, tmp_path: object) -> None:
    anybody = clinic.someone()
    assert json.loads((await anybody.get("/health")).content) == {"status": "ok"}
    with clinic.ward.database.write() as connection:
        connection.exec_driver_sql("drop table outbox")
    assert (await anybody.get("/health")).status_code == 503
    page = await clinic.someone("r.1", "reader").get("/")
    assert (page.status_code, "The review database does not answer" in page.text) == (503, True)


# --- settings


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "console.example", "::"])
def test_without_sign_in_it_listens_on_loopback_alone(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ConsoleSettings.from_flags([f"--host={host}"])
    assert "listens on loopback alone" in capsys.readouterr().err
    flags = [
        f"--host={host}",
        "--oidc-issuer=https://id.example",
        "--oidc-client-id=c",
        "--oidc-client-secret=s",
        "--url=https://c.example",
    ]
    assert ConsoleSettings.from_flags(flags).secure


def test_sign_in_needs_an_address(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ConsoleSettings.from_flags(["--oidc-issuer=https://id.example"])
    assert "--oidc-client-id, the file --oidc-client-secret, and --url" in capsys.readouterr().err


async def test_by_https_the_cookie_is_for_https(tmp_path: object) -> None:
    made = new_clinic(tmp_path, "--url=https://127.0.0.1")
    answer = await made.someone().get("/sign-in")
    assert answer.headers["set-cookie"].startswith("__Host-console=")
    assert "; secure" in answer.headers["set-cookie"]
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    made.ward.database.close()
    assert isinstance(made.ward.database, ReviewDatabase)
