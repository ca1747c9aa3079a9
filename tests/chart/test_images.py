"""Where images come from, and what copies them to where a cluster without internet finds them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from pneumoserve.signing import generate_key, write_public_key
from tests.chart.conftest import EVERYTHING, TRIAL, Helm, nested
from tests.chart.test_rendered import pods
from tools.generate.chart_values import CHART

SCRIPTS = CHART.parent
DIGEST = f"sha256:{'0' * 64}"
# Stands in for skopeo, whose copying the end-to-end tests see: notes what it is asked and says one digest.
SKOPEO = f"""#!/bin/sh
echo "$@" >> "$(dirname "$0")/asked"
[ "$1" = copy ] || echo {DIGEST}
"""

DOCKERFILE = (SCRIPTS.parent / "Dockerfile").read_text()
IMAGES = ("front", "rollout", "review", "intake", "models", "models-gpu", "training", "loadtest")
RUNNING = nested("release.id", "0123456789ab")
RUNS = ("--set-string", "release.id=0123456789ab")


def named(helm: Helm, *given: Any) -> set[str]:
    """The images of all pods, KServe's own init container aside."""
    return {container["image"] for _, spec, _ in pods(helm.render(*given)) for container in spec["containers"]}


def test_one_registry_serves_every_image(helm: Helm) -> None:
    plain = named(helm, EVERYTHING, nested("images.registry", ""))
    moved = named(helm, EVERYTHING, nested("images.registry", "mirror.example.org:5000/hospital"))
    assert len(plain) == 7
    assert {
        f"mirror.example.org:5000/hospital/{re.sub('^build.example.org:5000/', '', image)}" for image in plain
    } == moved


def tools(helm: Helm, folder: Path) -> Path:
    """A folder of programs: the real helm, which pushes nothing, and the stand-in."""
    folder.mkdir()
    helm_word = folder / "helm"
    helm_word.write_text(f'#!/bin/sh\n[ "$1" = push ] && exit 0\nexec {helm.binary} "$@"\n')
    skopeo = folder / "skopeo"
    skopeo.write_text(SKOPEO)
    for tool in (helm_word, skopeo):
        tool.chmod(0o755)
    return folder


@pytest.fixture
def folder(helm: Helm, tmp_path: Path) -> Path:
    return tools(helm, tmp_path / "bin")


