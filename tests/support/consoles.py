"""A console over a ward's archive, and people who look at it."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from fastapi import FastAPI
from itsdangerous import TimestampSigner

from pneumoserve.alerts import Links
from pneumoserve.canonical import digest_of
from pneumoserve.console import ConsoleSettings, Services, create_app
from pneumoserve.console.heat_maps import HeatMaps
from pneumoserve.ids import uuid7
from pneumoserve.imaging.pool import shared_pool
from pneumoserve.records import Addressee, Label, envelope_key, image_key, seal_envelope
from pneumoserve.review import CaseBook, ReviewDatabase
from tests.support.films import encoded, film_image
from tests.support.reviews import Ward, answer, case_of

FILM = encoded(film_image().convert("L").resize((640, 512)), "JPEG")
LINKS = Links([Fernet.generate_key().decode()])
OPENING = X25519PrivateKey.generate()
NAMES = Addressee(practitioner="Zq-<practitioner>", reference="Zq-reference")
SESSION_KEY = b"a session key of the tests, 32 b"


@dataclass
class Clinic:
    """A ward whose people have a console."""

    ward: Ward
    folder: Path
    flags: Sequence[str] = ()
    app: FastAPI = field(init=False)

    def __post_init__(self) -> None:
        key = self.folder / "session.key"
        key.write_bytes(SESSION_KEY)
        ward = self.ward
        settings = ConsoleSettings.from_flags([f"--session-key={key}", *self.flags])
        self.services = Services(
            store=ward.store,
            reader=ward.reader,
            database=ward.database,
            room=ward.room,
            desk=ward.desk,
            cases=CaseBook(ward.database, ward.commit, ward.now),
            links=LINKS,
            decoders=shared_pool(),
            heat_maps=HeatMaps(ward.store, shared_pool(), self.folder / "releases", self.folder / "trust"),
            releases=self.folder,
            trust=self.folder,
            opening=OPENING,
            prevalence=settings.prevalence,
            now=ward.now,
        )
        self.app = create_app(settings, self.services)
        ward.store.put(image_key(digest_of(FILM)), FILM, "image/jpeg")

    def study_of(self, data: bytes, media_type: str) -> str:
        """A study on record whose one image is this one; the key that the store has it under."""
        record = answer("shown", "uncertain", self.ward.time)
        key = image_key(digest_of(data))
        self.ward.store.put(key, data, media_type)
        self.ward.put(record.model_copy(update={"image": record.image.model_copy(update={"stored_key": key})}))
        return key

    def study(self, name: str, *kinds: str) -> str:
        """A study on record, with an image of each kind of answer that the store has."""
        records = []
        for kind in kinds:
            record = answer(name, kind, self.ward.time)
            image = record.image.model_copy(update={"format": "jpeg", "stored_key": image_key(digest_of(FILM))})
            records.append(record.model_copy(update={"image": image}))
        self.ward.put(*records)
        self.ward.later(seconds=1)
        return case_of(name)

    def name(self, case_id: str, number: int = 1) -> str:
        """Put an envelope beside an image of a study, the first is 1; its key in the store."""
        prediction_id = self.services.cases.load(case_id).images[number - 1].prediction_id
        sealed = seal_envelope(OPENING.public_key(), prediction_id, NAMES)
        self.ward.store.put(envelope_key(prediction_id), sealed, "application/octet-stream")
        return envelope_key(prediction_id)

    def alert(self) -> str:
        """Raise alerts; the link's token of the first."""
        return LINKS.make(self.ward.desk.raise_alerts()[0].alert_id, self.ward.now())

    def alert_id(self, link: str) -> str:
        """The alert that a link's token is for."""
        return LINKS.alert_of(link, self.ward.now())

    def someone(self, name: str | None = None, *roles: str) -> Browser:
        """A person with these roles; nobody who has signed in without a name."""
        return Browser(self.app, name, roles)

    def labels(self, case_id: str) -> list[Label]:
        return self.services.cases.load(case_id).of(Label)


def cookie_of(session: dict[str, Any]) -> str:
    data = base64.b64encode(json.dumps(session).encode())
    return TimestampSigner(SESSION_KEY.hex()).sign(data).decode()


class Browser(httpx.AsyncClient):
    """Loads pages, and sends the form of the last one."""

    def __init__(self, app: FastAPI, name: str | None, roles: Sequence[str]) -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        super().__init__(transport=transport, base_url="http://127.0.0.1")
        if name is not None:
            now = int(time.time())
            self.sign_in({"name": name, "roles": list(roles), "since": now, "seen": now})

    def sign_in(self, session: dict[str, Any]) -> None:
        self.cookies.set("console", cookie_of(session), domain="127.0.0.1")

    async def token(self, page: str = "/") -> str:
        """The token of a page's forms."""
        found = re.search(r'name="token" value="([^"]+)"', (await self.get(page)).text)
        return found[1] if found else ""

    async def submit(self, place: str, page: str = "/", **fields: str) -> httpx.Response:
        """Open a page, and send a form of it."""
        token = await self.token(page)
        return await self.post(place, data={"token": token, **fields}, headers={"sec-fetch-site": "same-origin"})

    async def next_study(self) -> str:
        """Take the next study; the place of its page."""
        answer = await self.submit("/studies/next")
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    async def read(self, **fields: str) -> httpx.Response:
        """Take the next study, and save a verdict."""
        place = await self.next_study()
        return await self.submit(place, place, **{**VERDICT, **fields})


VERDICT = {"finding": "pneumonia", "certainty": "sure", "type": "viral", "comment": "", "no_result": "yes"}


def new_clinic(folder: Path, *flags: str) -> Clinic:
    return Clinic(Ward(ReviewDatabase(f"sqlite:///{folder / 'review.sqlite'}")), folder, flags)


def some_id() -> str:
    return uuid7()
