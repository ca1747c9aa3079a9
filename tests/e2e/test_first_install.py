"""examples/first-install.sh on a real cluster: from nothing to one answer, and nothing left of it."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from pathlib import Path

from tests.e2e.conftest import ROOT, SEAWEEDFS, Cluster, Images, named
from tests.e2e.product import COMMAND, SMALL

SCRIPT = ROOT / "examples" / "first-install.sh"


def test_one_script_installs_answers_and_removes(cluster: Cluster, images: Images, tmp_path: Path) -> None:
    namespace = f"first-{uuid.uuid4().hex[:8]}"
    # As small as the node is, and a route that leaves the installs beside it their calls.
    values = {
        "images": images.values(),
        "route": {"hostnames": [f"{namespace}.example.org"]},
        "front": {"resources": SMALL, "preStopSeconds": 6},
        "models": {"resources": SMALL},
        "trialStore": {"size": "1Gi", "resources": SMALL, "image": named(SEAWEEDFS)},
    }
    (tmp_path / "values.json").write_text(json.dumps(values))
    tools = [str(Path(cluster.tool(name)).parent) for name in ("kubectl", "helm") if cluster.node is not None]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([*tools, os.environ["PATH"]]),
        "KUBECONFIG": str(cluster.kubeconfig),
        "NAMESPACE": namespace,
        "FOLDER": str(tmp_path / "made"),
        "PNEUMOSERVE": COMMAND,
        # The values name the images, each by its digest.
        "REPOSITORY": "unused",
    }

    def run(*words: str) -> str:
        started = time.monotonic()
        command = ["sh", str(SCRIPT), *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        print(f"first-install.sh {' '.join(words)}: {time.monotonic() - started:.1f} s\n{done.stderr}")
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        (answer,) = json.loads(run("--values", str(tmp_path / "values.json")))
        assert answer["finding"] == "pneumonia"
        (release,) = (tmp_path / "made" / "releases").iterdir()
        assert answer["release"] == release.name
        run("remove")
        assert cluster.run(cluster.tool("kubectl"), "get", "namespace", namespace, check=False).returncode != 0
        assert list((tmp_path / "made").iterdir()) == []
    finally:
        cluster.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")
