"""The cluster of the end-to-end tests: the one of KUBECONFIG, else a node of our own that is gone afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cache import cache_folder, go_binaries
from tests.cluster.images import Image
from tests.cluster.node import ADDRESS, Node

ECHO = "docker.io/pneumoserve/echo:1"


@dataclass(frozen=True)
class Cluster:
    """A Kubernetes with KServe. `node` is None where it is not ours."""

    kubeconfig: Path
    inside: tuple[str, ...]
    node: Node | None

    def run(self, *command: str, given: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command where the cluster's addresses can be reached."""
        done = subprocess.run(
            [*self.inside, *command], input=given, capture_output=True, text=True, timeout=300, check=False
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def kubectl(self, *words: str, given: str | None = None) -> str:
        binary = str(go_binaries("kubernetes", print) / "kubectl") if self.node else "kubectl"
        return self.run(binary, f"--kubeconfig={self.kubeconfig}", *words, given=given).stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "--server-side", "-f", "-", given="\n---\n".join(map(json.dumps, objects)))

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "--output=json"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if given := os.environ.get("KUBECONFIG"):
        yield Cluster(Path(given), (), None)
        return
    node = Node(cache_folder() / "node", print)
    # As a person starts it; its progress goes to the test run's output.
    subprocess.run([sys.executable, "-m", "tests.cluster", "up"], check=True)
    node.load(Image(ECHO, {"/echo": go_binaries("echo", print) / "echo"}, ("/echo",)))
    yield Cluster(node.kubeconfig, tuple(node.inside), node)
    node.down()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace that holds every pod to Pod Security "restricted", and is gone after the test."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def gateway(cluster: Cluster) -> str:
    """Where the cluster's gateway listens, as host:port."""
    services = cluster.get("services", "--all-namespaces", "--selector=gateway.envoyproxy.io/owning-gateway-name")
    (service,) = services["items"]
    return f"{ADDRESS}:{service['spec']['ports'][0]['nodePort']}"
