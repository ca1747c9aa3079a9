"""Drift of an export: the same, to the last digit, as that of the archive it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pneumoserve.decision import STOPPED
from pneumoserve.ids import uuid7
from pneumoserve.monitoring import drift as module
from pneumoserve.monitoring.drift_watch import (
    History,
    choose_baselines,
    find_drift,
    list_new_windows,
    open_incidents,
    read_history,
)
from pneumoserve.monitoring.exported import ExportedError
from pneumoserve.monitoring.exported_drift import read_exported_history
from pneumoserve.names import DETECTOR, TYPER
from pneumoserve.records import Entry, FolderTarget, Record, append, export, read_entries
from pneumoserve.store import MemoryStore
from tests.support.archives import reader_of
from tests.support.drift import POLICY, START, record
from tests.support.entries import KEY, RELEASE, use

_LATER = START + timedelta(minutes=700)


@dataclass
class Archive:
    """An archive, and an export of some of it."""

    store: MemoryStore
    folder: Path

    def put(self, *entries: Entry, role: str = "front") -> None:
        append(self.store, KEY, entries, role)

    def read(self, site: str | None = None, since: datetime | None = None) -> History:
        return read_history(read_entries(reader_of(self.store, KEY), since, RELEASE), RELEASE, POLICY, site)

    def read_export(self, site: str | None = None, since: datetime | None = None) -> History:
        return read_exported_history(self.folder, reader_of(self.store, KEY), RELEASE, POLICY, site, since)

    def export(self) -> None:
        export(reader_of(self.store, KEY), FolderTarget(self.folder))

    def watch(self, history: History) -> None:
        """Put on record what is new."""
        found = find_drift(history, POLICY.assumed_prevalence)
        made = list_new_windows(history, found, _LATER)
        self.put(*made, *open_incidents(history, made, _LATER), role="review")


def of_study(name: str, *images: Record) -> list[Record]:
    return [each.model_copy(update={"call": each.call.model_copy(update={"study": name * 64})}) for each in images]


def odd_records() -> list[Record]:
    """Whatever an answer can be: of several images, two sources, no gate, no caller, stopped, of no live answer."""
    no_gate = (use(DETECTOR, 0.7),)
    shadow, other = record(640, 0.2, arm="shadow"), record(641, 0.2, release="ba9876543210")
    stopped = [record(650 + number, score, stop=uuid7(), decision=STOPPED) for number, score in enumerate((0.05, 0.2))]
    dicom = record(655, 0.95, stop=uuid7(), decision=STOPPED, models=(use(DETECTOR, 0.95), use(TYPER, 0.5)))
    assert dicom.image is not None
    young = dicom.image.model_copy(update={"format": "dicom", "age_years": 0.2})
    jpeg = dicom.image.model_copy(update={"format": "jpeg", "modality": None})
    nobody = record(660, 0.3, subject="pacs")
    return [
        *of_study("a", record(600, 0.9, patient=1), record(601, 0.1, models=no_gate)),
        # Of the same moment, so that ids say which image is the first.
        *(
            each
            for name in "befghijk"
            for each in of_study(name, record(610, 0.1, patient=3), record(610, 0.2, patient=4))
        ),
        *of_study("c", record(620, 0.1), record(621, 0.2, image=jpeg)),
        *of_study("d", record(630, 0.2, decision=STOPPED, stop=uuid7()), record(631, 0.05)),
        shadow, other, record(642, 0.2, models=()), *stopped, dicom,
        dicom.model_copy(update={"prediction_id": uuid7(), "image": young}),
        nobody.model_copy(update={"call": nobody.call.model_copy(update={"subject": None})}),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """A baseline, a window of it on record, and another one that is not; the export was written between the two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_RESAMPLES", 199)
        patch.setattr(module, "_RESOLUTION", 1)
        archive = Archive(MemoryStore(), tmp_path_factory.mktemp("it's an export"))
        before = [record(minute, 0.05 + minute % 100 / 1000, patient=minute // 2 + 9) for minute in range(510)]
        archive.put(*before, *(record(minute, 0.3) for minute in range(510, 560)))
        archive.put(*(record(minute, 0.3, patient=9000 + minute) for minute in range(-300, 0)))
        archive.put(*choose_baselines(archive.read(), "lead", "first", _LATER), role="review")
        archive.put(*odd_records(), *(record(700 + minute, 0.6 + minute / 1000) for minute in range(250)))
        archive.export()
        archive.watch(archive.read())
        archive.put(*(record(1000 + minute, 0.2) for minute in range(200)))
        yield archive


def test_both_find_the_same(archive: Archive, tmp_path: Path) -> None:
    whole = export_whole(archive, tmp_path)
    for site, since in ((None, None), ("pacs", None), ("nowhere", None), (None, START + timedelta(hours=3))):
        expected, found = whole.read(site, since), whole.read_export(site, since)
        assert found.studies == expected.studies
        assert (found.baselines, found.reported) == (expected.baselines, expected.reported)
        assert {each.drift_id for each in found.windows} == {each.drift_id for each in expected.windows}
    assert {each.referred for studies in whole.read().studies.values() for each in studies} == {True, False}
    assert len(whole.read().studies) == 3


def export_whole(archive: Archive, folder: Path) -> Archive:
    """The same archive, with an export of all of it."""
    whole = replace(archive, folder=folder)
    whole.export()
    return whole


def test_what_was_said_since_the_export_goes_on_record_once(archive: Archive) -> None:
    """The export knows of no window, and lacks the newest studies."""
    history = archive.read_export()
    assert (len(history.windows), len(history.reported)) == (1, 1)
    found = find_drift(history, POLICY.assumed_prevalence)
    assert [len(each.windows) for each in found if each.windows] == [1]
    assert list_new_windows(history, found, _LATER) == []


def test_no_export_is_told(tmp_path: Path) -> None:
    with pytest.raises(ExportedError, match="holds no export"):
        Archive(MemoryStore(), tmp_path).read_export()