def run(folder: Path, script: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", **environment}
    return subprocess.run(["sh", SCRIPTS / script, *words], capture_output=True, text=True, check=False, env=given)


def copied(folder: Path) -> list[tuple[str, str]]:
    """From where to where."""
    lines = (folder / "asked").read_text().splitlines()
    pairs = [line.split()[-2:] for line in lines if line.startswith("copy")]
    return [(source.removeprefix("docker://"), target.removeprefix("docker://")) for source, target in pairs]


def by_digest(image: str) -> str:
    """An image as it is copied: without its tag, by the digest that its registry says."""
    return f"{re.sub('(@[^@]*|:[^:/@]*)$', '', image)}@{DIGEST}"


@pytest.mark.parametrize("values", [TRIAL, EVERYTHING], ids=["trial", "everything"])
def test_every_image_that_the_values_need_is_copied(helm: Helm, folder: Path, values: Path) -> None:
    done = run(folder, "mirror.sh", "mirror.example.org/hospital", "--values", str(values), *RUNS)
    assert done.returncode == 0, done.stderr
    plain = named(helm, values, RUNNING, nested("images.registry", ""))
    assert {source for source, _ in copied(folder)} == {by_digest(image) for image in plain}
    moved = nested("images.registry", "mirror.example.org/hospital")
    assert {target for _, target in copied(folder)} == named(helm, values, RUNNING, moved)
    assert done.stdout.count(DIGEST) == len(plain)


@pytest.mark.parametrize("script", ["mirror.sh", "attest.sh"])
def test_each_says_how_it_is_used_and_what_it_lacks(folder: Path, key: Path, script: str) -> None:
    assert run(folder, script).returncode == 2
    assert "usage: " in run(folder, script).stderr
    (folder / "skopeo").unlink()
    words = ("mirror",) if script == "mirror.sh" else (str(key), str(folder / "out"))
    done = run(folder, script, *words, PATH=f"{folder}:{_only('dirname', 'realpath', folder=folder)}")
    assert done.returncode == 2
    assert "There is no skopeo" in done.stderr


def _only(*tools: str, folder: Path) -> Path:
    """A folder of these programs alone, and the shell."""
    alone = folder / "alone"
    alone.mkdir()
    for tool in (*tools, "sh"):
        (alone / tool).symlink_to(str(shutil.which(tool)))
    return alone


@pytest.mark.parametrize("script", ["mirror.sh", "attest.sh"])
def test_values_that_are_refused_copy_and_sign_nothing(folder: Path, key: Path, script: str) -> None:
    words = ("mirror.example.org",) if script == "mirror.sh" else (str(key), str(folder / "out"))
    done = run(folder, script, *words, "--values", str(TRIAL), "--set", "replicas=many")
    assert done.returncode != 0
    assert "replicas" in done.stderr
    assert not (folder / "asked").exists()
    assert not (folder / "out" / "SHA256SUMS.sig").exists()


# --- what an install consists of, signed


@pytest.fixture
def key(tmp_path: Path) -> Path:
    made = tmp_path / "approver.pem"
    write_public_key(generate_key(made), tmp_path / "trust")
    return made


@pytest.fixture(scope="module")
def signed(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what was signed, `out`, and the public half of the key, in `trust`."""
    root = tmp_path_factory.mktemp("signed")
    write_public_key(generate_key(root / "approver.pem"), root / "trust")
    words = (str(root / "approver.pem"), str(root / "out"), "--values", str(TRIAL), *RUNS)
    done = run(tools(helm, root / "bin"), "attest.sh", *words)
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def attested(signed: Path, tmp_path: Path) -> Path:
    """Of one's own, to be changed."""
    return Path(shutil.copytree(signed / "out", tmp_path / "out"))


def verified(out: Path, trust: Path) -> bool:
    """What the script says to check with."""
    (public,) = trust.glob("*.pem")
    signature = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", "SHA256SUMS"]
    commands = [[*signature, "-sigfile", "SHA256SUMS.sig"], ["sha256sum", "--check", "--strict", "SHA256SUMS"]]
    return all(subprocess.run(each, cwd=out, capture_output=True, check=False).returncode == 0 for each in commands)


def test_what_was_signed_is_verified_and_any_change_is_seen(signed: Path, attested: Path, tmp_path: Path) -> None:
    assert verified(attested, signed / "trust")
    listed = {line.split("  ./")[1] for line in (attested / "SHA256SUMS").read_text().splitlines()}
    assert listed == {str(path.relative_to(attested)) for path in attested.rglob("*") if path.is_file()} - {
        "SHA256SUMS", "SHA256SUMS.sig"
    }  # fmt: skip
    for name in (*listed, "SHA256SUMS", "SHA256SUMS.sig"):
        before = (attested / name).read_bytes()
        (attested / name).write_bytes(before[:-2] + bytes([before[-2] ^ 1]) + before[-1:])
        assert not verified(attested, signed / "trust"), name
        (attested / name).write_bytes(before)
    write_public_key(generate_key(tmp_path / "other.pem"), tmp_path / "others")
    assert not verified(attested, tmp_path / "others")


def test_each_images_distributions_are_told_with_their_hashes(signed: Path) -> None:
    """Those that the Dockerfile's target installs: no file of requirements is left out of the list."""
    stages = re.findall(r"(?m)^FROM (\S+) AS (\S+)$|/requirements/install.sh /requirements/(\S+).txt", DOCKERFILE)
    installed: dict[str, set[str]] = {}
    stage = ""
    for base, name, file in stages:
        if name:
            stage, installed[name] = name, set(installed.get(base, set()))
        else:
            installed[stage].add(file)
    for image in IMAGES:
        document = json.loads((signed / "out" / "sbom" / f"{image}.cdx.json").read_text())
        listed = {(each["name"], each["version"]) for each in document["components"]}
        wanted = {pair for file in installed[image] for pair in distributions(file)}
        assert listed == wanted, image
        hashed = [each["externalReferences"][0]["hashes"] for each in document["components"]]
        assert all(entry["alg"] == "SHA-256" for hashes in hashed for entry in hashes)
        assert all(hashed)


def test_a_document_is_valid_cyclonedx(signed: Path) -> None:
    text = (signed / "out" / "sbom" / "loadtest.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def distributions(file: str) -> set[tuple[str, str]]:
    text = (SCRIPTS.parent / "requirements" / f"{file}.txt").read_text()
    return set(re.findall(r"(?m)^([A-Za-z0-9._-]+)(?:\[\S+\])?==(\S+)", text))


def test_an_image_that_was_not_signed_is_not_mirrored(attested: Path, folder: Path) -> None:
    words = ("mirror.example.org", "--values", str(TRIAL), *RUNS)
    assert run(folder, "mirror.sh", *words, IMAGES=str(attested / "images")).returncode == 0
    assert copied(folder)
    (folder / "asked").unlink()
    (attested / "images").write_text((attested / "images").read_text().replace("sha256:0", "sha256:1"))
    done = run(folder, "mirror.sh", *words, IMAGES=str(attested / "images"))
    assert done.returncode == 1
    assert "does not list" in done.stderr
    assert not copied(folder)


def test_a_folder_that_is_there_is_not_written_over(attested: Path, folder: Path, key: Path) -> None:
    done = run(folder, "attest.sh", str(key), str(attested), "--values", str(TRIAL))
    assert done.returncode == 2
    assert "is there already" in done.stderr
