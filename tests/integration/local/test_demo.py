"""`make demo`'s program: what it shows."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys

import httpx

from pneumoserve.local.answers import shorten
from pneumoserve.local.demo import choose_films, describe_training, display_name
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.release.schema import INTENDED_USE, TYPE_NOTICE
from tests.conftest import wait_for
from tests.support import films


def test_the_demo_shows_every_film_of_the_sample_and_one_record() -> None:
    words = [sys.executable, "-m", "pneumoserve.local.demo", "--dicom", "--keep"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        output = process.stdout or io.StringIO()
        stdout = study = ""
        while not study:
            line = output.readline()
            assert line, stdout
            stdout += line
            study = line.partition("a referred study in it: ")[2].strip()
        # It stays, and the page that it names is there, until Ctrl-C.
        try:
            with httpx.Client(follow_redirects=True) as browser:
                wait_for(lambda: "What the model answered" in browser.get(study).text)
        finally:
            process.send_signal(signal.SIGINT)
        stdout += output.read()
    assert process.returncode == 0, stdout
    files = [display_name(path) for paths in choose_films().values() for path in paths]
    assert {*files} > {path.name for path in (*films.sample_films(), films.CHEST_DICOM, films.LEG_DICOM)}
    table, _, rest = stdout.partition("answers, each on record")
    for name in files:
        assert shorten(name, 27) in table, name
    assert max(map(len, table.partition("Labelled")[2].splitlines())) <= 80
    for words in ("pneumonia, viral pattern", "pneumonia, type unsure", "leans pneumonia", "no upright chest X-ray"):
        assert words in table
    said = " ".join(rest.split())
    assert INTENDED_USE in said
    assert TYPE_NOTICE in said
    shown = rest.partition("archive show ")[2]
    assert re.match("[0-9a-f-]{36} ", shown)
    assert shown[:36] in shown[36:]
    # Both are of adults, and one is of a leg: a report each, by DICOM.
    assert stdout.count("C-STORE to PNEUMOSERVE: status 0000") == 2
    assert stdout.count("A human must look: Yes") == 2
    assert "Reason why a human must look: The image shows no upright chest" in stdout
    # Start, send, read back, send by DICOM, stop: each says how long it took.
    assert len(re.findall(r"^took \d+\.\d s$", stdout, re.MULTILINE)) == 5
    assert "pneumoserve serve --port 8080" in stdout.rpartition("took")[2]


def test_the_demo_states_the_reference_runs_steps() -> None:
    steps = json.loads((REFERENCE_RUN / "run.json").read_bytes())["training"]["parameters"]["steps"]
    assert describe_training() == f"Train both models on it, briefly: 30 steps, where the reference release had {steps}"
