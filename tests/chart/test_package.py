"""The chart as an OCI artefact: packaged to the same bytes, pushed to a registry, installed from there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.chart.conftest import TRIAL, Helm, of_kind
from tests.support.documents import ROOT
from tools.chart import package
from tools.generate.chart_values import CHART

VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]


@contextlib.contextmanager
def registry(folder: Path) -> Iterator[str]:
    """A registry of images and charts, on a port that it chose itself."""
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}},
        "http": {"addr": "127.0.0.1:0"},
    }
    (folder / "registry.json").write_text(json.dumps(settings))
    command = ["docker-registry", "serve", str(folder / "registry.json")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        try:
            lines = iter(process.stderr.readline, "")
            yield next(found[1] for line in lines if (found := re.search(r"listening on (127\.0\.0\.1:\d+)", line)))
        finally:
            process.terminate()


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.chart", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_the_same_files_give_the_same_bytes(helm: Helm, tmp_path: Path) -> None:
    first = package(helm.binary, tmp_path / "first")
    with tarfile.open(first) as archive:
        # Helm writes the time of packaging.
        assert {member.mtime for member in archive} == {0}
    second = package(helm.binary, tmp_path / "second")
    assert first.name == f"pneumoserve-{VERSION}.tgz"
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()


def test_it_holds_the_chart_and_renders_as_it_does(helm: Helm, tmp_path: Path) -> None:
    packed = package(helm.binary, tmp_path)
    with tarfile.open(packed) as archive:
        names = archive.getnames()
    assert {"pneumoserve/Chart.yaml", "pneumoserve/values.schema.json"} < set(names)
    assert not [name for name in names if "/ci/" in name or name.endswith("templates/README.md")]
    words = [str(helm.binary), "template", "pneumoserve", str(packed), "--namespace", "pneumo", "--values", str(TRIAL)]
    rendered = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
    objects = [item for item in yaml.safe_load_all(rendered) if item]
    assert of_kind(objects, "ServingRuntime") == of_kind(helm.render(TRIAL), "ServingRuntime")


@pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry of `make cluster-packages`")
def test_it_is_pushed_and_shown_from_a_registry(helm: Helm, tmp_path: Path) -> None:
    with registry(tmp_path) as address:
        pushed = run("--out", str(tmp_path / "dist"), "--push", f"oci://{address}/charts", "--plain-http")
        assert pushed.returncode == 0, pushed.stdout + pushed.stderr
        assert f"Pushed: {address}/charts/pneumoserve:{VERSION}" in pushed.stdout
        words = ["show", "chart", f"oci://{address}/charts/pneumoserve", "--version", VERSION, "--plain-http"]
        environment = {**os.environ, "HELM_CACHE_HOME": str(tmp_path / "cache")}
        shown = subprocess.run(
            [helm.binary, *words], capture_output=True, text=True, timeout=60, check=True, env=environment
        ).stdout
    assert yaml.safe_load(shown) == yaml.safe_load((CHART / "Chart.yaml").read_text())


def test_an_address_of_another_form_is_refused(helm_binary: Path, tmp_path: Path) -> None:
    done = run("--out", str(tmp_path / "dist"), "--push", "https://registry.example.org/charts")
    assert done.returncode == 2
    assert "begins with oci://, not https://registry.example.org/charts" in done.stderr
    assert not (tmp_path / "dist").exists()
