"""What does not stop the sealer, and what a human may say to know of."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.canonical import digest_of
from pneumoserve.ledger import (
    Seal,
    SealerError,
    SealReport,
    SealSettings,
    VerificationReport,
    acknowledge,
    key_id_of,
    seal,
)
from pneumoserve.ledger.seals import sign_seal
from pneumoserve.records import open_ledger
from pneumoserve.store import MemoryStore
from tests.support.archives import Archive, trust_in

A, B = "front-0000000a", "front-0000000b"
Fault = Callable[[Archive], str]


def _foreign(archive: Archive) -> str:
    archive.store.put("seals/x", b"x", "text/plain")
    return "seals/x"


def _in_the_next_ones_place(archive: Archive) -> str:
    archive.store.put("seals/00000003.json", b"x", "text/plain")
    return "seals/00000003.json"


def _overwritten(archive: Archive) -> str:
    archive.store.put("seals/00000001.json", b"x", "text/plain")
    return "seals/00000001.json"


def _last_overwritten(archive: Archive) -> str:
    archive.store.put("seals/00000002.json", b"x", "text/plain")
    return "seals/00000002.json"


def _hidden(archive: Archive) -> str:
    archive.hide("seals/00000001.json")
    return "seals/00000001.json"


def _last_hidden(archive: Archive) -> str:
    archive.hide("seals/00000002.json")
    return "seals/00000002.json"


def _copied(archive: Archive) -> str:
    archive.store.put("seals/00000003.json", archive.store.get("seals/00000001.json"), "application/json")
    return "seals/00000003.json"


def _of_a_stranger(archive: Archive) -> str:
    """Who can write below seals/ makes one that follows the last."""
    seal = Seal.model_validate_json(archive.store.get("seals/00000002.json"))
    stranger = Ed25519PrivateKey.generate()
    previous = digest_of(archive.store.get("seals/00000002.json"))
    update = {"number": 3, "previous": previous, "key_id": key_id_of(stranger)}
    archive.store.put("seals/00000003.json", sign_seal(seal.model_copy(update=update), stranger), "application/json")
    return "seals/00000003.json"


@pytest.fixture
def sealed(archive: Archive) -> Archive:
    """Two seals, and more to seal."""
    for film in (b"film 1", b"film 2"):
        archive.write(A, [film])
        archive.seal()
    archive.write(A, [b"film 3"])
    archive.write(B, [b"film 4"], last=True)
    return archive


FAULTS = [
    _foreign,
    _in_the_next_ones_place,
    _overwritten,
    _last_overwritten,
    _hidden,
    _last_hidden,
    _copied,
    _of_a_stranger,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.strip("_"))
def test_the_sealer_goes_past_what_is_no_seal_and_reports_it(sealed: Archive, fault: Fault) -> None:
    key = fault(sealed)
    for films in ([b"film 5"], [b"film 6"]):
        report = sealed.seal()
        assert list(report.problems) == [key]
        assert report.segments
        # Nothing of before is sealed twice, nothing lost, and the chain of seals is one.
        verdict = sealed.verify()
        assert [finding.key for finding in verdict.findings] == [key]
        assert verdict.summary.sealed_segments == verdict.summary.segments
        sealed.write(A, films)
    (finding,) = sealed.verify().findings
    acknowledge(sealed.store, finding, "a drill, ticket 17", sealed.sealer_key, sealed.now)
    report = sealed.seal()
    assert (report.problems, report.acknowledged) == ({}, {key: "a drill, ticket 17"})
    verdict = sealed.verify()
    assert verdict.findings == ()
    assert [known.finding for known in verdict.acknowledged] == [finding]


def test_a_sealer_killed_beside_such_an_object_leaves_nothing_to_find(sealed: Archive, store: MemoryStore) -> None:
    key = _in_the_next_ones_place(sealed)

    def kill(operation: str, key: str) -> None:
        if operation == "create":
            raise KeyboardInterrupt

    alive, store.before = store.before, kill
    with pytest.raises(KeyboardInterrupt):
        sealed.seal()
    store.before = alive
    assert [finding.key for finding in sealed.verify().findings] == [key]


def test_an_object_where_the_first_seal_would_stand_needs_a_human(archive: Archive) -> None:
    archive.write(A, [b"film"])
    archive.store.put("seals/00000001.json", b"x", "text/plain")
    with pytest.raises(SealerError, match=r"seals/00000001\.json.*pneumoserve archive acknowledge"):
        archive.seal()
    (finding,) = archive.verify().findings
    acknowledge(archive.store, finding, "a drill", archive.sealer_key, archive.now)
    assert archive.seal().number == 2
    assert archive.verify().findings == ()


def test_a_seal_that_is_gone_is_reported_and_sealing_goes_on(sealed: Archive) -> None:
    sealed.remove("seals/00000001.json")
    report = sealed.seal()
    assert (report.number, list(report.problems)) == (3, ["seals/00000001.json"])


def test_a_seal_of_an_untrusted_key_that_others_follow_stops_the_sealer(sealed: Archive) -> None:
    """More likely the keys are wrong than the seals; what they hold must not be sealed a second time."""
    earlier, sealed.sealer_key = sealed.sealer_key, Ed25519PrivateKey.generate()
    with pytest.raises(SealerError, match="Look whether all sealers' keys are trusted"):
        sealed.seal()

    def seal_trusting(*sealers: Ed25519PrivateKey) -> SealReport:
        writers, now = trust_in(sealed.writer_key), sealed.now
        return seal(
            open_ledger(sealed.store, writers, trust_in(*sealers)), sealed.sealer_key, now, SealSettings(lock_days=0)
        )

    assert seal_trusting(earlier, sealed.sealer_key).number == 3
    sealed.write(A, [b"film 5"])
    with pytest.raises(SealerError, match="Look whether all sealers' keys are trusted"):
        seal_trusting(sealed.sealer_key)
    report = seal_trusting(earlier, sealed.sealer_key)
    assert (report.number, report.segments, report.problems) == (4, 1, {})


def test_what_is_acknowledged_is_what_was_there_then(sealed: Archive) -> None:
    key = _foreign(sealed)
    (finding,) = sealed.verify().findings
    acknowledge(sealed.store, finding, "a drill", sealed.sealer_key, sealed.now)
    sealed.store.put("seals/y", b"y", "text/plain")
    assert [found.key for found in sealed.verify().findings] == ["seals/y"]
    sealed.store.put(key, b"another", "text/plain")
    assert [found.key for found in sealed.verify().findings] == [key, "seals/y"]


def test_another_kind_of_finding_at_the_same_key_counts(archive: Archive) -> None:
    place = archive.write(A, [b"film"])
    archive.write(A)
    archive.seal()
    archive.flip(place.key, 200, 0)
    (finding,) = archive.verify().findings
    acknowledge(archive.store, finding, "a drill", archive.sealer_key, archive.now)
    assert archive.verify().findings == ()
    archive.remove(place.key)
    assert [(found.kind, found.key) for found in archive.verify().findings] == [("removed", place.key)]


def test_an_acknowledgement_of_a_stranger_or_altered_is_none(sealed: Archive) -> None:
    _foreign(sealed)
    (finding,) = sealed.verify().findings
    stranger = acknowledge(sealed.store, finding, "trust me", Ed25519PrivateKey.generate(), sealed.now)
    own = acknowledge(sealed.store, finding, "a drill", sealed.sealer_key, sealed.now)
    assert [found.key for found in sealed.verify().findings] == [stranger]
    sealed.replace(own, sealed.store.get(own).replace(b"a drill", b"nothing"))
    assert [found.key for found in sealed.verify().findings] == [*sorted([stranger, own]), "seals/x"]


def test_a_bad_segment_that_is_known_fails_no_seal(archive: Archive) -> None:
    archive.write(A)
    archive.next(A)
    after_a_gap = archive.write(A, [b"film"])
    bad = archive.write(B, [b"film"])
    archive.flip(bad.key, 200, 0)
    assert set(archive.seal().problems) == {after_a_gap.key, bad.key}
    for finding in archive.verify().findings:
        acknowledge(archive.store, finding, "a node that burnt", archive.sealer_key, archive.now)
    archive.write("front-0000000c")
    report = archive.seal()
    assert (report.segments, report.problems) == (1, {})
    assert set(report.acknowledged) == {after_a_gap.key, bad.key}


# --- a cut end, and a made-up past


def kept(archive: Archive, number: int, digest: str) -> VerificationReport:
    return archive.verify(kept=((number, digest),))


def test_a_cut_end_is_seen_by_who_kept_the_last_seal(archive: Archive) -> None:
    archive.write(A, [b"film 1"])
    archive.seal()
    place = archive.write(B, [b"film 2"], last=True)
    last = archive.seal()
    assert last.number == 2
    assert last.hash is not None
    assert kept(archive, 2, last.hash).findings == ()
    (other,) = kept(archive, 1, last.hash).findings
    assert (other.kind, other.key) == ("altered", "seals/00000001.json")
    for key in (place.key, *last.rollups, "seals/00000002.json", *archive.keys("images/")[1:]):
        archive.remove(key)
    (cut,) = [found for found in kept(archive, 2, last.hash).findings if found.kind != "missing_image"]
    assert (cut.kind, cut.key, cut.sealed) == ("cut", "seals/00000002.json", True)
    # Other seals in its place do not help.
    archive.write(A)
    archive.seal()
    (forged,) = [found for found in kept(archive, 2, last.hash).findings if found.kind != "missing_image"]
    assert (forged.kind, forged.key) == ("altered", "seals/00000002.json")


def test_a_writer_that_is_new_and_says_that_it_is_old_is_reported(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.write(A)
    archive.seal()
    monkeypatch.setattr("pneumoserve.ledger.chain.now_text", lambda: "2019-01-01T00:00:00.000Z")
    archive.write(B)
    assert "2019-01-01" in archive.verify().late[B]
    report = archive.seal()
    assert (list(report.late), report.problems) == ([B], {})
    monkeypatch.undo()
    archive.write("front-0000000c")
    assert archive.seal().late == {}
    verdict = archive.verify()
    assert (verdict.findings, list(verdict.late)) == ((), [B])
