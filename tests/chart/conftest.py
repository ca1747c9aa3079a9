"""The chart as helm renders it: without a cluster, or against a stand-in for one."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.api import CORE, ENVOY, GATEWAY, KSERVE, METRICS, SERVING, Api, Object, served
from tests.support.cluster.cache import go_binaries
from tools.generate.chart_values import CHART

NAMESPACE = "pneumo"
TRIAL = CHART / "ci" / "trial-values.yaml"
# The loader in C is some times faster, where it is there.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
EVERYTHING = CHART / "ci" / "everything-values.yaml"
KNATIVE = CHART / "ci" / "knative-values.yaml"


def nested(path: str, value: Any) -> dict[str, Any]:
    """Values with one of them set."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return dict(value)


@dataclass(frozen=True)
class Helm:
    """Helm, with the chart and a folder for values."""

    binary: Path
    version: str
    folder: Path
    # What was rendered without a cluster, by its values: many tests ask for the same.
    rendered: dict[str, str] = field(default_factory=dict)

    def run(
        self, *words: str, values: tuple[Path | dict[str, Any], ...] = (), kubeconfig: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [str(self.binary), *words, str(CHART), "--namespace", NAMESPACE]
        command += ["--kubeconfig", str(kubeconfig or self.folder / "none")]
        for number, given in enumerate(values):
            path = given if isinstance(given, Path) else self.folder / f"values-{number}.json"
            if isinstance(given, dict):
                path.write_text(json.dumps(given))
            command += ["--values", str(path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def render(self, *values: Path | dict[str, Any], cluster: Path | None = None) -> list[Object]:
        key = json.dumps(values, default=str)
        text = None if cluster else self.rendered.get(key)
        if text is None:
            done = self._template(values, cluster)
            assert done.returncode == 0, done.stderr
            text = done.stdout
            if cluster is None:
                self.rendered[key] = text
        return [item for item in yaml.load_all(text, _LOADER) if item]

    def refusal(self, *values: Path | dict[str, Any], cluster: Path | None = None) -> str:
        done = self._template(values, cluster)
        assert done.returncode != 0, "it was not refused"
        return done.stderr

    def _template(
        self, values: tuple[Path | dict[str, Any], ...], cluster: Path | None
    ) -> subprocess.CompletedProcess[str]:
        # As an upgrade: an install would first ask whose the objects are that are there already.
        looking = ["--dry-run=server", "--is-upgrade", "--disable-openapi-validation"] if cluster else []
        if cluster and self.version.startswith("v3."):
            # Helm 3 takes what the cluster can do from the cluster only where it is told to validate.
            looking.append("--validate")
        return self.run("template", "pneumoserve", *looking, values=values, kubeconfig=cluster)

    def notes(self, *values: Path | dict[str, Any]) -> str:
        # Helm 3 asks for a cluster's version even here.
        with served(Api(CORE | KSERVE | GATEWAY | ENVOY | METRICS, []), self.folder) as kubeconfig:
            words = ("install", "pneumoserve", "--dry-run=client", "--disable-openapi-validation")
            done = self.run(*words, values=values, kubeconfig=kubeconfig)
        assert done.returncode == 0, done.stderr
        return done.stdout.partition("\nNOTES:\n")[2]


@pytest.fixture(scope="session")
def helm_binary() -> Path:
    return go_binaries("helm", print) / "helm"


@pytest.fixture(scope="session")
def helm(helm_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    version = subprocess.run([helm_binary, "version", "--short"], capture_output=True, text=True, check=True).stdout
    return Helm(helm_binary, version, tmp_path_factory.mktemp("helm"))


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [item for item in objects if item["kind"] == kind]


def the(objects: list[Object], kind: str, name: str | None = None) -> Object:
    (found,) = [item for item in of_kind(objects, kind) if name in (None, item["metadata"]["name"])]
    return found


def policies(objects: list[Object]) -> dict[str, Any]:
    """The rights of each of the trial store's credentials, by its name."""
    known = json.loads(the(objects, "Secret", "pneumoserve-store")["stringData"]["identities.json"])
    return {policy["name"]: json.loads(policy["content"]) for policy in known["policies"]}


@dataclass
class Cluster:
    """What a healthy cluster has; tests take away and add."""

    folder: Path
    objects: dict[str, Object]
    kserve: bool = True
    gateway: bool = True
    envoy: bool = True
    metrics: bool = True
    knative: bool = False

    def add(self, item: Object) -> None:
        self.objects[f"{item['kind']}/{item['metadata']['name']}"] = item

    def render(self, helm: Helm, *values: Path | dict[str, Any]) -> list[Object]:
        with served(self._api(), self.folder) as kubeconfig:
            return helm.render(*values, cluster=kubeconfig)

    def refusal(self, helm: Helm, *values: Path | dict[str, Any]) -> str:
        with served(self._api(), self.folder) as kubeconfig:
            return helm.refusal(*values, cluster=kubeconfig)

    def _api(self) -> Api:
        kinds = CORE | (KSERVE if self.kserve else {}) | (GATEWAY if self.gateway else {})
        kinds |= (ENVOY if self.envoy else {}) | (METRICS if self.metrics else {})
        kinds |= SERVING if self.knative else {}
        return Api(kinds, list(self.objects.values()))


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    healthy = Cluster(tmp_path, {})
    for name, labels in (("kube-system", {}), (NAMESPACE, {"pod-security.kubernetes.io/enforce": "restricted"})):
        healthy.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    healthy.add(controller("kserve/kserve-controller:v0.20.0"))
    healthy.add(storage_container({"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}))
    healthy.add(gateway({"from": "All"}))
    # The claims that ci/everything-values.yaml names.
    for name in ("journal", "seals", "evidence"):
        metadata = {"name": name, "namespace": NAMESPACE}
        healthy.add({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata})
    # And its Secrets.
    named = {
        "review-database": "url", "console-client": "secret", "alert-files": "mail-password", "evidence-key": "key.pem"
    }  # fmt: skip
    for name, key in named.items():
        metadata = {"name": name, "namespace": NAMESPACE}
        healthy.add({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {key: "eA=="}})
    return healthy


def controller(image: str, available: int = 1) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "kserve-controller-manager", "namespace": "kserve"},
        "spec": {"template": {"spec": {"containers": [{"name": "manager", "image": image}]}}},
        "status": {"availableReplicas": available} if available else {},
    }


def storage_container(security: dict[str, Any] | None) -> Object:
    container = {"name": "storage-initializer"} | ({"securityContext": security} if security else {})
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterStorageContainer",
        "metadata": {"name": "default"},
        "spec": {"container": container, "supportedUriFormats": [{"prefix": "gs://"}, {"prefix": "s3://"}]},
    }


def gateway(namespaces: dict[str, Any] | None) -> Object:
    open_to = {} if namespaces is None else {"allowedRoutes": {"namespaces": namespaces}}
    listeners: list[dict[str, Any]] = [
        {"name": "http", "protocol": "HTTP", "port": 80, **open_to},
        {"name": "https", "protocol": "HTTPS", "port": 443, **open_to},
    ]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "kserve-ingress-gateway", "namespace": "kserve"},
        "spec": {"gatewayClassName": "envoy", "listeners": listeners},
    }


def inference_service(release: str, ready: str = "True", runtime: str = "pneumoserve-0-0-9-aaaaaaaa") -> Object:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": f"pneumonia-{release}", "namespace": NAMESPACE},
        "spec": {"predictor": {"model": {"runtime": runtime}}},
        "status": {"conditions": [{"type": "PredictorReady", "status": ready}, {"type": "Ready", "status": ready}]},
    }


def route_to(release: str) -> Object:
    backends = [{"name": f"pneumonia-{release}-predictor", "port": 80, "weight": 100}]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "pneumoserve", "namespace": NAMESPACE},
        "spec": {"rules": [{"backendRefs": backends}]},
    }


def check_storage_patch(helm: Helm, cluster: Cluster, values: Path, security: str) -> None:
    """Refused with the patch that would do, and taken where the namespace does not ask for it."""
    patch = f'{{"spec":{{"container":{{"securityContext":{security}}}}}}}'
    assert f"kubectl patch clusterstoragecontainer default --type merge -p '{patch}'" in cluster.refusal(helm, values)
    cluster.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    assert cluster.render(helm, values)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs helm."""
    for item in items:
        if "helm_binary" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.helm)
