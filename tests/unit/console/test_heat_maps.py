"""Heat maps: hot where covering lowers the score; who may ask for one, when there is none, and that it is on record.

The detector is a stand-in; tests/integration/console has the real one.
"""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from pneumoserve.console import heat_maps
from pneumoserve.console.heat_maps import HeatMapBusyError, draw
from pneumoserve.imaging.prepare import prepare
from pneumoserve.models.scorer import Score
from pneumoserve.names import DETECTOR, TYPER
from pneumoserve.records import View, find_record, image_detail
from pneumoserve.release import Release, ReleaseError
from tests.conftest import wait_for
from tests.support.consoles import VERDICT, Clinic
from tests.support.entries import use
from tests.support.films import CHEST_DICOM, encoded
from tests.support.reviews import answer, case_of

DIGEST = "0123456789ab" + "c" * 52


class Looking:
    """A detector that looks at one square of 16 pixels: the brighter it is, the likelier is pneumonia."""

    def __init__(self, top: int, left: int, sign: int = 1) -> None:
        self.facts = {"calibration": {"slope": 2.0, "intercept": 0.0}}
        self.place = (slice(top, top + 16), slice(left, left + 16))
        self.sign = sign

    def scores(self, films: list[np.ndarray]) -> list[Score]:
        logits = [self.sign * float(film[self.place].mean()) / 64 for film in films]
        return [Score(1 / (1 + math.exp(-2 * logit)), logit, {}) for logit in logits]


def bright(top: int, left: int) -> np.ndarray:
    film = np.full((224, 224), 20, dtype=np.uint8)
    film[top : top + 16, left : left + 16] = 220
    return film


