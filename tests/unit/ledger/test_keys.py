"""The archive's keys, as the chart's Job makes them: each once, whole, and shown to nobody but the API server."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pneumoserve.alerts import Links
from pneumoserve.ledger.keys import ApiError, create, new_secret
from pneumoserve.records import Pseudonyms, load_opening_key, load_sealing_key
from pneumoserve.review import Chance
from pneumoserve.signing import key_id, load_key, load_trust
from tests.support.apiserver import listening


class Secrets:
    """What an API server knows of Secrets; `status` is what it answers instead, where it is set."""

    def __init__(self) -> None:
        self.made: dict[str, Any] = {}
        self.status = 0

    def answer(self, method: str, path: str, content_type: str, body: bytes) -> tuple[int, Any]:
        assert (method, path, content_type) == ("POST", "/api/v1/namespaces/pneumo/secrets", "application/json")
        document = json.loads(body)
        name = document["metadata"]["name"]
        if self.status or name in self.made:
            return self.status or 409, {}
        self.made[name] = document
        return 201, document


@pytest.fixture
def api(tmp_path: Path) -> Iterator[tuple[Secrets, http.client.HTTPConnection]]:
    secrets = Secrets()
    with listening(secrets.answer, tmp_path) as kubeconfig:
        address = urlsplit(json.loads(kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)
        yield secrets, connection
        connection.close()


@pytest.mark.parametrize("kind", ["signing", "sealer"])
def test_a_signers_secret_holds_both_halves_of_one_key(kind: Any, tmp_path: Path) -> None:
    secret = new_secret(kind, "s", "pneumo", "pneumoserve")
    (tmp_path / "private").write_text(secret["stringData"]["key.pem"])
    (tmp_path / "public.pem").write_text(secret["stringData"]["public.pem"])
    key = load_key(tmp_path / "private")
    assert list(load_trust(tmp_path).keys) == [key_id(key.public_key())]
    assert new_secret(kind, "s", "pneumo", "pneumoserve")["stringData"] != secret["stringData"]


def test_the_key_of_references_is_one(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(new_secret("references", "s", "pneumo", "pneumoserve")["stringData"]["key"])
    assert Pseudonyms.read(tmp_path / "key")


def test_the_reading_rooms_keys_are_such_as_its_processes_read(tmp_path: Path) -> None:
    keys = new_secret("review", "s", "pneumo", "pneumoserve")["stringData"]
    for name, text in keys.items():
        (tmp_path / name).write_text(text)
    opening = load_opening_key(tmp_path / "envelope.pem")
    sealing = load_sealing_key(tmp_path / "envelope.pub.pem")
    assert opening.public_key().public_bytes_raw() == sealing.public_bytes_raw()
    alert_id = "01890a5d-ac96-774b-bcce-b302099a8057"
    now = datetime.now(UTC)
    links = Links.read(tmp_path / "links")
    assert links.alert_of(links.make(alert_id, now), now) == alert_id
    assert Chance.read(tmp_path / "chance")
    assert len(keys["session"]) == 64
    assert len(set(keys.values())) == 5


def test_a_secret_that_is_there_stays_as_it_is(api: tuple[Secrets, http.client.HTTPConnection]) -> None:
    secrets, connection = api
    assert create(connection, "token", new_secret("signing", "one", "pneumo", "i"))
    first = secrets.made["one"]
    assert not create(connection, "token", new_secret("signing", "one", "pneumo", "i"))
    assert secrets.made["one"] is first


def test_a_refusal_says_what_to_do_and_holds_no_key(api: tuple[Secrets, http.client.HTTPConnection]) -> None:
    secrets, connection = api
    secrets.status = 403
    with pytest.raises(ApiError, match=r"Secret one \(status 403\); make it yourself") as caught:
        create(connection, "token", new_secret("signing", "one", "pneumo", "i"))
    assert "PRIVATE" not in str(caught.value)


def test_an_api_server_out_of_reach_is_reported() -> None:
    connection = http.client.HTTPConnection("127.0.0.1", 1, timeout=1)
    with pytest.raises(ApiError, match="cannot be reached"):
        create(connection, "token", new_secret("signing", "one", "pneumo", "i"))
