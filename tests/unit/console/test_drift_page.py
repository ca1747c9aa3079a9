"""The page of drift: each source beside its baseline, alarms, and what it says where there is nothing."""

from __future__ import annotations

import re

from tests.support.consoles import Clinic
from tests.support.drift import put_drift

PLACE = "/overview/drift"


async def test_it_shows_each_source_with_its_windows_the_newest_first(clinic: Clinic) -> None:
    alarm = put_drift(clinic.ward)
    for role in ("lead", "auditor"):
        page = (await clinic.someone("x.1", role).get(PLACE)).text
        assert re.findall(r"<h2>(.*?), release", page) == ["pacs, DX", "pacs, jpeg"]
        assert "12 windows, 2 of them alarms" in page
        assert "lead-2 chose it: four quiet weeks." in page
        rows = re.findall(r'<tr id="(.*?)">.*?<td>(yes.*?|no)</td>', page)
        assert [said for _, said in rows] == ["yes: other images", "yes: another case mix", *["no"] * 10]
        assert rows[0][0] == alarm.drift_id
        # A mark of each test and window, the least p-value at the bottom of the picture.
        assert page.count('class="value"') == page.count('class="naive"') == page.count('class="range hollow"') == 12
        marks = re.findall(r'<circle class="value" cx="([\d.]+)" cy="([\d.]+)"', page)
        assert marks[-1] == ("635.0", "165")
        assert "No window is full yet" in page
        assert not re.search(r"\sstyle=|<style|\son\w+=|<script(?! src=)", page)


async def test_windows_beside_an_earlier_baseline_are_not_shown(clinic: Clinic) -> None:
    put_drift(clinic.ward)
    put_drift(clinic.ward, windows=0)
    page = (await clinic.someone("l.1", "lead").get(PLACE)).text
    assert page.count("0 windows, 0 of them alarms") == 2


async def test_an_incident_of_drift_leads_to_its_window(clinic: Clinic) -> None:
    alarm = put_drift(clinic.ward)
    page = (await clinic.someone("a.1", "auditor").get("/incidents")).text
    assert f'<td>Studies drift</td><td><a href="/overview/drift#{alarm.drift_id}">' in page


async def test_without_a_baseline_it_says_what_to_do(clinic: Clinic) -> None:
    assert "drift --renew" in (await clinic.someone("l.1", "lead").get(PLACE)).text