@pytest.mark.parametrize(("top", "left"), [(16, 16), (96, 160), (192, 32)])
def test_a_map_is_hot_where_what_drives_the_score_is_covered(top: int, left: int) -> None:
    made = draw(Looking(top, left), bright(top, left), math.inf)
    assert made.falls.shape == (13, 13)
    # Squares of 32 pixels begin at every 16th, so that four of them cover the whole of it.
    hot = {tuple(place) for place in np.argwhere(made.falls > 0.99 * made.falls.max())}
    assert hot == {(row, column) for row in (top // 16 - 1, top // 16) for column in (left // 16 - 1, left // 16)
                   if row < 13}  # fmt: skip
    assert np.count_nonzero(made.falls) == len(hot)
    assert made.lowest < made.probability == made.highest
    assert made.falls.max() == pytest.approx(math.log(made.probability / made.lowest * (1 - made.lowest)
                                                      / (1 - made.probability)))  # fmt: skip
    again = draw(Looking(top, left), bright(top, left), math.inf)
    assert made.to_json() == again.to_json()


def test_what_speaks_against_pneumonia_has_the_other_color() -> None:
    made = draw(Looking(96, 96, sign=-1), bright(96, 96), math.inf)
    assert made.falls.min() < 0 == made.falls.max()
    shown = made.to_json()
    assert np.array(shown["parts"]).min() == -1
    assert shown["edge"] == 8 / 224
    assert "With one place covered it is between" in shown["sentence"]


def test_a_map_without_much_in_it_is_faint() -> None:
    film = bright(96, 96)
    film[96:112, 96:112] = 21
    assert np.abs(draw(Looking(96, 96), film, math.inf).to_json()["parts"]).max() < 0.1


def test_a_map_that_takes_too_long_is_given_up() -> None:
    with pytest.raises(HeatMapBusyError):
        draw(Looking(0, 0), bright(0, 0), time.monotonic() - 1)


# --- the page


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Releases are there, with a detector that looks at a square; the ids of those that were asked for."""
    asked: list[str] = []

    def find(_: object, release_id: str, *__: object) -> Release:
        asked.append(release_id)
        return Release(Path("nowhere"), release_id, release_id + DIGEST[12:], None, ())

    monkeypatch.setattr(heat_maps, "find_or_fetch", find)
    monkeypatch.setattr(heat_maps, "_load_detector", lambda _: Looking(96, 96))
    return asked


def film_of(kind: str) -> bytes:
    if kind == "dicom":
        return CHEST_DICOM.read_bytes()
    image = Image.fromarray(bright(96, 96)).resize((448, 336))
    return encoded(image, kind)


def put(clinic: Clinic, kind: str = "PNG", **changes: Any) -> str:
    """A study whose one image was answered by a detector; its page."""
    film = prepare(film_of(kind))
    record = answer("mapped", "uncertain", clinic.ward.time)
    given = {"image": image_detail(film), "models": (use(DETECTOR, 0.6),), "release_digest": DIGEST, **changes}
    clinic.ward.store.put(given["image"].stored_key, film.stored, "image/png")
    clinic.ward.put(record.model_copy(update=given))
    return f"/studies/{case_of('mapped')}"


def views(clinic: Clinic) -> list[tuple[str, str]]:
    return [(each.by, each.page) for each in clinic.services.cases.load(case_of("mapped")).of(View)]


async def ask(clinic: Clinic, page: str, *roles: str, number: str = "1") -> httpx.Response:
    return await clinic.someone("x.1", *(roles or ("lead",))).get(f"{page}/heat-maps/{number}")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "dicom"])
async def test_a_map_is_of_the_image_as_the_models_saw_it_and_on_record(
    kind: str, clinic: Clinic, detector: list[str]
) -> None:
    page = put(clinic, kind)
    found = await ask(clinic, page)
    assert (found.status_code, found.headers["content-type"]) == (200, "application/json")
    made = draw(Looking(96, 96), prepare(film_of(kind)).pixels, math.inf)
    assert found.json() == made.to_json()
    assert detector == ["0123456789ab"]
    assert views(clinic) == [("x.1", "heat_map")]


async def test_a_reader_sees_a_map_once_their_reading_is_saved(clinic: Clinic, detector: list[str]) -> None:
    page = put(clinic)
    reader = clinic.someone("r.1", "reader")
    place = await reader.next_study()
    reading = (await reader.get(place)).text
    assert ("<canvas" in reading, "heat" in reading.lower()) == (True, False)
    early = await reader.get(f"{page}/heat-maps/1")
    assert (early.status_code, "once your own reading of it is saved" in early.text, detector) == (409, True, [])
    await reader.submit(place, place, **VERDICT)
    shown = (await reader.get(page)).text
    assert f'data-heat-map="{page}/heat-maps/1"' in shown
    assert "An aid, not a finding:" in shown
    assert (await reader.get(f"{page}/heat-maps/1")).status_code == 200
    (label,) = clinic.labels(case_of("mapped"))
    assert label.reading.blind


async def test_a_practitioner_sees_a_map_for_a_stated_reason_alone(clinic: Clinic, detector: list[str]) -> None:
    page = put(clinic)
    doctor = clinic.someone("d.1", "practitioner")
    refused = await doctor.get(f"{page}/heat-maps/1")
    assert (refused.status_code, "This study is not yours" in refused.text) == (409, True)
    await doctor.submit(f"{page}/break-glass", why="The child worsens.")
    assert (await doctor.get(f"{page}/heat-maps/1")).status_code == 200


@pytest.mark.parametrize(
    ("roles", "status", "sentence"),
    [
        (("auditor",), 403, "for the role lead or practitioner or reader"),
        (("auditor", "practitioner"), 409, "the images of this study are not yours to see"),
        (("admin",), 403, "which you do not have"),
    ],
)
async def test_others_see_none(
    roles: tuple[str, ...], status: int, sentence: str, clinic: Clinic, detector: list[str]
) -> None:
    refused = await ask(clinic, put(clinic), *roles)
    assert (refused.status_code, sentence in refused.text) == (status, True)
    assert (views(clinic), detector) == ([], [])


async def test_whoever_saw_a_map_is_no_blind_reader_and_gets_the_study_no_more(
    clinic: Clinic, detector: list[str]
) -> None:
    page = put(clinic)
    both = clinic.someone("x.1", "lead", "reader")
    assert (await both.get(f"{page}/heat-maps/1")).status_code == 200
    assert await both.next_study() == "/?empty=1"
    await both.submit(f"{page}/claim")
    assert (await both.submit(f"{page}/read", f"{page}/read", **VERDICT)).status_code == 303
    (label,) = clinic.labels(case_of("mapped"))
    assert label.reading.not_blind == ("opened_answer",)


async def test_a_map_that_could_not_be_put_on_record_is_not_shown(clinic: Clinic, detector: list[str]) -> None:
    page = put(clinic)
    clinic.ward.fails = True
    refused = await ask(clinic, page)
    assert (refused.status_code, "parts" in refused.text) == (503, False)


# --- where there is none


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"models": (use(TYPER, 0.6),)}, "the detector was not asked about this image"),
        ({"models": ()}, "the detector was not asked about this image"),
        ({"release_digest": "0123456789ab" + "d" * 52}, "what is here as release 0123456789ab is not the one that"),
    ],
)
async def test_an_answer_that_has_no_map_is_told_why(
    changes: dict[str, Any], sentence: str, clinic: Clinic, detector: list[str]
) -> None:
    found = await ask(clinic, put(clinic, **changes))
    assert (found.status_code, sentence in found.text, views(clinic)) == (404, True, [])


async def test_an_image_that_decodes_to_other_pixels_has_none(clinic: Clinic, detector: list[str]) -> None:
    image = image_detail(prepare(film_of("PNG"))).model_copy(update={"pixels_sha256": "e" * 64})
    found = await ask(clinic, put(clinic, image=image))
    assert (found.status_code, "decodes to other pixels" in found.text) == (404, True)


@pytest.mark.parametrize(
    ("becomes", "status", "sentence"),
    [(None, 404, "The store no longer has this image"), (b"other", 500, "copy of this image was altered")],
)
async def test_an_image_that_was_erased_or_altered_has_none(
    becomes: bytes | None, status: int, sentence: str, clinic: Clinic, detector: list[str]
) -> None:
    page = put(clinic)
    key = image_detail(prepare(film_of("PNG"))).stored_key
    if becomes is None:
        clinic.ward.store.erase(key)
    else:
        clinic.ward.store.put(key, becomes, "image/png")
    found = await ask(clinic, page)
    assert (found.status_code, sentence in found.text, views(clinic)) == (status, True, [])


@pytest.mark.parametrize("place", ["/studies/nowhere/heat-maps/1", "MAPPED/heat-maps/0", "MAPPED/heat-maps/2",
                                   "MAPPED/heat-maps/x"])  # fmt: skip
async def test_there_is_none_of_what_is_not_there(place: str, clinic: Clinic, detector: list[str]) -> None:
    found = await clinic.someone("l.1", "lead").get(place.replace("MAPPED", put(clinic)))
    assert (found.status_code, views(clinic)) == (404, [])


async def test_a_record_that_no_trusted_key_signed_has_none(clinic: Clinic, detector: list[str]) -> None:
    page = put(clinic)
    for item in list(clinic.ward.store.list("records/")):
        clinic.ward.memory.hide(item.key)
    found = await ask(clinic, page)
    assert (found.status_code, "no record of this image that a trusted key signed" in found.text) == (404, True)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ReleaseError("revoked", "Release 0123456789ab is revoked; deploy another release."), "is revoked"),
        (ReleaseError("unreadable", "There is no release 0123456789ab here, nor in the store."), "nor in the store"),
        (OSError(28, "No space left on device"), "cannot write the release to its disk"),
    ],
)
async def test_a_release_that_cannot_be_used_is_told_and_the_rest_goes_on(
    error: Exception, sentence: str, clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(heat_maps, "find_or_fetch", fail)
    page = put(clinic)
    found = await ask(clinic, page)
    assert (found.status_code, "There is no heat map" in found.text, sentence in found.text) == (404, True, True)
    lead = clinic.someone("l.1", "lead")
    assert [(await lead.get(page + rest)).status_code for rest in ("", "/images/1")] == [200, 200]


async def test_no_more_than_three_ask_at_once(
    clinic: Clinic, detector: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is made, two wait, the next is told to come again; then there is place."""
    go_on, at_work = threading.Event(), []

    class Slow(Looking):
        def scores(self, films: list[np.ndarray]) -> list[Score]:
            at_work.append(threading.current_thread())
            assert go_on.wait(60)
            return super().scores(films)

    monkeypatch.setattr(heat_maps, "_load_detector", lambda _: Slow(96, 96))
    page = put(clinic)
    record = record_of(clinic)
    made: list[Any] = []
    threads = [threading.Thread(target=lambda: made.append(clinic.services.heat_maps.make(record))) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_for(lambda: clinic.services.heat_maps._places._value == 0 and at_work)
    refused = await ask(clinic, page)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert "busy with other heat maps; try again" in refused.text
    assert len(set(at_work)) == 1
    go_on.set()
    for thread in threads:
        thread.join()
    assert len(made) == 3
    assert (await ask(clinic, page)).status_code == 200


def record_of(clinic: Clinic) -> Any:
    (image,) = clinic.services.cases.load(case_of("mapped")).images
    return find_record(clinic.services.reader, image.prediction_id)


async def test_two_releases_stay_loaded(clinic: Clinic, detector: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(release: Release) -> Looking:
        loaded.append(release.id)
        return Looking(96, 96)

    monkeypatch.setattr(heat_maps, "_load_detector", load)
    put(clinic)
    record = record_of(clinic)
    for first in "aabacba":
        name = first * 12
        clinic.services.heat_maps.make(
            record.model_copy(update={"release": name, "release_digest": name + DIGEST[12:]})
        )
    assert [each[0] for each in loaded] == ["a", "b", "c", "b", "a"]
    assert len(detector) == 7
