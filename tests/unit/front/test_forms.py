"""Forms of multipart/form-data on `:predict`, and bodies that are no image, no form and no JSON."""

from __future__ import annotations

import gzip
import time

import httpx
import pytest

from pneumoserve.records import Pseudonyms
from tests.support import films
from tests.support.front import REFERENCE_KEY, Front

FILM = films.sample_films()[0].read_bytes()
NAME = "Mustermann^Erika.jpeg"
PREDICT = "/v1/models/pneumonia:predict"
BOUNDARY = "a-boundary"
KIND = f"multipart/form-data; boundary={BOUNDARY}"


def part(headers: str, content: bytes = FILM) -> bytes:
    """One part of a form written by hand."""
    return f"--{BOUNDARY}\r\n{headers}\r\n\r\n".encode() + content + b"\r\n"


FILE = 'Content-Disposition: form-data; name="file"; filename="Mustermann.jpeg"'
END = f"--{BOUNDARY}--\r\n".encode()


async def send(front: Front, body: bytes, kind: str = KIND) -> httpx.Response:
    return await front.predict(body, {"content-type": kind})


async def test_a_form_is_answered_as_its_image_is(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    response = await front.http.post(PREDICT, files={"file": (NAME, FILM, "image/jpeg")})
    assert response.status_code == 200, response.text
    (answer,) = response.json()["predictions"]
    (plain,) = (await front.predict(FILM)).json()["predictions"]
    changing = {"prediction_id": None}
    assert answer | changing == plain | changing
    record = front.record(answer["prediction_id"])
    # The name of the file may be the patient's.
    assert "Mustermann" not in record.model_dump_json() + caplog.text + response.text
    assert front.record(plain["prediction_id"]).image == record.image


async def test_several_files_are_images_of_one_study(front: Front) -> None:
    sent = [("file", (NAME, data)) for data in (FILM, films.LEG_DICOM.read_bytes(), FILM)]
    response = await front.http.post(PREDICT, files=sent, data={"study": "ACC-1", "patient": "Größe"})
    assert response.status_code == 200, response.text
    answered = response.json()
    assert [row["finding"] for row in answered["predictions"]] == ["pneumonia", None, "pneumonia"]
    assert answered["study"]["referred"] is True
    hashed = Pseudonyms(REFERENCE_KEY).hash
    call = front.record(answered["predictions"][0]["prediction_id"]).call
    assert (call.study, call.patient) == (hashed("study", "ACC-1"), hashed("patient", "Größe"))
    assert (call.count, call.encoding) == (3, "plain")


async def test_headers_name_the_study_of_a_form_too(front: Front) -> None:
    response = await front.http.post(PREDICT, files={"file": FILM}, headers={"Pneumoserve-Study": "ACC-1"})
    assert "study" in response.json()


@pytest.mark.parametrize("content", [b"\r\n", b"\r\n--a-boundar", b"--a-boundary"])
async def test_bytes_like_a_boundary_are_part_of_an_image(content: bytes, front: Front) -> None:
    """After the end of a JPEG anything may stand; here, what a careless parser ends the part at."""
    body = part(FILE, FILM + content) + END
    response = await send(front, body)
    assert response.status_code == 200, response.text
    (answer,) = response.json()["predictions"]
    image = front.record(answer["prediction_id"]).image
    assert image is not None
    assert image.input_bytes == len(FILM + content)


BAD: dict[str, tuple[bytes, str, int, str]] = {
    "no boundary": (part(FILE) + END, "multipart/form-data", 400, "no boundary"),
    "an empty boundary": (part(FILE) + END, 'multipart/form-data; boundary=""', 400, "no boundary"),
    "an endless boundary": (part(FILE) + END, "multipart/form-data; boundary=" + "b" * 9000, 400, "malformed"),
    "another boundary": (part(FILE) + END, "multipart/form-data; boundary=other", 400, "malformed"),
    "nothing": (b"", KIND, 400, "breaks off"),
    "cut short": ((part(FILE) + END)[:-6], KIND, 400, "breaks off"),
    "no part": (END, KIND, 400, "no image"),
    "no file": (part('Content-Disposition: form-data; name="study"', b"ACC-1") + END, KIND, 400, "no image"),
    "another field": (part('Content-Disposition: form-data; name="image"') + END, KIND, 400, "parts called file"),
    "a part without a name": (part("Content-Type: image/jpeg") + END, KIND, 400, "parts called file"),
    "two studies": (part('Content-Disposition: form-data; name="study"', b"1") * 2 + END, KIND, 400, "at most one"),
    "a study that is no text": (
        part('Content-Disposition: form-data; name="study"', b"\xff") + END, KIND, 400, "study is no UTF-8",
    ),
    "a long study": (
        part(FILE) + part('Content-Disposition: form-data; name="study"', b"x" * 257) + END, KIND, 400, "1 to 256",
    ),
    "base64": (part(f"{FILE}\r\nContent-Transfer-Encoding: base64", b"AAAA") + END, KIND, 400, "Transfer-Encoding"),
    "many headers": (part("\r\n".join([FILE, *["A: b"] * 20])) + END, KIND, 400, "malformed"),
    "a huge header": (part(FILE + "x" * 9000) + END, KIND, 400, "malformed"),
    "seventeen files": (part(FILE) * 17 + END, KIND, 400, "1 to 16 images, not 17"),
    "a mixed body": (part(FILE) + END, f"multipart/mixed; boundary={BOUNDARY}", 415, "send multipart/form-data"),
    "a PDF in it": (part(FILE, b"%PDF-1.7 Mustermann") + END, KIND, 415, "looks like a PDF"),
    "an empty file": (part(FILE, b"") + END, KIND, 400, "empty"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_form_is_refused_on_record(name: str, front: Front, caplog: pytest.LogCaptureFixture) -> None:
    body, kind, status, words = BAD[name]
    response = await send(front, body, kind)
    assert response.status_code == status, response.text
    message = response.json()["error"]
    assert words in message
    assert "Mustermann" not in message
    # The parser's own lines would quote what was sent, byte by byte.
    assert not caplog.records
    record = front.record(response.json()["prediction_id"])
    assert record.error is not None
    assert record.error.message == message


async def test_a_million_parts_end_at_the_first_too_many(front: Front) -> None:
    one = part('Content-Disposition: form-data; name="file"', b"")
    body = one * (40_000_000 // len(one)) + END
    before = time.process_time()
    response = await send(front, body)
    assert (response.status_code, "more than 21 parts" in response.json()["error"]) == (400, True)
    # All of them would take more than a second.
    assert time.process_time() - before < 1.0


NO_IMAGE = {
    "a PDF": (b"%PDF-1.7\n%\xe2\xe3", 415),
    "a ZIP archive": (b"PK\x03\x04\x14", 415),
    "a gzip archive": (gzip.compress(FILM), 415),
    "a HEIC photograph": (b"\x00\x00\x00\x18ftypheic", 415),
    "text": (b"Dear colleague,\r\nplease find attached", 400),
}


@pytest.mark.parametrize("looks", NO_IMAGE)
@pytest.mark.parametrize("kind", ["application/octet-stream", "application/pdf", "text/plain"])
async def test_what_is_no_image_is_told_what_it_looks_like(looks: str, kind: str, front: Front) -> None:
    body, status = NO_IMAGE[looks]
    response = await front.predict(body, {"content-type": kind})
    assert response.status_code == status
    assert f"looks like {looks}; send a JSON object, or the bytes of a JPEG" in response.json()["error"]


@pytest.mark.parametrize("looks", NO_IMAGE)
async def test_what_is_sent_as_an_image_and_is_none_is_told_so_too(looks: str, front: Front) -> None:
    response = await front.predict(NO_IMAGE[looks][0], {"content-type": "image/jpeg"})
    assert response.status_code == 415
    assert f"looks like {looks}; send the X-ray" in response.json()["error"]
