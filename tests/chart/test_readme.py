"""The README's helm commands, as they are typed there; rendered, since there is no cluster here."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import yaml

from pneumoserve.release.signing import generate_key, write_public_key

ROOT = Path(__file__).parents[2]
COMMANDS = re.findall(r"^(helm (?:install|upgrade) (?:.*\\\n)*.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
# An upgrade reuses the values of the install before it, which `helm template` cannot ask a cluster for.
HELM = """
helm() {
  local verb=$1; shift
  if [ $verb = install ]; then first=("$@"); command helm template "$@"
  else command helm template --is-upgrade "${first[@]}" $(printf '%s\\n' "${@:3}" | grep -v reset-then-reuse-values); fi
}
"""


def test_helm_commands_of_the_readme(helm_binary: Path, tmp_path: Path) -> None:
    install, upgrade = COMMANDS
    write_public_key(generate_key(tmp_path / "approver.pem"), tmp_path / "trust")
    (tmp_path / "charts").symlink_to(ROOT / "charts")
    variables = {
        "PATH": f"{helm_binary.parent}:{os.environ['PATH']}",
        "KUBECONFIG": str(tmp_path / "none"),
        "REPOSITORY": "registry.example/pneumo",
        "ID": "0123456789ab",
    }
    done = subprocess.run(
        ["bash", "-euc", f"{HELM}\n{{ {install}\n}} > install\n{upgrade}"],
        cwd=tmp_path,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    installed = list(yaml.safe_load_all((tmp_path / "install").read_text()))
    assert "registry.example/pneumo/front" in str(installed)
    assert "BEGIN PUBLIC KEY" in str(installed)
    names = [item["metadata"]["name"] for item in yaml.safe_load_all(done.stdout) if item["kind"] == "InferenceService"]
    assert names == ["pneumonia-0123456789ab"]
