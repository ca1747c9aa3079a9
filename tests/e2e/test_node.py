"""The node itself: a real Kubernetes with KServe in Standard mode behind a real gateway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import ECHO, Cluster
from tests.support.cluster.node import NAMESPACE

ours = pytest.mark.skipif("KUBECONFIG" in os.environ, reason="about our own node; KUBECONFIG gives another cluster")


def inference_service(name: str, namespace: str) -> dict[str, Any]:
    container = {
        "name": "kserve-container",
        "image": ECHO,
        "env": [{"name": "NAME", "value": name}],
        "ports": [{"containerPort": 8080}],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}},
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"predictor": {"containers": [container]}},
    }


def route(namespace: str, weights: dict[str, int]) -> dict[str, Any]:
    backends = [{"name": f"{name}-predictor", "port": 80, "weight": weight} for name, weight in weights.items()]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "split", "namespace": namespace},
        "spec": {
            "parentRefs": [{"name": "kserve-ingress-gateway", "namespace": "kserve"}],
            "hostnames": [f"{namespace}.example.com"],
            "rules": [{"backendRefs": backends}],
        },
    }


def test_an_inference_service_answers_through_the_gateway_and_a_route_of_ours_splits(
    cluster: Cluster, namespace: str, gateway: str
) -> None:
    started = time.monotonic()
    cluster.apply(inference_service("stable", namespace), inference_service("candidate", namespace))
    for name in ("stable", "candidate"):
        cluster.kubectl(
            "wait", f"inferenceservice/{name}", f"--namespace={namespace}", "--for=condition=Ready", "--timeout=120s"
        )
    print(f"apply to Ready, two InferenceServices: {time.monotonic() - started:.1f} s")
    cluster.apply(route(namespace, {"stable": 90, "candidate": 10}))

    def answer() -> str:
        host = f"Host: {namespace}.example.com"
        done = cluster.run("curl", "--silent", "--fail", "--header", host, f"http://{gateway}/x", check=False)
        return done.stdout

    give_up = time.monotonic() + 60
    while not answer():
        assert time.monotonic() < give_up, "the route was not taken up"
        time.sleep(0.2)
    answers = [answer() for _ in range(200)]
    assert set(answers) == {"stable /x\n", "candidate /x\n"}
    # 200 draws at 10 %: fewer than 5 or more than 40 are one in a hundred thousand.
    assert 5 <= answers.count("candidate /x\n") <= 40


def test_a_pod_that_is_not_restricted_is_refused(cluster: Cluster, namespace: str) -> None:
    refused = inference_service("loose", namespace)["spec"]["predictor"]["containers"][0] | {"securityContext": {}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "loose", "namespace": namespace},
        "spec": {"containers": [refused]},
    }
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        cluster.apply(pod)


@ours
@pytest.mark.usefixtures("alone")
def test_up_starts_again_what_died_and_nothing_else(cluster: Cluster) -> None:
    assert cluster.node is not None
    runs = cluster.node.folder / "run"
    before = {path.name: path.read_text() for path in runs.glob("*.pid")}
    os.kill(int(before["coredns.pid"].split()[0]), 9)
    status = subprocess.run(
        [sys.executable, "-m", "tests.support.cluster", "status"], check=False, capture_output=True, text=True
    )
    assert '"coredns": false' in status.stdout
    subprocess.run([sys.executable, "-m", "tests.support.cluster", "up"], check=True, capture_output=True)
    after = {path.name: path.read_text() for path in runs.glob("*.pid")}
    assert {name for name in before | after if before.get(name) != after.get(name)} == {"coredns.pid"}


@ours
@pytest.mark.last
def test_down_leaves_the_machine_as_it_was(cluster: Cluster) -> None:
    """The fixture's own `down` then has nothing left to do."""
    assert cluster.node is not None
    folder = cluster.node.folder
    kernel: dict[str, str] = json.loads((folder / "sysctl.json").read_text())
    processes = [psutil.Process(int(path.read_text().split()[0])) for path in (folder / "run").glob("*.pid")]
    subprocess.run([sys.executable, "-m", "tests.support.cluster", "down"], check=True, capture_output=True)
    assert not folder.exists()
    assert not Path("/run/netns", NAMESPACE).exists()
    assert str(folder) not in Path("/proc/mounts").read_text()
    assert not [process for process in processes if process.is_running() and process.status() != "zombie"]
    assert not list(Path("/sys/fs/cgroup").glob("**/kubepods"))
    for name, value in kernel.items():
        assert Path("/proc/sys", name).read_text() == value
