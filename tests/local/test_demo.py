"""`make demo`'s program: what it shows."""

from __future__ import annotations

import re
import subprocess
import sys

from pneumoserve.local.demo import chosen_films, shown_name
from tests import films


def test_the_demo_shows_every_film_of_the_sample_and_one_record() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pneumoserve.local.demo"], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    files = {shown_name(path) for path, _ in chosen_films()}
    assert files > {path.name for path in (*films.sample_films(), films.CHEST_DICOM, films.LEG_DICOM)}
    head = next(line for line in done.stdout.splitlines() if "confidence" in line)
    columns = [cell.strip() for cell in re.split("[┃│]", head)[1:-1]]
    assert columns == ["file", "truth", "answer", "confidence", "referred", "ms", "record"]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if line[:1] == "│"]
    assert len(rows) == len(chosen_films())
    assert {row[0] for row in rows} == files
    assert all(row[2] and row[5].isdigit() and re.fullmatch("[0-9a-f-]{36}", row[6]) for row in rows)
    shown = done.stdout.partition("archive show ")[2]
    assert '"schema": "pneumoserve.record/4"' in shown
    assert f'"prediction_id": "{shown[:36]}"' in shown
    assert shown[:36] in {row[6] for row in rows}
    # Start, send, read back, stop: each says how long it took.
    assert len(re.findall(r"^took \d+\.\d s$", done.stdout, re.MULTILINE)) == 4
