"""Values and helm commands of all documents, as they are written there; rendered, since there is no cluster here."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pneumoserve.signing import generate_key, write_public_key
from tests.chart.conftest import EVERYTHING, KNATIVE, Helm, of_kind
from tests.support.documents import ROOT, blocks, commands, name_of, repository_pages

TEXTS = {name_of(page): page.read_text() for page in repository_pages()}
COMMANDS = [
    (page, command)
    for page, text in TEXTS.items()
    for command in commands(text)
    if re.match("helm (install|upgrade) ", command)
]
JOBS = sorted({(page, name) for page, text in TEXTS.items() for name in re.findall(r"cronjob/pneumoserve-(\w+)", text)})
# An upgrade reuses the values of the install before it, which `helm template` cannot ask a cluster for.
SHELL = """
helm() {{
  local values=""
  if [ $1 = upgrade ]; then values="--is-upgrade --values base.yaml {given}"; fi
  shift 3
  command helm template pneumoserve charts/pneumoserve $values \\
    $(printf '%s\\n' "$@" | grep -v -e reset-then-reuse-values -e create-namespace)
}}
"""
_RELEASE = {"id": "999999999999"}
_IDS = {"<id>": "0123456789ab", "<other>": "ba9876543210", "<new>": "0123456789ab", "<old>": "ba9876543210",
        "<earlier>": "0123456789ab", "<present>": "ba9876543210"}  # fmt: skip


def written_values(page: str) -> dict[str, str]:
    """The files of values that a page writes, by name."""
    found = {}
    for block in blocks(TEXTS[page]):
        if block.language == "yaml" and (name := re.match(r"# (values-\w+\.yaml)", block.text)):
            found[name[1]] = block.text.replace("sha256:…", f"sha256:{'1' * 64}")
    return found


VALUES = [(page, name) for page in TEXTS for name in written_values(page)]


def base_of(text: str) -> dict[str, Any]:
    """The values of the install that a page speaks of, with a release that answers."""
    if "knative" in text.lower():
        return dict(yaml.safe_load(KNATIVE.read_text()))
    return {**yaml.safe_load(written_values("docs/how-to/install.md")["values-hospital.yaml"]), "release": _RELEASE}


@pytest.mark.parametrize(("page", "name"), VALUES)
def test_values_of_a_document_render(page: str, name: str, helm: Helm) -> None:
    values = yaml.safe_load(written_values(page)[name])
    base = [] if "endpoint" in values.get("s3", {}) else [base_of(name)]
    assert of_kind(helm.render(*base, values), "NetworkPolicy")


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_commands_of_a_document_render(page: str, command: str, helm_binary: Path, tmp_path: Path) -> None:
    write_public_key(generate_key(tmp_path / "approver.pem"), tmp_path / "trust")
    (tmp_path / "until-2026.pem").write_text(next((tmp_path / "trust").iterdir()).read_text())
    (tmp_path / "charts").symlink_to(ROOT / "charts")
    for name, text in (written_values("docs/how-to/install.md") | written_values(page)).items():
        (tmp_path / name).write_text(text)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base_of(page)))
    plan = next(each.text for each in blocks(TEXTS["docs/how-to/roll-out.md"]) if each.text.startswith("# plan.yaml"))
    (tmp_path / "plan-values.yaml").write_text(yaml.safe_dump({"rollout": {"plan": yaml.safe_load(plan)}}))
    # What follows a page's first values is typed with these.
    given = "" if "--values" in command else " ".join(f"--values {name}" for name in list(written_values(page))[:1])
    typed = re.sub(r"^(helm \w+) …", r"\1 pneumoserve charts/pneumoserve", command)
    for placeholder, release in _IDS.items():
        typed = typed.replace(placeholder, release)
    done = subprocess.run(
        ["bash", "-euc", f"{SHELL.format(given=given)}\n{typed}"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{helm_binary.parent}:{os.environ['PATH']}",
            "KUBECONFIG": str(tmp_path / "none"),
            "REPOSITORY": "registry.example/pneumo",
            "ID": "0123456789ab",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rendered = [each for each in yaml.safe_load_all(done.stdout) if each]
    assert of_kind(rendered, "ServingRuntime")
    for release in re.findall(r"release\.id=([0-9a-f]{12})", typed):
        names = [each["metadata"]["name"] for each in of_kind(rendered, "InferenceService")]
        assert f"pneumonia-{release}" in names or names == ["pneumonia"]


@pytest.mark.parametrize(("page", "name"), JOBS)
def test_jobs_of_a_document_are_the_charts(page: str, name: str, helm: Helm) -> None:
    names = [each["metadata"]["name"] for each in of_kind(helm.render(EVERYTHING), "CronJob")]
    assert f"pneumoserve-{name}" in names
