"""Readers: the next study, blind, one verdict, and nothing that was typed is lost."""

from __future__ import annotations

import asyncio
import re

import pytest

from pneumoserve.ids import time_text, uuid7
from pneumoserve.names import DETECTOR, TYPER
from pneumoserve.records import Draw, View, find_record
from tests.support.consoles import VERDICT, Clinic
from tests.support.entries import request_of, use
from tests.support.reviews import PNEUMONIA, answer

# Why a study can be read: kinds of referred answers, a second reading, two releases that differ, a random check.
KINDS = ("uncertain", "type", "leg", "second", "differ", "drawn")


def study_to_read(clinic: Clinic, kind: str) -> None:
    """A study that waits for that reason."""
    if kind in {"uncertain", "type", "leg"}:
        clinic.study(kind, kind)
        return
    case_id = clinic.study(kind, "uncertain" if kind == "second" else "normal")
    case = clinic.services.cases.load(case_id)
    prediction_id = case.images[0].prediction_id
    if kind == "second":
        clinic.ward.room.claim(case_id, "r.0")
        clinic.ward.room.save_reading(case_id, "r.0", PNEUMONIA)
    elif kind == "differ":
        clinic.ward.put(request_of(find_record(clinic.ward.reader, prediction_id)), role="reading")
    else:
        drawn = Draw(
            draw_id=uuid7(),
            case_id=case_id,
            time=time_text(clinic.ward.time),
            release=case.release,
            prediction_ids=(prediction_id,),
            plan_id=uuid7(),
            stratum="normal 1",
            probability=0.1,
            key_id="0" * 64,
        )
        clinic.ward.put(drawn, role="review")


async def test_a_reader_gets_the_study_that_is_due_first_with_all_images(clinic: Clinic) -> None:
    first = clinic.study("a", "uncertain", "normal", "normal")
    clinic.study("b", "uncertain")
    reader = clinic.someone("r.1", "reader")
    place = await reader.next_study()
    assert place == f"/studies/{first}/read"
    page = (await reader.get(place)).text
    assert re.findall(r'data-url="([^"]+)"', page) == [f"/studies/{first}/images/{n}" for n in (1, 2, 3)]
    image = await reader.get(f"/studies/{first}/images/3")
    assert image.headers["content-type"] == "application/octet-stream"
    assert len(image.content) > 1000
    assert (await reader.get(f"/studies/{first}/images/4")).status_code == 404
    assert await reader.next_study() == place


async def test_without_a_study_the_first_page_says_so(clinic: Clinic) -> None:
    reader = clinic.someone("r.1", "reader")
    assert "No study waits for you" in (await reader.get(await reader.next_study())).text


async def test_nothing_shows_what_the_model_answered_nor_why_it_is_read(clinic: Clinic) -> None:
    """Studies of all kinds look alike but for their ids, numbers, times and tokens, in the page and in every header."""
    seen = set()
    for kind in KINDS:
        study_to_read(clinic, kind)
        reader = clinic.someone(f"r.{kind}", "reader")
        place = await reader.next_study()
        page, image = await reader.get(place), await reader.get(place.replace("read", "images/1"))
        for shown in (page, image):
            heads = [(k, v) for k, v in shown.headers.items() if k not in {"set-cookie", "content-length"}]
            text = re.sub(
                r"[0-9a-f]{64}|[0-9A-F]{4}-[0-9A-F]{4}|<time.*?</time>|name=\"token\" value=\"[^\"]+\"|r\.[a-z]+",
                "",
                shown.text,
            )
            seen.add((str(heads), text))
    assert len(seen) == 2
    words = " ".join(text for _, text in seen)
    for word in ("uncertain", "confidence", "refer", "0123456789ab", "disagree", "random"):
        assert word not in words.lower()


