"""examples/first-install.sh: what it asks of which program, and what it says where something is missing.

Programs that need a cluster are stand-ins here; tests/e2e/test_first_install.py runs it on a real one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.chart.conftest import Helm
from tests.support.documents import ROOT
from tests.unit.test_documented_commands import parse_command
from tools.generate.chart_values import CHART, values

SCRIPT = "first-install.sh"
RELEASE = "0123456789ab"
KEY = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""
# Each notes what it was asked in the file that ASKED names, and keeps what the cluster would in the folder CLUSTER.
STANDINS = {
    "kubectl": """
case "$*" in
  version*) [ -z "${NO_CLUSTER:-}" ] ;;
  *current-context*) echo "${CONTEXT:-elsewhere}" ;;
  *kubeletVersion*) echo "${KUBELET:-v1.36.3}" ;;
  *jsonpath=*metadata.labels*) cat "$CLUSTER/label" 2> /dev/null || true ;;
  "get namespace"*) [ -e "$CLUSTER/namespace" ] ;;
  "create namespace"*) touch "$CLUSTER/namespace" ;;
  "label namespace"*) printf true > "$CLUSTER/label" ;;
  "delete namespace"*) rm "$CLUSTER/namespace" "$CLUSTER/label" ;;
  "get secret"*) printf c2VjcmV0 ;;
  "port-forward"*) [ -z "${NO_WAY:-}" ] || { echo "error: no pod" >&2; exit 1; }
    echo "Forwarding from 127.0.0.1:4711 -> 1"; exec sleep 60 ;;
esac""",
    "helm": """
case "$1" in
  status) [ -e "$CLUSTER/installed" ] ;;
  install) shift 3; case "$*" in *--dry-run=server)
      for word; do shift; [ "$word" = --dry-run=server ] || set -- "$@" "$word"; done
      exec "$REAL_HELM" template pneumoserve charts/pneumoserve "$@" ;;
    *) touch "$CLUSTER/installed" ;; esac ;;
esac""",
    "pneumoserve": f"""
case "$1 $2" in
  "release key") mkdir -p "$5"; echo "$KEY" > "$5/approver.pem"; touch "$3" ;;
  "package "*) mkdir -p "$4/{RELEASE}" ;;
  "release push") [ "$S3_ENDPOINT $S3_SECRET_KEY" = "http://127.0.0.1:4711 secret" ] ;;
  "predict "*) echo '{{"prediction_id": "01a2"}}' ;;
esac""",
    "docker": "",
    "kind": "",
    "k3s": "cat > /dev/null",
}


@dataclass
class Desk:
    """A person's machine: programs, and a cluster behind them."""

    folder: Path
    helm: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        given = {
            "PATH": f"{self.folder / 'bin'}:{self.folder / 'tools'}",
            "HOME": str(self.folder),
            "ASKED": str(self.folder / "asked"),
            "CLUSTER": str(self.folder / "cluster"),
            "FOLDER": str(self.folder / "made"),
            "PNEUMOSERVE": str(self.folder / "bin" / "pneumoserve"),
            "REAL_HELM": str(self.helm),
            "KEY": KEY,
            **environment,
        }
        command = [str(shutil.which("sh")), str(ROOT / "examples" / SCRIPT), *words]
        return subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=False)

    def asked(self, program: str) -> list[str]:
        path = self.folder / "asked"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.removeprefix(f"{program} ") for line in lines if line.startswith(f"{program} ")]


@pytest.fixture
def desk(helm: Helm, tmp_path: Path) -> Desk:
    for name in ("bin", "tools", "cluster"):
        (tmp_path / name).mkdir()
    for name, text in STANDINS.items():
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\nset -eu\necho "{name} $*" >> "$ASKED"\n{text}\n')
        program.chmod(0o755)
    for name in ("sh", "dirname", "mkdir", "ls", "sed", "seq", "sleep", "cat", "base64", "rm", "touch"):
        (tmp_path / "tools" / name).symlink_to(str(shutil.which(name)))
    return Desk(tmp_path, helm.binary)


def test_it_installs_pushes_asks_and_removes(desk: Desk) -> None:
    done = desk.run(REPOSITORY="registry.example.org/me")
    assert done.returncode == 0, done.stderr
    assert done.stdout == '{"prediction_id": "01a2"}\n'
    verbs = [line.split()[0] for line in desk.asked("helm")]
    assert verbs == ["status", "install", "install", "upgrade"]
    looked, installed = desk.asked("helm")[1:3]
    assert looked == f"{installed} --dry-run=server"
    given = yaml.safe_load((desk.folder / "made" / "values.yaml").read_text())
    assert given["images"]["models"] == {"repository": "registry.example.org/me/models"}
    assert given["trust"]["keys"] == {"approver.pem": KEY}
    assert desk.asked("helm")[3].endswith(f"--set-string release.id={RELEASE}")
    assert [parse_command(line) for line in desk.asked("pneumoserve")] == [[]] * 4
    assert not desk.asked("docker")
    removed = desk.run("remove")
    assert removed.returncode == 0, removed.stderr
    assert not list((desk.folder / "cluster").glob("[nl]a*"))
    assert not list((desk.folder / "made").iterdir())


