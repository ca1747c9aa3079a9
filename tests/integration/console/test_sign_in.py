"""Signing in by a real provider: authorization code with PKCE, names and roles from claims, and what can go wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.support.consoles import Browser, Clinic, new_clinic
from tests.support.provider import running_provider

URL = "http://127.0.0.1:8090"


def flags(folder: Path, issuer: str, *more: str) -> list[str]:
    secret = folder / "secret"
    secret.write_text("the provider takes any")
    client = ("--oidc-client-id=console", f"--oidc-client-secret={secret}")
    return [f"--oidc-issuer={issuer}", *client, f"--url={URL}", *more]


@pytest.fixture
def clinic(tmp_path: Path, provider: str) -> Iterator[Clinic]:
    made = new_clinic(tmp_path, *flags(tmp_path, provider))
    yield made
    made.ward.database.close()


async def begin(person: Browser, page: str = "/") -> httpx.URL:
    """Where the provider asks who it is."""
    first = await person.get(page)
    assert first.status_code == 303, first.text
    assert (first.status_code, first.headers["location"]) == (303, f"/sign-in?next={page.replace('/', '%2F')}")
    asked = await person.get(first.headers["location"])
    assert asked.status_code == 302, asked.text
    return httpx.URL(asked.headers["location"])


async def come_back(person: Browser, at: httpx.URL, **form: str) -> httpx.Response:
    """Say who it is, and follow the provider's answer to the console."""
    async with httpx.AsyncClient() as outside:
        said = await outside.post(at, data=form)
    back = urlsplit(said.headers["location"])
    assert f"{back.scheme}://{back.netloc}" == URL
    return await person.get(f"{back.path}?{back.query}")


async def test_a_person_signs_in_and_has_the_roles_of_the_claim(clinic: Clinic) -> None:
    person = clinic.someone()
    at = await begin(person, "/overview")
    asked = parse_qs(at.query.decode())
    assert asked["response_type"] == ["code"]
    assert asked["code_challenge_method"] == ["S256"]
    assert len(asked["code_challenge"][0]) == 43
    assert {"state", "nonce"} <= asked.keys()
    done = await come_back(person, at, sub="l.1")
    assert (done.status_code, done.headers["location"]) == (303, "/overview")
    assert (await person.get("/overview")).status_code == 200
    assert (await person.submit("/studies/next")).status_code == 403
    out = await person.submit("/sign-out")
    assert "You are signed out" in out.text
    assert (await person.get("/overview")).status_code == 303


async def test_a_person_without_a_role_is_told_so(clinic: Clinic) -> None:
    person = clinic.someone()
    await come_back(person, await begin(person), sub="nobody")
    answer = await person.get("/")
    assert (answer.status_code, "ask whoever gives roles" in answer.text) == (403, True)


async def test_a_person_who_says_no_is_not_signed_in(clinic: Clinic) -> None:
    person = clinic.someone()
    answer = await come_back(person, await begin(person), action="deny")
    assert (answer.status_code, "did not sign you in" in answer.text) == (403, True)
    assert (await person.get("/")).status_code == 303


async def test_a_name_that_no_record_holds_is_refused(clinic: Clinic) -> None:
    person = clinic.someone()
    answer = await come_back(person, await begin(person), sub="a|b c")
    assert (answer.status_code, "--oidc-name-claim" in answer.text) == (403, True)


@pytest.mark.parametrize("query", ["code=x&state=made-up", "", "error=access_denied", "state=x"])
async def test_an_answer_that_nobody_asked_for_signs_nobody_in(query: str, clinic: Clinic) -> None:
    person = clinic.someone()
    await begin(person)
    answer = await person.get(f"/sign-in/done?{query}")
    assert (answer.status_code, "did not sign you in" in answer.text) == (403, True)
    assert (await person.get("/")).status_code == 303


async def test_an_answer_counts_in_the_browser_that_asked_alone(clinic: Clinic) -> None:
    victim, other = clinic.someone(), clinic.someone()
    at = await begin(other)
    answer = await come_back(victim, at, sub="l.1")
    assert answer.status_code == 403


async def test_roles_may_stand_inside_another_claim_by_other_names(tmp_path: Path, provider: str) -> None:
    roles = ('--oidc-roles={"xray-readers": "reader"}', "--oidc-roles-claim=realm_access.roles")
    made = new_clinic(tmp_path, *flags(tmp_path, provider, *roles))
    person = made.someone()
    await come_back(person, await begin(person), sub="realm")
    assert "Next study" in (await person.get("/")).text
    assert (await person.get("/overview")).status_code == 403
    made.ward.database.close()


async def test_while_the_provider_is_down_nobody_signs_in_and_sessions_go_on(tmp_path: Path) -> None:
    with running_provider(tmp_path / "log") as (issuer, process):
        made = new_clinic(tmp_path, *flags(tmp_path, issuer))
        inside, late, outside = made.someone(), made.someone(), made.someone()
        await come_back(inside, await begin(inside), sub="l.1")
        at = await begin(late)
        async with httpx.AsyncClient() as browser:
            back = urlsplit((await browser.post(at, data={"sub": "l.1"})).headers["location"])
        process.kill()
        process.wait()
        answer = await late.get(f"{back.path}?{back.query}")
        assert (answer.status_code, "does not answer" in answer.text) == (503, True)
        assert (await inside.get("/overview")).status_code == 200
        # What the provider said of itself is known already; a console that starts now knows nothing.
        again = new_clinic(tmp_path, *flags(tmp_path, issuer))
        outside = again.someone()
        answer = await outside.get("/sign-in")
        assert (answer.status_code, "does not answer" in answer.text) == (503, True)
        for each in (made, again):
            each.ward.database.close()
