"""A service's own writers put readings and alerts on record where those who look for them look."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pneumoserve.ledger import list_segments
from pneumoserve.records import ArchiveWriter, labels_of
from pneumoserve.review import AlertDesk, ReadingRoom, ReviewDatabase, commit_by
from pneumoserve.store import StoreError
from tests.support.entries import KEY, RELEASE
from tests.support.reviews import CHANCE, PNEUMONIA, Ward


async def test_writers_of_a_service_take_what_threads_commit(tmp_path: Path) -> None:
    ward = Ward(ReviewDatabase(f"sqlite:///{tmp_path / 'review.sqlite'}"))
    study = ward.study("one", "uncertain")
    writers = [ArchiveWriter(ward.store, KEY, RELEASE, role=role) for role in ("label", "review")]
    for writer in writers:
        await writer.start()
    commit = commit_by(writers[0], writers[1], asyncio.get_running_loop())
    room, desk = ReadingRoom(ward.database, commit, CHANCE), AlertDesk(ward.database, commit)
    (alert,) = await asyncio.to_thread(desk.raise_alerts)
    await asyncio.to_thread(room.claim, study, "r.1")
    label = await asyncio.to_thread(room.save_reading, study, "r.1", PNEUMONIA)
    followed = ward.rows()
    assert labels_of(ward.reader, label.prediction_id) == [label]
    assert {place.writer.partition("-")[0] for place in list_segments(ward.store)} == {"front", "label", "review"}
    ward.database.rebuild(ward.reader)
    assert ward.rows() == followed
    assert [each.alert_id for each in desk.list_open()] == [alert.alert_id]
    for writer in writers:
        await writer.close()
    with pytest.raises(StoreError, match="closing"):
        await asyncio.to_thread(desk.acknowledge, alert.alert_id, "dr.5")
    assert desk.list_open()[0].acknowledged is None
    ward.database.close()
