"""What `archive verify` finds: every tampering with an archive, each with exactly its finding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest

from pneumoserve.canonical import digest_of
from pneumoserve.ids import uuid7
from pneumoserve.ledger import Chain, Seal, SealSettings, SegmentKey, scan, seal, verify
from pneumoserve.ledger.seals import rollup_key, sign_seal
from pneumoserve.records import ArchiveWriter, Label, Record, append, image_key, open_ledger
from pneumoserve.signing import Trust
from pneumoserve.store import MemoryStore, Store, StoreError
from tests.support.archives import DATE, RELEASE, Archive, record_of, trust_in

A, B, C, D = (f"front-0000000{digit}" for digit in "abcd")
Found = list[tuple[str, str, bool]]


@dataclass
class Sample:
    """An archive of four writers, sealed twice: A goes on after both, B ended, C came and ended after them, D lives."""

    archive: Archive
    a: list[SegmentKey]
    b: list[SegmentKey]
    c: list[SegmentKey]
    d: list[SegmentKey]
    rollups: list[str]

    @property
    def store(self) -> Store:
        return self.archive.store

    def film(self, name: bytes) -> str:
        return image_key(digest_of(name))


def make(store: Store) -> Sample:
    archive = Archive(store)
    a = [archive.write(A), archive.write(A, [b"film 1", b"film 2"])]
    b = [archive.write(B), archive.write(B, [b"film 1"], last=True)]
    assert archive.seal().segments == 4
    a.append(archive.write(A, [b"film 3"]))
    d = [archive.write(D), archive.write(D, [b"film 3"])]
    assert archive.seal().segments == 3
    a += [archive.write(A, [b"film 4"]), archive.write(A), archive.write(A, [b"film 5"])]
    c = [archive.write(C), archive.write(C, [b"film 6"]), archive.write(C, last=True)]
    return Sample(archive, a, b, c, d, archive.keys("rollups/"))


@pytest.fixture
def sample(store: MemoryStore) -> Sample:
    return make(store)


@pytest.fixture(scope="module")
def restored() -> Sample:
    """For tests that leave it as it was."""
    return make(MemoryStore())


def test_a_whole_archive_has_no_findings(sample: Sample) -> None:
    archive = sample.archive
    # A front that died between a film and its record.
    archive.store.put(image_key(digest_of(b"left over")), b"left over", "image/jpeg")
    # The same bytes again: what a writer does whose PUT has an unclear outcome.
    archive.store.put(sample.a[0].key, archive.store.get(sample.a[0].key), "application/x-ndjson")
    verdict = archive.verify()
    assert verdict.findings == ()
    summary = verdict.summary
    assert (summary.seals, summary.last_seal, summary.rollups, summary.writers) == (2, 2, 2, 4)
    assert (summary.segments, summary.sealed_segments, summary.expired) == (13, 7, 0)
    assert (summary.records, summary.images, summary.unnamed_images) == (8, 7, 1)
    assert summary.last_seal_hash == digest_of(archive.store.get("seals/00000002.json"))


async def test_what_the_service_writes_is_whole(archive: Archive) -> None:
    """A front's writer, and a label's."""
    writing = ArchiveWriter(archive.store, archive.writer_key, RELEASE)
    await writing.start()
    for _ in range(3):
        await writing.put_image(digest_of(b"film"), b"film", "image/jpeg")
        await writing.commit(Record.model_validate_json(record_of(b"film")))
    assert archive.seal().records == 3
    await writing.close()
    label = Label(
        label_id=uuid7(),
        prediction_id=uuid7(),
        time=f"{DATE}T12:00:00.000Z",
        release=RELEASE,
        source="radiologist",
        author="r.17",
        finding="normal",
    )
    append(archive.store, archive.writer_key, [label], "label")
    for sealed in (4, 6):
        verdict = archive.verify()
        assert verdict.findings == ()
        assert (verdict.summary.segments, verdict.summary.sealed_segments) == (6, sealed)
        assert (verdict.summary.records, verdict.summary.images, verdict.summary.writers) == (4, 1, 2)
        archive.seal()


def test_segments_may_go_after_their_time(sample: Sample) -> None:
    archive = sample.archive
    for place in (*sample.a[:2], *sample.b):
        archive.remove(place.key)
    # A lifecycle rule leaves a delete marker in a versioned bucket.
    archive.hide(sample.a[2].key)
    verdict = archive.verify(later=timedelta(days=7, minutes=1))
    assert verdict.findings == ()
    assert (verdict.summary.expired, verdict.summary.segments, verdict.summary.records) == (5, 13, 8)
    assert len(archive.found()) == 4


def test_roll_ups_and_films_may_go_after_their_time(archive: Archive) -> None:
    archive.write(B, [b"film 1"], last=True)
    archive.write(A)
    archive.seal(SealSettings(lock_days=1))
    for key in (*archive.keys("images/"), *archive.keys("records/"), *archive.keys("rollups/")):
        archive.hide(key)
    archive.write(A, [b"film 2"])
    assert archive.found(later=timedelta(days=8)) == []
    # The film and the segments of both, and their roll-up; and nothing of B is left to look at.
    assert [finding[0] for finding in archive.found()] == ["missing_writer"] + ["delete_marker"] * 4


Tampering = Callable[[Sample], Found]


def _removed(sample: Sample) -> Found:
    key = sample.a[1].key
    sample.archive.remove(key)
    return [("removed", key, True)]


def _removed_between(sample: Sample) -> Found:
    sample.archive.remove(sample.a[4].key)
    return [("removed", f"{A}-00000005.jsonl", False)]


def _first_removed(sample: Sample) -> Found:
    sample.archive.remove(sample.c[0].key)
    sample.archive.remove(sample.c[1].key)
    return [("removed", f"{C}-00000001.jsonl to 00000002.jsonl", False)]


def _end_removed(sample: Sample) -> Found:
    """The last segments sealed of D."""
    sample.archive.remove(sample.d[1].key)
    return [("removed", sample.d[1].key, True)]


def _writer_removed(sample: Sample) -> Found:
    for place in sample.b:
        sample.archive.remove(place.key)
    return [("missing_writer", B, True)]


def _writer_and_roll_up_removed(sample: Sample) -> Found:
    for place in sample.b:
        sample.archive.remove(place.key)
    sample.archive.remove(sample.rollups[0])
    return [("missing_writer", B, True), ("removed", sample.rollups[0], True)]


def _cut(sample: Sample) -> Found:
    key = sample.a[1].key
    body = sample.store.get(key)
    sample.archive.replace(key, body[: len(body) // 2])
    return [("cut", key, True)]


def _cut_at_a_line(sample: Sample) -> Found:
    key = sample.c[1].key
    header, entry, _ = sample.store.get(key).splitlines(keepends=True)
    sample.archive.replace(key, header + entry)
    return [("cut", key, False)]


def _swapped(sample: Sample) -> Found:
    one, two = sample.a[1].key, sample.b[1].key
    bodies = sample.store.get(one), sample.store.get(two)
    sample.archive.replace(one, bodies[1])
    sample.archive.replace(two, bodies[0])
    return [("reordered", one, True), ("reordered", two, True)]


def _swapped_unsealed(sample: Sample) -> Found:
    one, two = sample.a[3].key, sample.a[4].key
    bodies = sample.store.get(one), sample.store.get(two)
    sample.archive.replace(one, bodies[1])
    sample.archive.replace(two, bodies[0])
    return [("reordered", one, False), ("reordered", two, False)]


def _overwritten(sample: Sample) -> Found:
    key = sample.a[1].key
    sample.store.put(key, sample.store.get(sample.b[0].key), "application/x-ndjson")
    return [("overwritten", key, True)]


def _overwritten_and_back(sample: Sample) -> Found:
    key = sample.c[1].key
    body = sample.store.get(key)
    sample.store.put(key, b"something else\n", "application/x-ndjson")
    sample.store.put(key, body, "application/x-ndjson")
    return [("overwritten", key, False)]


def _seal_overwritten(sample: Sample) -> Found:
    sample.store.put("seals/00000001.json", sample.store.get("seals/00000001.json")[:-1], "application/json")
    return [("overwritten", "seals/00000001.json", True)]


def _roll_up_overwritten(sample: Sample) -> Found:
    sample.store.put(sample.rollups[0], b"", "application/x-ndjson")
    return [("overwritten", sample.rollups[0], True)]


def _film_overwritten(sample: Sample) -> Found:
    sample.store.put(sample.film(b"film 1"), b"another film", "image/jpeg")
    return [("overwritten", sample.film(b"film 1"), True)]


def _hidden(sample: Sample) -> Found:
    sample.archive.hide(sample.a[0].key)
    return [("delete_marker", sample.a[0].key, True)]


def _hidden_unsealed(sample: Sample) -> Found:
    sample.archive.hide(sample.a[4].key)
    return [("delete_marker", sample.a[4].key, False)]


def _hidden_and_written_again(sample: Sample) -> Found:
    key = sample.c[1].key
    body = sample.store.get(key)
    sample.archive.hide(key)
    sample.store.put(key, body, "application/x-ndjson")
    return [("delete_marker", key, False)]


def _roll_up_hidden(sample: Sample) -> Found:
    sample.archive.hide(sample.rollups[1])
    return [("delete_marker", sample.rollups[1], True)]


def _seal_hidden(sample: Sample) -> Found:
    sample.archive.hide("seals/00000002.json")
    return [("delete_marker", "seals/00000002.json", True)]


def _film_hidden(sample: Sample) -> Found:
    """An unsealed record's."""
    sample.archive.hide(sample.film(b"film 6"))
    return [("delete_marker", sample.film(b"film 6"), False)]


