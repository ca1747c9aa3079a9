"""Seals that a third party stamped, and copies of them at a second place."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pneumoserve.canonical import digest_of
from pneumoserve.ledger import (
    SealReport,
    SealSettings,
    TimeStampError,
    VerificationReport,
    load_authorities,
    read_copied_seals,
    verify,
)
from pneumoserve.records import open_ledger
from pneumoserve.store import MemoryStore
from tests.support.archives import Archive, trust_in
from tests.support.authority import StampServer, stamp_server

WRITER = "front-0000000a"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StampServer]:
    with stamp_server(tmp_path_factory.mktemp("authority")) as server:
        yield server


@pytest.fixture
def archive(authority: StampServer) -> Archive:
    authority.broken, authority.asked = False, 0
    return Archive(MemoryStore())


def seal(
    archive: Archive, authority: StampServer | None, copy_to: Path | None = None, later: timedelta = timedelta()
) -> SealReport:
    url = None if authority is None else authority.url
    return archive.seal(SealSettings(lock_days=0, stamp_url=url, copy_to=copy_to), later)


def verified(archive: Archive, root: Path, later: timedelta = timedelta()) -> VerificationReport:
    writers, sealers = trust_in(archive.writer_key), trust_in(archive.sealer_key)
    now = archive.now + later
    return verify(
        open_ledger(archive.store, writers, sealers), now, lambda what, count: None, authorities=load_authorities(root)
    )


def test_each_seal_is_stamped_and_its_stamp_verified(archive: Archive, authority: StampServer) -> None:
    for _ in range(2):
        archive.write(WRITER)
        assert seal(archive, authority).problems == {}
    assert seal(archive, authority).number is None
    assert authority.asked == 2
    verdict = verified(archive, authority.trust)
    assert (verdict.findings, verdict.summary.stamps, verdict.summary.last_stamped) == ((), 2, 2)
    # Without an authority's certificate none is looked at, and a stamp is no foreign object.
    assert archive.verify().findings == ()


def test_the_authority_gets_a_digest_alone(archive: Archive, authority: StampServer) -> None:
    archive.write(WRITER)
    seal(archive, authority)
    query = (authority.folder / "query.tsq").read_bytes()
    body = archive.store.get("seals/00000001.json")
    assert bytes.fromhex(digest_of(body)) in query
    assert len(query) < 100


def test_an_authority_that_is_away_stops_no_seal_and_is_asked_again(archive: Archive, authority: StampServer) -> None:
    authority.broken = True
    archive.write(WRITER)
    report = seal(archive, authority)
    assert report.number == 1
    assert list(report.problems) == ["seals/00000001.tsr"]
    assert "HTTP 503" in report.problems["seals/00000001.tsr"]
    authority.broken = False
    report = seal(archive, authority)
    assert (report.number, report.problems) == (None, {})
    assert verified(archive, authority.trust).summary.stamps == 1


def test_nobody_listens(archive: Archive) -> None:
    archive.write(WRITER)
    report = archive.seal(SealSettings(lock_days=0, stamp_url="http://127.0.0.1:1/tsa"))
    assert "did not answer" in report.problems["seals/00000001.tsr"]


@pytest.mark.parametrize("how", ["changed", "another", "stranger"])
def test_a_stamp_that_is_none_is_found(
    archive: Archive, authority: StampServer, how: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for _ in range(2):
        archive.write(WRITER)
        seal(archive, authority)
    stamp, key = archive.store.get("seals/00000002.tsr"), "seals/00000002.tsr"
    root = authority.trust
    if how == "changed":
        archive.store.put(key, stamp[:-1] + bytes([stamp[-1] ^ 1]), "application/timestamp-reply")
    elif how == "another":
        archive.store.put(key, archive.store.get("seals/00000001.tsr"), "application/timestamp-reply")
    else:
        with stamp_server(tmp_path_factory.mktemp("stranger")) as other:
            root = other.trust
    found = {(finding.kind, finding.key) for finding in verified(archive, root).findings}
    assert ("altered", key) in found
    assert (("altered", "seals/00000001.tsr") in found) == (how == "stranger")


def test_a_seal_that_says_another_time_than_the_authority_is_found(archive: Archive, authority: StampServer) -> None:
    archive.write(WRITER)
    seal(archive, authority, later=timedelta(days=-30))
    (finding,) = verified(archive, authority.trust).findings
    assert (finding.kind, finding.key) == ("wrong_time", "seals/00000001.tsr")


def test_a_file_without_a_certificate_is_reported(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(TimeStampError, match="holds no certificate"):
            load_authorities(tmp_path)
        (tmp_path / "root.pem").write_text("none")


def test_seals_are_copied_and_a_cut_or_exchanged_end_is_seen_by_the_copies(
    archive: Archive, authority: StampServer, tmp_path: Path
) -> None:
    folder = tmp_path / "second" / "place"
    archive.write(WRITER)
    seal(archive, authority)
    archive.write(WRITER)
    # What was sealed before copies were asked for is copied too.
    assert seal(archive, authority, folder).problems == {}
    names = [f"0000000{number}.{kind}" for number in (1, 2) for kind in ("json", "tsr")]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert archive.verify(kept=read_copied_seals(folder)).findings == ()
    archive.remove("seals/00000002.json")
    (cut,) = [found for found in archive.verify(kept=read_copied_seals(folder)).findings if found.kind == "cut"]
    assert cut.key == "seals/00000002.json"
    # A copy is never written over.
    seal(archive, None, folder, later=timedelta(seconds=1))
    assert archive.store.get("seals/00000002.json") != (folder / names[2]).read_bytes()
    (other,) = [found for found in archive.verify(kept=read_copied_seals(folder)).findings if found.sealed]
    assert (other.kind, other.key) == ("altered", "seals/00000002.json")


def test_a_second_place_that_takes_nothing_stops_no_seal(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    archive.write(WRITER)
    report = seal(archive, None, tmp_path / "file")
    assert report.number == 1
    assert "no seal can be copied there" in report.problems[str(tmp_path / "file")]