async def test_the_answer_is_shown_once_the_reading_is_saved(clinic: Clinic) -> None:
    case_id = clinic.study("a", "uncertain")
    reader = clinic.someone("r.1", "reader")
    place = await reader.next_study()
    hidden = await reader.get(f"/studies/{case_id}")
    assert (hidden.status_code, "once your own reading" in hidden.text) == (409, True)
    saved = await reader.submit(place, place, **{**VERDICT, "comment": "left base"})
    assert (saved.status_code, saved.headers["location"]) == (303, f"/studies/{case_id}")
    page = (await reader.get(f"/studies/{case_id}")).text
    assert "The model cannot tell whether there is a pneumonia" in page
    (label,) = clinic.labels(case_id)
    assert (label.author, label.finding, label.pneumonia_type) == ("r.1", "pneumonia", "viral")
    assert (label.comment, label.certainty) == ("left base", "sure")
    assert label.reading.blind
    views = [(view.by, view.page) for view in clinic.services.cases.load(case_id).of(View)]
    assert views[-1] == ("r.1", "answer")
    assert set(views[:-1]) == {("r.1", "images")}


async def test_a_type_is_shown_as_a_pattern(clinic: Clinic) -> None:
    """`type` states pneumonia; its record has the typer's score."""
    record = answer("a", "type", clinic.ward.time)
    clinic.ward.put(record.model_copy(update={"models": (use(DETECTOR, 0.9), use(TYPER, 0.34))}))
    reader = clinic.someone("r.1", "reader")
    page = await reader.get((await reader.read()).headers["location"])
    assert "Image 1: bacterial pattern 0.34, viral pattern 0.66. It is a pattern only" in page.text


async def test_who_opened_the_alert_does_not_read_blind(clinic: Clinic) -> None:
    case_id = clinic.study("a", "uncertain")
    both = clinic.someone("d.1", "reader", "practitioner")
    place = await both.next_study()
    await both.get(f"/alerts/{clinic.alert()}")
    await both.submit(place, place, **VERDICT)
    (label,) = clinic.labels(case_id)
    assert label.reading.not_blind == ("opened_alert",)


async def test_looking_at_images_alone_keeps_a_reader_blind_and_on_the_list(clinic: Clinic) -> None:
    case_id = clinic.study("a", "uncertain")
    reader = clinic.someone("r.1", "reader")
    place = await reader.next_study()
    await reader.get(place)
    clinic.ward.later(hours=1)
    assert await reader.next_study() == place
    await reader.submit(place, place, **VERDICT)
    assert clinic.labels(case_id)[0].reading.blind


async def test_of_two_verdicts_at_once_one_is_saved(clinic: Clinic) -> None:
    case_id = clinic.study("a", "uncertain")
    reader = clinic.someone("r.1", "reader")
    place = await reader.next_study()
    token = await reader.token(place)
    answers = await asyncio.gather(*(reader.post(place, data={**VERDICT, "token": token}) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [303, 409, 409, 409]
    assert len(clinic.labels(case_id)) == 1


async def test_nobody_reads_a_study_twice(clinic: Clinic) -> None:
    case_id = clinic.study("a", "uncertain")
    reader = clinic.someone("r.1", "reader")
    await reader.read()
    again = await reader.submit(f"/studies/{case_id}/claim", **VERDICT)
    assert (again.status_code, "You have read this study" in again.text) == (409, True)


async def test_a_claim_that_ran_out_keeps_what_was_typed(clinic: Clinic) -> None:
    case_id = clinic.study("a", "uncertain")
    reader = clinic.someone("r.1", "reader")
    place = await reader.next_study()
    token = await reader.token(place)
    clinic.ward.later(minutes=31)
    refused = await reader.post(place, data={**VERDICT, "comment": "a long thought", "token": token})
    assert refused.status_code == 409
    assert "a long thought" in refused.text
    assert 'value="pneumonia" required data-key="2" checked' in refused.text
    assert "<canvas" not in refused.text
    assert not clinic.labels(case_id)
    assert (await reader.get(place.replace("read", "images/1"))).status_code == 409
    again = await reader.post(
        f"/studies/{case_id}/claim", data={**VERDICT, "comment": "a long thought", "token": token}
    )
    assert (again.status_code, "a long thought" in again.text, "<canvas" in again.text) == (200, True, True)
    assert (await reader.submit(place, place, **VERDICT)).status_code == 303


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ({"comment": "<script>alert(1)</script>"}, "A comment is plain text"),
        ({"comment": "x" * 2001}, "A comment has at most 2000 characters"),
        ({"finding": "", "certainty": "sure"}, "Give a finding, or say that you cannot tell"),
        ({"finding": "leg"}, "The finding is normal or pneumonia"),
        ({"finding": "normal"}, "Only pneumonia has a type"),
        ({"certainty": ""}, "The certainty is one of"),
    ],
)
async def test_what_cannot_be_a_verdict_comes_back_as_it_was_typed(
    clinic: Clinic, typed: dict[str, str], sentence: str
) -> None:
    case_id = clinic.study("a", "uncertain")
    reader = clinic.someone("r.1", "reader")
    refused = await reader.read(**{"comment": "what I typed", **typed})
    assert (refused.status_code, sentence in refused.text) == (422, True)
    assert (typed.get("comment", "what I typed").replace("<", "&lt;").replace(">", "&gt;")) in refused.text
    assert "<script>alert" not in refused.text
    assert not clinic.labels(case_id)
    place = f"/studies/{case_id}/read"
    assert (await reader.submit(place, place, **VERDICT)).status_code == 303


