"""Films made to cost much, to hide text, or to be judged otherwise than they are stored."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from pneumoserve.imaging import ImageError, dicom
from pneumoserve.imaging.prepare import prepare
from tests.support import bombs, dicoms, films

ROOT = Path(__file__).parents[2]
ATTACKS = [found for folder in ROOT.parents if (found := folder / "shared" / "data" / "attacks").is_dir()]
LARGE = {"dicom_j2k16_40mp.bin", "png16_40mp.bin"}
WORDS = (b"ZQPATIENT", b"19700101")


@pytest.fixture(scope="module")
def costs() -> dict[str, dict[str, float]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.bombs"], cwd=ROOT, capture_output=True, text=True, timeout=240, check=True
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", [*bombs.REFUSED, *bombs.ACCEPTED])
@pytest.mark.slow
def test_a_bomb_costs_under_a_second_and_300_mb(costs: dict[str, dict[str, float]], name: str) -> None:
    cost = costs[name]
    assert cost["status"] in ((400, 415) if name in bombs.REFUSED else (200,))
    assert cost["seconds"] < 1.0
    assert cost["mib"] < 300


@pytest.mark.skipif(not ATTACKS, reason="the attack files lie beside the checkout on the developers' machine only")
def test_attack_files_are_refused_or_judged_as_they_are_stored() -> None:
    kept = []
    for path in sorted(ATTACKS[0].glob("*.bin")):
        if path.name in LARGE:
            continue
        try:
            film = prepare(path.read_bytes())
        except ImageError as error:
            assert error.status in (400, 413, 415), path.name
            continue
        kept.append(path.name)
        assert not any(word in film.stored for word in WORDS), path.name
        assert prepare(film.stored).stored == film.stored, path.name
        assert prepare(film.stored).pixels_sha256 == film.pixels_sha256, path.name
    assert kept == ["dicom_j2k_com.bin", "dicom_jpeg_com.bin", "dicom_tail.bin", "jpeg_xmp_orientation.bin"]


SEEDS = {
    **{kind: dicoms.film(kind, dicoms.scene(8 if kind == "jpeg" else 12), 8 if kind == "jpeg" else 12)
       for kind in dicoms.SYNTAXES},
    "jpeg file": films.encoded(films.film_image(), "JPEG", restart_marker_blocks=4),
    "progressive jpeg file": films.encoded(films.film_image(), "JPEG", progressive=True),
    "jpeg with texts": films.jpeg_with_texts(6),
    "png with texts": films.png_with_texts(),
    "png of 16 bits": films.encoded(Image.fromarray(dicoms.scene(16).astype("u2")), "PNG"),
}  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(SEEDS)), st.data())
@pytest.mark.slow
def test_a_damaged_film_is_refused_or_judged_as_it_is_stored(name: str, data: st.DataObject) -> None:
    good = SEEDS[name]
    # The headers stand in front; half of the damage goes there.
    at = data.draw(st.one_of(st.integers(128, min(1_500, len(good) - 1)), st.integers(2, len(good) - 1)))
    bad = good[:at] + data.draw(st.binary(max_size=8)) + good[at + data.draw(st.integers(0, 8)) :]
    try:
        film = prepare(bad)
    except ImageError as error:
        assert error.status in (400, 413, 415)
        return
    again = prepare(film.stored)
    assert again.pixels_sha256 == film.pixels_sha256
    assert again.stored == film.stored
    assert again.facts == film.facts


def status_of(data: bytes) -> int:
    with pytest.raises(ImageError) as caught:
        prepare(data)
    return caught.value.status


@pytest.mark.parametrize("word", ["nan", "NaN", "inf", "-Infinity", "1e999"])
@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"])
def test_a_number_that_is_none_is_refused(keyword: str, word: str) -> None:
    numbers = {"RescaleSlope": b"1", "RescaleIntercept": b"0", "WindowCenter": b"9", "WindowWidth": b"9"}
    dataset = pydicom.dcmread(io.BytesIO(dicoms.film("explicit", dicoms.scene(12), 12)))
    for each, value in {**numbers, keyword: word.encode()}.items():
        tag = Tag(each)
        dataset[tag] = RawDataElement(tag, "DS", len(value), value, 0, False, True)
    assert status_of(films.written(dataset)) == 400


def test_a_rescale_beyond_all_numbers_is_refused() -> None:
    values = dicoms.scene(16)
    assert status_of(dicoms.film("explicit", values, 16, RescaleSlope="1e308", RescaleIntercept="0")) == 400


@pytest.mark.parametrize(("stated", "status"), [("YES", 415), ("yes ", 415), ("NO", 200), ("", 200)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_film_with_text_in_its_pixels_is_not_taken(stated: str, status: int) -> None:
    data = dicoms.film("explicit", dicoms.scene(8), 8, BurnedInAnnotation=stated)
    if status == 200:
        prepare(data)
    else:
        assert status_of(data) == status


def test_a_film_with_text_in_its_pixels_that_was_once_taken_can_be_replayed() -> None:
    method = "pneumoserve attribute allow-list 1"
    film = prepare(dicoms.film("explicit", dicoms.scene(8), 8, BurnedInAnnotation="YES", DeidentificationMethod=method))
    assert prepare(film.stored).stored == film.stored
    prepare(dicoms.film("explicit", dicoms.scene(8), 8, DeidentificationMethod=["a long account of it"] * 100))


def test_a_film_whose_copy_could_not_be_read_again_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dicoms.film("explicit", dicoms.scene(8), 8)
    stored = prepare(data).stored
    monkeypatch.setattr(dicom, "MAX_BYTES", len(stored) - 1)
    assert status_of(data) == 413


def film_with_lut(first: int, entries: int, table: list[int], bits: int = 16, keyword: str = "VOILUTSequence") -> bytes:
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", [entries, first, bits])
    item.add_new("LUTExplanation", "LO", "ZQPATIENT")
    item.add_new("LUTData", "OW", struct.pack(f"<{len(table)}H", *table))
    return dicoms.film("explicit", dicoms.scene(8), 8, **{keyword: [item]})


@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_lookup_table_is_held_to_its_descriptor(keyword: str) -> None:
    rising = [value * 16 for value in range(256)]
    film = prepare(film_with_lut(0, 256, rising, keyword=keyword))
    assert b"ZQPATIENT" not in film.stored
    assert prepare(film.stored).stored == film.stored
    assert film.pixels_sha256 == prepare(dicoms.film("explicit", dicoms.scene(8), 8)).pixels_sha256
    prepare(film_with_lut(0, 256, rising[::-1], keyword=keyword))
    for wrong in (rising[:-1], [*rising, 9_999], [*rising[:100], 0, *rising[101:]]):
        assert status_of(film_with_lut(0, 256, wrong, keyword=keyword)) == 400
    assert status_of(film_with_lut(0, 256, rising, bits=8, keyword=keyword)) == 400


def test_xmp_does_not_turn_a_film() -> None:
    plain = films.encoded(films.film_image(), "JPEG")
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    turned = films.encoded(films.film_image(), "JPEG", xmp=xmp)
    assert prepare(turned).pixels_sha256 == prepare(plain).pixels_sha256
    assert prepare(turned).stored == prepare(plain).stored


def exif(orientation: int, kind: int) -> bytes:
    """An EXIF segment whose orientation is of a TIFF type: 3 SHORT, 4 LONG."""
    value = struct.pack(">HH", orientation, 0) if kind == 3 else struct.pack(">I", orientation)
    tiff = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">HHHI", 1, 0x0112, kind, 1) + value + bytes(4)
    return struct.pack(">BBH", 0xFF, 0xE1, 2 + len(tiff)) + tiff


def jpeg_with(*segments: bytes) -> bytes:
    jpeg = films.encoded(films.film_image(), "JPEG")
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def test_orientation_is_a_short_and_the_first_one_counts() -> None:
    upright, turned = prepare(jpeg_with()), prepare(jpeg_with(exif(6, 3)))
    assert turned.pixels_sha256 != upright.pixels_sha256
    assert prepare(jpeg_with(exif(6, 4))).stored == upright.stored
    assert prepare(jpeg_with(exif(1, 3), exif(6, 3))).stored == upright.stored
    assert prepare(jpeg_with(exif(6, 3), exif(3, 3))).stored == turned.stored


def test_a_jpeg_of_several_pictures_is_refused() -> None:
    pictures = [films.film_image(), films.film_image().rotate(90)]
    assert status_of(films.encoded(pictures[0], "MPO", save_all=True, append_images=pictures[1:])) == 415


def test_a_jpeg_with_two_frame_headers_is_refused() -> None:
    jpeg = films.encoded(films.film_image(), "JPEG")
    at = jpeg.index(b"\xff\xc0")
    assert status_of(jpeg[:at] + jpeg[at : at + 13] + jpeg[at:]) == 400


def test_what_is_in_other_elements_is_passed_over() -> None:
    plain = dicoms.film("explicit", dicoms.scene(12), 12)
    nested = dicoms.empty_element(0x00091010, b"UN") + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    nested += (
        b"\x10\x00\x10\x00\x08\x00\x00\x00ZQDOE^JO" + b"\xfe\xff\x0d\xe0" + bytes(4) + b"\xfe\xff\xdd\xe0" + bytes(4)
    )
    assert prepare(dicoms.with_element(plain, nested)).stored == prepare(plain).stored


@pytest.mark.parametrize("attributes", [{"BitsAllocated": 32}, {"BitsStored": 17}, {"BitsStored": 0},
                                        {"SamplesPerPixel": 3}, {"PixelRepresentation": 2}, {"Rows": 0}])  # fmt: skip
def test_pixels_of_another_kind_are_refused(attributes: dict[str, Any]) -> None:
    assert status_of(dicoms.film("explicit", dicoms.scene(12), 12, **attributes)) in (400, 415)
