"""Where images come from, and what copies them to where a cluster without internet finds them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.chart.conftest import EVERYTHING, TRIAL, Helm, nested
from tests.chart.documents import CHART
from tests.chart.test_rendered import pods

MIRROR = CHART.parent / "mirror.sh"
# Stands in for skopeo, whose copying the end-to-end tests see: notes what it is asked and says one digest.
SKOPEO = f"""#!/bin/sh
echo "$@" >> "$(dirname "$0")/asked"
[ "$1" = copy ] || echo sha256:{"0" * 64}
"""

RUNNING = nested("release.id", "0123456789ab")
RUNS = ("--set-string", "release.id=0123456789ab")


def named(helm: Helm, *given: Any) -> set[str]:
    """The images of all pods, KServe's own init container aside."""
    return {container["image"] for _, spec, _ in pods(helm.render(*given)) for container in spec["containers"]}


def test_one_registry_serves_every_image(helm: Helm) -> None:
    plain = named(helm, EVERYTHING, nested("images.registry", ""))
    moved = named(helm, EVERYTHING, nested("images.registry", "mirror.example.org:5000/hospital"))
    assert len(plain) == 5
    assert {
        f"mirror.example.org:5000/hospital/{re.sub('^build.example.org:5000/', '', image)}" for image in plain
    } == moved


@pytest.fixture
def folder(helm: Helm, tmp_path: Path) -> Path:
    """A folder of programs: the real helm, which pushes nothing, and the stand-in."""
    tools = tmp_path / "bin"
    tools.mkdir()
    helm_word = tools / "helm"
    helm_word.write_text(f'#!/bin/sh\n[ "$1" = push ] && exit 0\nexec {helm.binary} "$@"\n')
    skopeo = tools / "skopeo"
    skopeo.write_text(SKOPEO)
    for tool in (helm_word, skopeo):
        tool.chmod(0o755)
    return tools


def mirror(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(["sh", MIRROR, *words], capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("values", [TRIAL, EVERYTHING], ids=["trial", "everything"])
def test_every_image_that_the_values_need_is_copied(helm: Helm, folder: Path, values: Path) -> None:
    done = mirror(folder, "mirror.example.org/hospital", "--values", str(values), *RUNS)
    assert done.returncode == 0, done.stderr
    copied = [line.split()[-2:] for line in (folder / "asked").read_text().splitlines() if line.startswith("copy")]
    assert {source for source, _ in copied} == {
        f"docker://{image}" for image in named(helm, values, RUNNING, nested("images.registry", ""))
    }
    assert {target for _, target in copied} == {
        f"docker://{image}"
        for image in named(helm, values, RUNNING, nested("images.registry", "mirror.example.org/hospital"))
    }
    assert done.stdout.count("sha256:") == len(copied)


def test_it_says_how_it_is_used_and_what_it_lacks(folder: Path) -> None:
    assert (mirror(folder).returncode, mirror(folder, "--values").returncode) == (2, 2)
    assert "usage: " in mirror(folder).stderr
    (folder / "skopeo").unlink()
    environment = {**os.environ, "PATH": f"{folder}:/nowhere"}
    done = subprocess.run(["/bin/sh", MIRROR, "mirror"], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert "There is no skopeo" in done.stderr


def test_values_that_are_refused_copy_nothing(folder: Path) -> None:
    done = mirror(folder, "mirror.example.org", "--values", str(TRIAL), "--set", "replicas=many")
    assert done.returncode != 0
    assert "replicas" in done.stderr
    assert not (folder / "asked").exists()
