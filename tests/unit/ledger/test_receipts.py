"""Receipts: what who keeps one can show, with and without the archive."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.front.rest import _receipt_headers
from pneumoserve.ids import uuid7
from pneumoserve.ledger import (
    Checked,
    GivenReceipt,
    ReceiptError,
    SegmentKey,
    check_receipt,
    check_record,
    make_receipt,
    parse_receipts,
)
from pneumoserve.records import Label, append
from pneumoserve.signing import write_public_key
from pneumoserve.store import MemoryStore
from tests.support.archives import DATE, RELEASE, Archive, record_of, trust_in
from tests.support.commands import invoke

WRITER = "front-0000000a"


@pytest.fixture
def archive() -> Archive:
    return Archive(MemoryStore())


def given(archive: Archive, place: SegmentKey, line: bytes) -> GivenReceipt:
    made = make_receipt(place, line, archive.writer_key)
    return GivenReceipt.model_validate(made.model_dump(exclude={"recorded"}))


def recorded(archive: Archive, writer: str = WRITER) -> tuple[SegmentKey, GivenReceipt]:
    line = record_of(b"film")
    place, body = archive.next(writer, [record_of(b"another"), line])
    archive.store.put(place.key, body, "application/x-ndjson")
    return place, given(archive, place, line)


def looked_up(archive: Archive, receipt: GivenReceipt) -> Checked:
    return check_record(archive.reader, receipt, trust_in(archive.writer_key))


def test_a_receipt_shows_its_record(archive: Archive) -> None:
    place, receipt = recorded(archive)
    assert check_receipt(receipt, trust_in(archive.writer_key)).fault is None
    found = looked_up(archive, receipt).kept
    assert found is not None
    assert (found.key, found.sealed) == (place.key, False)
    (rollup,) = archive.seal().rollups
    found = looked_up(archive, receipt).kept
    assert found is not None
    assert (found.key, found.sealed) == (place.key, True)
    # Its own object has expired.
    archive.remove(place.key)
    found = looked_up(archive, receipt).kept
    assert found is not None
    assert (found.key, found.sealed) == (rollup, True)


def test_an_answers_header_is_what_is_checked(archive: Archive) -> None:
    place, _ = recorded(archive)
    made = [make_receipt(place, record_of(film), archive.writer_key) for film in (b"one", b"two")]
    headers = _receipt_headers(made)
    parsed = parse_receipts(headers["pneumoserve-receipts"].encode())
    assert [each.hash for each in parsed] == [each.hash for each in made]
    assert all(check_receipt(each, trust_in(archive.writer_key)).fault is None for each in parsed)
    # Sixteen films' receipts, the most that a call has, stay below the 8 kB that proxies take of headers.
    assert len(_receipt_headers(made * 8)["pneumoserve-receipts"]) < 6000


def test_a_record_that_is_gone_or_another_is_reported(archive: Archive) -> None:
    place, receipt = recorded(archive)
    other = given(archive, place, record_of(b"a third"))
    assert check_receipt(other, trust_in(archive.writer_key)).fault is None
    assert looked_up(archive, other).fault == "the archive does not hold its record"
    archive.remove(place.key)
    assert looked_up(archive, receipt).fault == "the archive does not hold its record"
    # An unsigned object with the very line does not help.
    archive.store.put(place.key, record_of(b"film") + b"\n", "application/x-ndjson")
    assert looked_up(archive, receipt).fault == "the archive does not hold its record"


@pytest.mark.parametrize(
    "change",
    [{"sequence": 2}, {"writer": "front-0000000b"}, {"hash": "0" * 64}, {"signature": "AAAA"}, {"signature": "!"}],
)
def test_a_receipt_that_was_changed_proves_nothing(archive: Archive, change: dict[str, object]) -> None:
    _, receipt = recorded(archive)
    changed = receipt.model_copy(update=change)
    assert check_receipt(changed, trust_in(archive.writer_key)).fault == "its signature does not fit it"


def test_a_receipt_of_a_stranger_proves_nothing(archive: Archive) -> None:
    _, receipt = recorded(archive)
    fault = check_receipt(receipt, trust_in(Ed25519PrivateKey.generate())).fault
    assert fault is not None
    assert "no trusted writer" in fault


def test_what_a_segment_is_signed_with_signs_no_receipt(archive: Archive) -> None:
    """The two begin otherwise, so that neither signature can be taken for the other."""
    place, receipt = recorded(archive)
    signature = json.loads(archive.store.get(place.key).splitlines()[-1])["signature"]
    stolen = receipt.model_copy(update={"signature": signature})
    assert check_receipt(stolen, trust_in(archive.writer_key)).fault is not None


def test_labels_have_receipts_too(archive: Archive) -> None:
    label = Label(
        label_id=uuid7(), prediction_id=uuid7(), time=f"{DATE}T12:00:00.000Z", release=RELEASE, source="radiologist",
        author="r.17", finding="normal",
    )  # fmt: skip
    (made,) = append(archive.store, archive.writer_key, [label], "label")
    receipt = GivenReceipt.model_validate(made.model_dump(exclude={"recorded"}))
    assert looked_up(archive, receipt).fault is None


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"17", b"{", b'[{"writer": "w", "sequence": 1, "hash": "h"}]', b'{"writer": "../x-00000000"}']
)
def test_what_is_no_receipt_is_reported(text: bytes) -> None:
    with pytest.raises(ReceiptError, match="pneumoserve-receipts"):
        parse_receipts(text)


def test_the_command_checks_an_answers_header(archive: Archive, tmp_path: Path) -> None:
    _, receipt = recorded(archive)
    write_public_key(archive.writer_key, tmp_path / "writers")
    file = tmp_path / "receipts.json"
    file.write_text(json.dumps([receipt.model_dump()]))
    words = ["archive", "check-receipt", str(file), "--offline", "--trust", str(tmp_path / "writers")]
    done = invoke(words, {})
    assert (done.returncode, "a trusted writer signed it" in done.stdout) == (0, True)
    file.write_text(json.dumps({**receipt.model_dump(), "sequence": 7}))
    done = invoke([*words, "--json"], {})
    assert done.returncode == 1
    assert json.loads(done.stdout)[0]["fault"] == "its signature does not fit it"
    file.write_text("[]")
    assert invoke(words, {}).returncode == 2
    assert invoke([*words[:2], str(tmp_path / "nowhere"), *words[3:]], {}).returncode == 2
