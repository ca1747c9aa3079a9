"""`pneumoserve evidence` on a real store with all that a site puts on record, sealed; and its page in a browser."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from playwright.sync_api import sync_playwright

from pneumoserve.evidence.listings import LISTINGS
from pneumoserve.review import ReviewDatabase
from pneumoserve.signing import write_private_key, write_public_key
from pneumoserve.store import S3Settings, S3Store
from tests.support.commands import Ran, invoke, trusting
from tests.support.entries import KEY
from tests.support.evidence import SECRET, Approvers, fill
from tests.support.reviews import Ward

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
APPROVERS = Approvers(Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate())
SEALER = Ed25519PrivateKey.generate()
Run = Callable[..., Ran]


@pytest.fixture
def run(settings: S3Settings, store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Commands on a store that is filled, with keys in this folder."""
    ward = Ward(ReviewDatabase(f"sqlite:///{tmp_path / 'ward.sqlite'}"), store)
    fill(ward, APPROVERS)
    ward.database.close()
    monkeypatch.chdir(tmp_path)
    for key in (APPROVERS.first, APPROVERS.second):
        write_public_key(key, tmp_path / "trust")
    write_private_key(APPROVERS.first, tmp_path / "first.pem")
    write_private_key(SEALER, tmp_path / "sealer.pem")
    trusting(tmp_path, KEY, sealer=SEALER)
    return lambda *words: invoke(words, {**settings.to_env(), "REVIEW_DATABASE": f"sqlite:///{tmp_path / 'r.sqlite'}"})


def collect(run: Run, out: str) -> Ran:
    believed = ("--trust=trust", "--archive-trust=archive-trust", "--sealer-trust=sealer-trust")
    return run("evidence", f"--out={out}", "--key=first.pem", *believed)


def test_all_that_a_site_does_is_in_one_file(run: Run, tmp_path: Path) -> None:
    archive = ("--trust=archive-trust", "--sealer-trust=sealer-trust")
    sealed = run("archive", "seal", "--key=sealer.pem", *archive, "--lock-days=0", "--yes")
    assert sealed.returncode == 0, sealed.stderr
    found = collect(run, "faulty.zip")
    # One image of the fixture was never stored.
    assert found.returncode == 1
    with zipfile.ZipFile("faulty.zip") as packed:
        (fault,) = json.loads(packed.read("verification.json"))["findings"]
    known = run("archive", "acknowledge", fault["key"], "--reason=never stored", "--key=sealer.pem", *archive)
    assert known.returncode == 0, known.stderr
    made = collect(run, "evidence.zip")
    assert made.returncode == 0, made.stderr
    # Another database, made anew from the archive.
    (tmp_path / "r.sqlite").unlink()
    collect(run, "again.zip")
    assert Path("again.zip").read_bytes() == Path("evidence.zip").read_bytes()
    checked = run("evidence", "verify", "evidence.zip", "--trust=trust")
    assert checked.returncode == 0, checked.stderr

    with zipfile.ZipFile("evidence.zip") as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    assert not any(SECRET.encode() in data for data in files.values())
    verification = json.loads(files["verification.json"])
    assert (verification["findings"], verification["acknowledged"][0]["reason"]) == ([], "never stored")
    assert verification["summary"]["seals"] == 1
    believed = ("--archive-trust=archive-trust", "--sealer-trust=sealer-trust")
    for listing in LISTINGS:
        kind = str(listing.form.model_fields["schema_"].default).removeprefix("pneumoserve.").partition("/")[0]
        listed = json.loads(files[f"{listing.part}.json"])[kind]
        place = "{writer}:{sequence}:{hash}".format(**listed[0]["record"])
        shown = run("archive", "show", place, *believed)
        assert shown.returncode == 0, shown.stderr
        assert json.loads(shown.stdout).items() >= listed[0]["entry"].items()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not on this machine")
def test_axe_finds_nothing_on_its_page(run: Run, tmp_path: Path) -> None:
    collect(run, "evidence.zip")
    with zipfile.ZipFile("evidence.zip") as packed:
        packed.extractall(tmp_path / "evidence")
    faults: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: None if request.url.startswith("file:") else faults.append(request.url))
        page.goto((tmp_path / "evidence" / "index.html").as_uri())
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
        assert page.locator("main section").count() == page.locator("nav li").count() == 10
        # Paper of A4, across.
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 1030, "height": 720})
        assert page.evaluate("document.documentElement.scrollWidth") <= 1030
        page.emulate_media(media="screen")
        page.get_by_role("link", name="Drift and stop rules").click()
        assert page.url.endswith("#drift")
        page.screenshot(path=tmp_path / "evidence.png", full_page=True)
        browser.close()
    assert faults == []