def _roll_up_removed(sample: Sample) -> Found:
    sample.archive.remove(sample.rollups[0])
    return [("removed", sample.rollups[0], True)]


def _seal_removed(sample: Sample) -> Found:
    sample.archive.remove("seals/00000001.json")
    return [("removed", "seals/00000001.json", True)]


def _film_removed(sample: Sample) -> Found:
    sample.archive.remove(sample.film(b"film 2"))
    return [("missing_image", sample.film(b"film 2"), True)]


def _unsealed_film_removed(sample: Sample) -> Found:
    sample.archive.remove(sample.film(b"film 5"))
    return [("missing_image", sample.film(b"film 5"), False)]


def _added(key: str) -> Tampering:
    def tamper(sample: Sample) -> Found:
        sample.store.put(key, b"{}\n", "text/plain")
        return [("added", key, False)]

    return tamper


def _film_of_another_name(sample: Sample) -> Found:
    key = image_key("0" * 64)
    sample.store.put(key, b"film", "image/jpeg")
    return [("altered", key, False)]


def _unsigned_segment(sample: Sample) -> Found:
    key = SegmentKey(A, 99_999_999, DATE, RELEASE).key
    sample.store.put(key, b"{}\n", "text/plain")
    return [("altered", key, False)]


def _copied_segment(sample: Sample) -> Found:
    """A sealed one, to another release."""
    key = sample.a[0].key.replace(RELEASE, "f" * 12)
    sample.store.put(key, sample.store.get(sample.a[0].key), "text/plain")
    return [("added", key, False)]


