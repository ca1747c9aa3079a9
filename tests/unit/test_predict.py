"""`predict` against a server that gives set answers: what a person reads in a terminal of 80 columns."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pneumoserve.cli import predict as command
from pneumoserve.decision import Decision
from pneumoserve.ids import uuid7
from pneumoserve.local.answers import FileAnswer, describe_answer, describe_reasons, print_answers, shorten
from pneumoserve.release.schema import INTENDED_USE, TYPE_NOTICE
from tests.support import films
from tests.support.commands import Ran, invoke

FILM = films.sample_films()[0]


def decided(finding: Any, leaning: Any, confidence: float | None, *reasons: Any, **more: Any) -> Decision:
    fields = {"pneumonia_type": None, "referred": bool(reasons), **more}
    return Decision(finding=finding, leaning=leaning, confidence=confidence, reasons=reasons, **fields)


NORMAL = decided("normal", "normal", 0.9871)
VIRAL = decided("pneumonia", "pneumonia", 0.99981, pneumonia_type="viral", type_probability=0.8679)
UNTYPED = decided("pneumonia", "pneumonia", 0.996, "uncertain_type")
UNSURE = decided(None, "normal", 0.974, "uncertain_finding")
OUTSIDE = decided(None, "pneumonia", 0.878, "outside_population", "uncertain_finding")
LEG = decided(None, None, None, "not_a_chest_film")


@dataclass
class Service:
    """A service that answers every call alike; `received` are the bodies that came."""

    status: int = 200
    body: bytes = b""
    received: list[bytes] = field(default_factory=list)
    port: int = 0

    def answer(self, decision: Decision, **more: Any) -> None:
        notice = TYPE_NOTICE if decision.pneumonia_type else None
        prediction = {"prediction_id": uuid7(), **decision.model_dump(mode="json"), "notice": notice}
        self.body = json.dumps({"predictions": [prediction], "intended_use": INTENDED_USE, **more}).encode()

    def refuse(self, status: int, document: Any) -> None:
        self.status, self.body = status, json.dumps(document).encode()


@pytest.fixture
def service() -> Iterator[Service]:
    found = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            # `path` has one slash where two were sent.
            ours = self.requestline.split()[1] == "/v1/models/pneumonia:predict"
            found.received.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(found.status if ours else 404)
            self.end_headers()
            self.wfile.write(found.body if ours else b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.port = server.server_port
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal of 80 columns in place of the program's."""
    shown = io.StringIO()
    monkeypatch.setattr(command, "console", Console(file=shown, width=80, highlight=False))
    return shown


def predict(service: Service, *words: str | Path, url: str | None = None) -> Ran:
    address = f"http://127.0.0.1:{service.port}" if url is None else url
    return invoke(["predict", *map(str, words), "--url", address], {})


def table_of(*answers: FileAnswer, width: int = 80) -> str:
    shown = io.StringIO()
    print_answers(Console(file=shown, width=width, highlight=False), answers)
    return shown.getvalue()


@pytest.mark.parametrize(
    ("decision", "words", "reasons"),
    [
        (NORMAL, "normal", ""),
        (VIRAL, "pneumonia, viral pattern", ""),
        (UNTYPED, "pneumonia, type unsure", "type not sure enough"),
        (UNSURE, "a human must look; leans normal", "not sure enough either way"),
        (OUTSIDE, "a human must look; leans pneumonia", "age unknown or out of range, not sure enough either way"),
        (LEG, "a human must look", "no upright chest X-ray"),
    ],
)
def test_every_answer_has_its_words(decision: Decision, words: str, reasons: str) -> None:
    assert describe_answer(decision) == words
    assert describe_reasons(decision) == reasons


def test_a_table_fits_in_80_columns_and_cuts_nothing_but_names() -> None:
    names = ["person1121_virus_1846.jpeg", "a.dcm", "a-name-that-is-much-too-long-for-any-table-0017.jpeg"]
    decisions = (NORMAL, VIRAL, UNTYPED, UNSURE, OUTSIDE, LEG)
    shown = table_of(*(FileAnswer(name, decision) for name in names for decision in decisions))
    assert max(map(len, shown.splitlines())) <= 80
    assert [line for line in shown.splitlines() if "…" in line and "a-name" not in line] == []
    assert "0017.jpeg" in shown
    rows = [re.split(r"  +", line.strip()) for line in shown.splitlines()]
    assert ["a.dcm", "pneumonia, viral pattern", "0.999 pneumonia", "0.86"] in rows
    assert ["person1121_virus_1846.jpeg", "normal", "0.987 normal", "-"] in rows
    assert ["a.dcm", "a human must look;", "0.974 normal", "-"] in rows
    assert ["leans normal"] in rows
    assert ["a.dcm", "a human must look", "-", "-"] in rows
    assert "1.000" not in shown