def test_what_is_given_on_the_command_line_wins(desk: Desk) -> None:
    (desk.folder / "mine.yaml").write_text("images: {front: {repository: mine/front}}")
    words = ("--values", str(desk.folder / "mine.yaml"), "--set", "replicas=2")
    assert desk.run(*words, REPOSITORY="registry.example.org/me").returncode == 0
    command = desk.asked("helm")[2].split()
    assert command[-4:] == list(words)
    rendered = subprocess.run(
        [desk.helm, "template", "pneumoserve", CHART, *command[3:], "--set-string", f"release.id={RELEASE}"],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    assert "mine/front:" in rendered
    assert "registry.example.org/me/models:" in rendered
    assert "minReplicas: 2" in rendered


def test_run_again_it_goes_on(desk: Desk) -> None:
    desk.run(REPOSITORY="registry.example.org/me")
    (desk.folder / "asked").unlink()
    done = desk.run(REPOSITORY="registry.example.org/me")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in desk.asked("helm")] == ["status", "upgrade"]
    assert [line.split()[0] for line in desk.asked("pneumoserve")] == ["release", "predict"]


@pytest.mark.parametrize(
    ("cluster", "loads"),
    [({"CONTEXT": "kind-lab"}, "kind load docker-image"), ({"KUBELET": "v1.34.1+k3s1"}, "k3s ctr images import -")],
)
def test_kind_and_k3s_get_images_that_are_built(desk: Desk, cluster: dict[str, str], loads: str) -> None:
    done = desk.run(**cluster)
    assert done.returncode == 0, done.stderr
    built = [line.split() for line in desk.asked("docker") if line.startswith("build ")]
    assert [line[line.index("--target") + 1] for line in built] == ["front", "models"]
    program, rest = loads.split(" ", 1)
    assert len([line for line in desk.asked(program) if line.startswith(rest)]) == 2
    # What is loaded is what the chart's defaults name.
    (tagged, *_) = [line[line.index("--tag") + 1] for line in built]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert tagged == f"docker.io/{values()['images']['front']['repository']}:{chart['appVersion']}"


@pytest.mark.parametrize(
    ("lacks", "given", "sentence"),
    [
        ("kubectl", {}, "There is no kubectl; install it"),
        ("helm", {}, "There is no helm; install it"),
        ("pneumoserve", {}, "run `make install` first"),
        ("", {"NO_CLUSTER": "1"}, "No cluster answers; set KUBECONFIG"),
        ("", {}, "neither kind nor k3s; push the images, and set REPOSITORY"),
        ("docker", {"CONTEXT": "kind-lab"}, "There is no docker to build the images with"),
        ("kind", {"CONTEXT": "kind-lab"}, "There is no kind; install it"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_made(
    desk: Desk, lacks: str, given: dict[str, str], sentence: str
) -> None:
    (desk.folder / "bin" / (lacks or "none")).unlink(missing_ok=True)
    done = desk.run(**given)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert not list((desk.folder / "cluster").iterdir())
    assert not (desk.folder / "made").exists()


def test_a_chart_that_refuses_builds_no_image(desk: Desk) -> None:
    done = desk.run("--set", "replicas=many", CONTEXT="kind-lab")
    assert done.returncode != 0
    assert "replicas" in done.stderr
    assert not desk.asked("docker")


def test_another_persons_namespace_is_left_alone(desk: Desk) -> None:
    (desk.folder / "cluster" / "namespace").touch()
    for words in ((), ("remove",)):
        done = desk.run(*words, REPOSITORY="registry.example.org/me")
        assert done.returncode == 2
        assert "not made by this script" in done.stderr
    assert (desk.folder / "cluster" / "namespace").exists()


def test_a_port_that_cannot_be_forwarded_is_told(desk: Desk) -> None:
    done = desk.run(REPOSITORY="registry.example.org/me", NO_WAY="1")
    assert done.returncode == 2
    assert "does not reach service pneumoserve-store: error: no pod" in done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_nothing_it_started_runs_on(desk: Desk) -> None:
    desk.run(REPOSITORY="registry.example.org/me")
    left = [path for path in Path("/proc").glob("[0-9]*/environ") if _is_of(path, str(desk.folder / "asked"))]
    assert left == []


def _is_of(environ: Path, word: str) -> bool:
    """Whether a process has a word in its environment."""
    try:
        return os.fsencode(word) in environ.read_bytes()
    except OSError:
        return False