def _copied_unsealed_segment(sample: Sample) -> Found:
    key = sample.c[1].key.replace(RELEASE, "f" * 12)
    sample.store.put(key, sample.store.get(sample.c[1].key), "text/plain")
    return [("added", key, False)]


def _stranger(sample: Sample) -> Found:
    place = Archive(sample.store).write("front-0000000e", [b"film 1"])
    return [("wrong_signer", place.key, False)]


def _stranger_goes_on(sample: Sample) -> Found:
    stranger = Archive(sample.store)
    for _ in range(6):
        stranger.next(A)
    return [("wrong_signer", stranger.write(A).key, False)]


def _seal_of_a_stranger(sample: Sample) -> Found:
    stranger = Archive(sample.store, writer_key=sample.archive.writer_key)
    sealers = trust_in(stranger.sealer_key, sample.archive.sealer_key)
    ledger = open_ledger(stranger.store, trust_in(stranger.writer_key), sealers)
    seal(ledger, stranger.sealer_key, stranger.now, SealSettings(lock_days=0))
    return [("wrong_signer", "seals/00000003.json", False)]


def _seal_of_another_chain(sample: Sample) -> Found:
    """Which the sealer signed: the store as it was before, brought back, and sealed again."""
    key = "seals/00000002.json"
    other = Seal.model_validate_json(sample.store.get(key)).model_copy(update={"previous": "0" * 64})
    sample.archive.replace(key, sign_seal(other, sample.archive.sealer_key))
    return [("broken_chain", key, True)]


def _copied_seal(sample: Sample) -> Found:
    sample.store.put("seals/00000003.json", sample.store.get("seals/00000001.json"), "application/json")
    return [("reordered", "seals/00000003.json", True)]


def _continued(sample: Sample) -> Found:
    """A sealed end, and one that is not."""
    return [("continued", sample.archive.write(writer).key, False) for writer in (B, C)]


def _forked(sample: Sample) -> Found:
    """Two processes of one name, or a thief of the key."""
    key = sample.c[1].key
    chain = Chain(sample.archive.writer_key, C)
    chain.next([], DATE, RELEASE)
    _, body = chain.next([], DATE, RELEASE)
    sample.archive.replace(key, body)
    return [("broken_chain", key, False), ("broken_chain", sample.c[2].key, False)]