async def test_a_comment_of_a_megabyte_is_refused_before_it_is_read(clinic: Clinic) -> None:
    clinic.study("a", "uncertain")
    refused = await clinic.someone("r.1", "reader").read(comment="x" * 1024 * 1024)
    assert (refused.status_code, "at most 64 KiB" in refused.text) == (413, True)


async def test_what_was_typed_stays_while_the_archive_is_down(clinic: Clinic) -> None:
    case_id = clinic.study("a", "uncertain")
    reader = clinic.someone("r.1", "reader")
    place = await reader.next_study()
    token = await reader.token(place)
    clinic.ward.fails = True
    refused = await reader.post(place, data={**VERDICT, "comment": "a long thought", "token": token})
    assert (refused.status_code, "a long thought" in refused.text, "<canvas" in refused.text) == (503, True, True)
    # Nobody sees images while their view cannot be put on record.
    assert (await reader.get(place)).status_code == 503
    clinic.ward.fails = False
    assert (await reader.post(place, data={**VERDICT, "token": token})).status_code == 303
    assert len(clinic.labels(case_id)) == 1


async def test_a_form_that_runs_in_the_page_gets_a_part_of_one(clinic: Clinic) -> None:
    """With HTMX the page stays, and says above the buttons what is wrong."""
    clinic.study("a", "uncertain")
    reader = clinic.someone("r.1", "reader")
    place = await reader.next_study()
    data = {**VERDICT, "token": await reader.token(place)}
    clinic.ward.later(minutes=31)
    refused = await reader.post(place, data=data, headers={"hx-request": "true"})
    assert (refused.status_code, "<html" in refused.text, "Claim it again" in refused.text) == (409, False, True)
    claimed = await reader.post(place.replace("read", "claim"), data=data, headers={"hx-request": "true"})
    assert (claimed.status_code, "yours again" in claimed.text) == (200, True)
    saved = await reader.post(place, data=data, headers={"hx-request": "true"})
    assert saved.headers["hx-redirect"] == place.removesuffix("/read")


async def test_a_study_that_is_given_back_goes_to_somebody_else(clinic: Clinic) -> None:
    clinic.study("a", "uncertain")
    first, second = clinic.someone("r.1", "reader"), clinic.someone("r.2", "reader")
    place = await first.next_study()
    assert await second.next_study() == "/?empty=1"
    assert (await second.get(place)).status_code == 409
    assert (await second.get(place.replace("read", "images/1"))).status_code == 409
    await first.submit(place.replace("read", "give-back"), place)
    assert await second.next_study() == place