def test_a_long_name_loses_its_middle() -> None:
    assert shorten("NORMAL2-IM-1427-0001.jpeg", 26) == "NORMAL2-IM-1427-0001.jpeg"
    assert shorten("NORMAL2-IM-1427-0001.jpeg", 20) == "NORMAL2…27-0001.jpeg"


def test_what_an_answer_is_for_stands_below_the_table(service: Service, terminal: io.StringIO) -> None:
    service.answer(VIRAL)
    assert predict(service, FILM, FILM).returncode == 0
    shown = terminal.getvalue()
    (prediction,) = json.loads(service.body)["predictions"]
    assert f"record {prediction['prediction_id']}: {FILM.name}" in shown
    assert " ".join(shown.split()).count(INTENDED_USE) == shown.count(TYPE_NOTICE) == 1
    assert max(map(len, shown.splitlines())) <= 80
    service.answer(UNTYPED)
    terminal.truncate(0)
    predict(service, FILM)
    assert INTENDED_USE in " ".join(terminal.getvalue().split())
    assert TYPE_NOTICE not in terminal.getvalue()


def test_a_service_from_before_is_shown_too(service: Service, terminal: io.StringIO) -> None:
    old = {"prediction_id": uuid7(), "finding": None, "pneumonia_type": None, "confidence": 0.9, "referred": True,
           "reasons": ["uncertain_finding"]}  # fmt: skip
    service.body = json.dumps({"predictions": [old]}).encode()
    assert predict(service, FILM).returncode == 0
    assert "a human must look" in terminal.getvalue()


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "http://127.0.0.1:{}/", "127.0.0.1:{}/"])
def test_an_address_needs_neither_scheme_nor_care(form: str, service: Service) -> None:
    service.answer(NORMAL)
    done = predict(service, FILM, url=form.format(service.port))
    assert (done.returncode, done.stderr) == (0, "")


def test_an_address_of_another_kind_is_refused(service: Service) -> None:
    done = predict(service, FILM, url="ftp://127.0.0.1")
    assert (done.returncode, service.received) == (2, [])
    assert "--url is an address such as" in done.stderr


def test_a_folder_means_its_images(service: Service, tmp_path: Path, terminal: io.StringIO) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "second.jpeg").write_bytes(FILM.read_bytes())
    (tmp_path / "first.jpeg").write_bytes(FILM.read_bytes())
    (tmp_path / "notes.txt").write_text("no image")
    service.answer(NORMAL)
    assert predict(service, tmp_path).returncode == 0
    assert len(service.received) == 2
    assert "first.jpeg" in terminal.getvalue()
    assert "second.jpeg" in terminal.getvalue()
    assert "notes.txt" not in terminal.getvalue()


def test_a_folder_without_images_is_told(service: Service, tmp_path: Path) -> None:
    done = predict(service, tmp_path)
    assert done.returncode == 2
    assert "holds no JPEG, PNG or DICOM object" in done.stderr


def test_a_file_that_is_no_image_is_not_sent(service: Service, tmp_path: Path, terminal: io.StringIO) -> None:
    (tmp_path / "README.md").write_text("# Read me")
    service.answer(NORMAL)
    done = predict(service, tmp_path / "README.md", FILM)
    assert done.returncode == 1
    assert service.received == [FILM.read_bytes()]
    assert "README.md: This file is no JPEG, PNG or DICOM object, so it was not sent" in terminal.getvalue()


def test_an_error_is_one_sentence_on_one_line(service: Service, terminal: io.StringIO) -> None:
    sentence = "The image says that text is burnt into its pixels; mask the text and state NO in [BurnedInAnnotation]."
    service.refuse(415, {"error": sentence, "prediction_id": "01a22c91-0f1c-7be2-8405-206b96e95bd6"})
    assert predict(service, FILM).returncode == 1
    assert f"{FILM.name}: {sentence} (record 01a22c91-0f1c-7be2-8405-206b96e95bd6)" in terminal.getvalue().splitlines()


@pytest.mark.parametrize("document", [{"detail": "Not Found"}, [], "hello", {"predictions": []}])
def test_another_service_is_told_apart(document: Any, service: Service, terminal: io.StringIO) -> None:
    service.refuse(404, document)
    assert predict(service, FILM).returncode == 1
    assert "is no pneumoserve" in terminal.getvalue()


def test_it_says_which_prevalence_a_confidence_assumes(service: Service, terminal: io.StringIO) -> None:
    service.answer(NORMAL, assumed_prevalence=0.5)
    assert predict(service, FILM).returncode == 0
    assert terminal.getvalue().count("Confidence assumes a prevalence of 50 %.") == 1
    # A service of before does not say it.
    service.answer(NORMAL)
    assert predict(service, FILM).returncode == 0
    assert terminal.getvalue().count("prevalence") == 1
