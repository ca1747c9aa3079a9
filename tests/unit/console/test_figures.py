"""The page of metrics: figures with intervals and pictures, and what it says where there is nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.consoles import Clinic, new_clinic
from tests.support.metrics import read_ward

PLACE = "/overview/metrics"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    made = new_clinic(tmp_path_factory.mktemp("clinic"))
    read_ward(made.ward, capacity=500)
    made.ward.later(days=30)
    yield made
    made.ward.database.close()


async def test_it_shows_figures_with_intervals_and_says_at_which_prevalence(done: Clinic) -> None:
    for role in ("lead", "auditor"):
        answer = await done.someone("x.1", role).get(PLACE, params={"prevalence": "0.01"})
        assert answer.status_code == 200
        page = answer.text
        row = re.search(r'<th scope="row">Sensitivity, product</th><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>', page)
        assert row is not None
        assert row[1].startswith("92.2 % (74.")
        assert row.group(2, 3) == ("92.0 to 92.3 %", "92.0 %")
        assert "hold at the observed prevalence: 14.7 % (" in page
        assert "<h3>At a prevalence of 1 %</h3>" in page
        assert "174 studies count: 30 referred" in page
        assert "to one reader of sensitivity .90" in page
        # Nobody has the release, so nobody knows its threshold.
        assert "no number: the release&#39;s threshold is not known<" in page
        # The pictures: an interval of each share at either prevalence, and the PPV's curve.
        assert page.count('class="range"') == page.count('class="value"') > 10
        assert "<polyline" in page
        assert "asked for" in page


async def test_nothing_of_it_is_inline_style_or_script(done: Clinic) -> None:
    page = (await done.someone("l.1", "lead").get(PLACE)).text
    assert not re.search(r"\sstyle=|<style|\son\w+=|<script(?! src=)", page)


async def test_an_interval_lies_where_its_figure_is(done: Clinic) -> None:
    page = (await done.someone("l.1", "lead").get(PLACE)).text
    line = re.search(
        r">Referral rate</text>\s*<line class=\"range\" x1=\"([\d.]+)\" y1=\"[\d.]+\" x2=\"([\d.]+)\"", page
    )
    shown = re.search(r"Referral rate</th><td>([\d.]+) % \(([\d.]+) to ([\d.]+) %\)", page)
    assert line is not None
    assert shown is not None
    assert [240 + 4.4 * float(shown[n]) for n in (2, 3)] == pytest.approx([float(line[n]) for n in (1, 2)], abs=0.5)


@pytest.mark.parametrize(
    ("asked", "status", "sentence"),
    [
        ({"prevalence": "0"}, 422, "between 0 and 1"),
        ({"prevalence": "2"}, 422, "between 0 and 1"),
        ({"prevalence": "<b>"}, 422, "between 0 and 1"),
        ({"since": "yesterday"}, 422, "written like 2026-11-30"),
        ({"release": "fedcba987654"}, 404, "has answered no study"),
        ({"site": "nowhere"}, 404, "No study came from that site"),
    ],
)
async def test_what_cannot_be_shown_is_told_and_what_was_typed_stays(
    done: Clinic, asked: dict[str, str], status: int, sentence: str
) -> None:
    answer = await done.someone("l.1", "lead").get(PLACE, params=asked)
    assert answer.status_code == status
    assert sentence in answer.text
    (typed,) = asked.values()
    assert f'value="{typed.replace("<", "&lt;").replace(">", "&gt;")}"' in answer.text


async def test_an_archive_without_a_study_is_no_error(clinic: Clinic) -> None:
    answer = await clinic.someone("l.1", "lead").get(PLACE)
    assert (answer.status_code, "nothing to measure" in answer.text) == (200, True)


async def test_before_a_study_is_closed_there_is_no_number(clinic: Clinic) -> None:
    clinic.study("a", "normal")
    page = (await clinic.someone("l.1", "lead").get(PLACE)).text
    assert "1 newer studies do not count yet" in page
    assert "<svg" not in page