@pytest.mark.parametrize(
    "tamper",
    [
        _removed,
        _removed_between,
        _first_removed,
        _end_removed,
        _writer_removed,
        _writer_and_roll_up_removed,
        _cut,
        _cut_at_a_line,
        _swapped,
        _swapped_unsealed,
        _overwritten,
        _overwritten_and_back,
        _seal_overwritten,
        _roll_up_overwritten,
        _film_overwritten,
        _hidden,
        _hidden_unsealed,
        _hidden_and_written_again,
        _roll_up_hidden,
        _seal_hidden,
        _film_hidden,
        _roll_up_removed,
        _seal_removed,
        _film_removed,
        _unsealed_film_removed,
        pytest.param(_added("records/notes.txt"), id="note"),
        pytest.param(_added("seals/00000003.json.bak"), id="beside-seals"),
        pytest.param(_added(rollup_key(DATE, 3, 1, digest_of(b"{}\n"))), id="roll-up"),
        pytest.param(_added("images/sha256/ff/film.jpeg"), id="film"),
        pytest.param(_added("images/sha256/ff/" + "0" * 64), id="film-elsewhere"),
        _film_of_another_name,
        _unsigned_segment,
        _copied_segment,
        _copied_unsealed_segment,
        _stranger,
        _stranger_goes_on,
        _seal_of_a_stranger,
        _seal_of_another_chain,
        _copied_seal,
        _continued,
        _forked,
    ],
    ids=lambda tamper: tamper.__name__.strip("_"),
)
def test_every_tampering_is_found(sample: Sample, tamper: Tampering) -> None:
    expected = tamper(sample)
    assert sorted(sample.archive.found()) == sorted(expected)


def _positions(body: bytes) -> Iterator[tuple[int, int]]:
    """Bytes and bits: some from beginning to end, and the signature's last ones, where base64 has spare bits."""
    size = len(body)
    yield from ((position, position % 8) for position in range(0, size, max(1, size // 6)))
    yield from ((size - back, 0) for back in (1, 2))
    padding = body.rfind(b'="')
    if padding > 0:
        yield from ((padding - back, bit) for back in range(3) for bit in (0, 1))


@pytest.mark.parametrize("which", ["sealed", "unsealed", "last", "roll-up", "seal", "last-seal", "film"])
def test_any_one_changed_bit_is_found(restored: Sample, which: str) -> None:
    sample, archive = restored, restored.archive
    key = {
        "sealed": sample.a[1].key,
        "unsealed": sample.a[4].key,
        "last": sample.a[5].key,
        "roll-up": sample.rollups[0],
        "seal": "seals/00000001.json",
        "last-seal": "seals/00000002.json",
        "film": sample.film(b"film 1"),
    }[which]
    for position, bit in _positions(archive.store.get(key)):
        before = archive.flip(key, position, bit)
        found = archive.found()
        assert [finding[1] for finding in found] == [key], (position, bit, found)
        archive.replace(key, before)
    assert archive.found() == []


def test_wrong_keys_are_reported(sample: Sample) -> None:
    archive = sample.archive
    stranger = Archive(archive.store)
    archive.writer_key, right = stranger.writer_key, archive.writer_key
    kinds = {(kind, sealed) for kind, _, sealed in archive.found()}
    assert kinds == {("wrong_signer", True), ("wrong_signer", False)}
    archive.writer_key, archive.sealer_key = right, stranger.sealer_key
    assert {(kind, key) for kind, key, _ in archive.found()} == {
        ("wrong_signer", "seals/00000001.json"),
        ("wrong_signer", "seals/00000002.json"),
        ("added", sample.rollups[1]),
    }


def test_a_key_that_was_revoked_signed_in_time_what_is_sealed(restored: Sample) -> None:
    archive = restored.archive
    writers = trust_in(archive.writer_key)
    revoked = Trust(writers.keys, frozenset(writers.keys), frozenset())
    verdict = verify(
        open_ledger(archive.store, revoked, trust_in(archive.sealer_key)), archive.now, lambda what, count: None
    )
    assert {(finding.kind, finding.sealed) for finding in verdict.findings} == {("wrong_signer", False)}
    assert len(verdict.findings) == 6


def test_a_store_that_stumbles_is_asked_again(
    sample: Sample, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "_PAUSE_SECONDS", 0.0)
    stumbled: set[str] = set()

    def stumble(operation: str, key: str) -> None:
        if operation == "get" and key not in stumbled:
            stumbled.add(key)
            raise StoreError("slow")

    store.before = stumble
    assert sample.archive.found() == []
    assert sample.a[1].key in stumbled

    def break_down(operation: str, key: str) -> None:
        if operation == "get" and key == sample.a[1].key:
            raise StoreError("checksum")

    store.before = break_down
    assert sample.archive.found() == [("unreadable", sample.a[1].key, True)]


def test_what_is_written_meanwhile_is_no_gap(sample: Sample, store: MemoryStore) -> None:
    """A listing is not of one moment: a later segment may be in it, and the one before it not."""
    between = sample.a[4].key
    body = store.get(between)
    sample.archive.remove(between)
    listed: list[str] = []

    def come_late(operation: str, prefix: str) -> None:
        if (operation, prefix) == ("versions", "records/"):
            if listed:
                store.put(between, body, "application/x-ndjson")
            listed.append(prefix)

    store.before = come_late
    assert sample.archive.found() == []
    assert len(listed) == 2
