"""The kustomize manifests: in step with the chart, whole, and without a secret."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pneumoserve.signing import generate_key, write_public_key
from tests.chart.api import Object
from tests.chart.conftest import TRIAL, Helm, of_kind, the
from tests.chart.restricted import violations
from tests.chart.test_reading_room import ROOM
from tests.chart.test_rendered import pods
from tests.support.cluster.cache import go_binaries
from tools.generate import find_differences
from tools.generate.manifests import (
    CANDIDATE,
    GENERATOR,
    MANIFESTS,
    NAMESPACE,
    ROOT,
    reference_release,
    render_manifests,
    write,
)

OVERLAYS = ("standard", "gpu", "canary", "knative")
# KServe's own container has no pod's settings to lean on in Knative mode; README.md has the command that mends it.
INITIALIZER_OF_KNATIVE = {
    ("pneumonia", f"storage-initializer {what}") for what in ("may run as root", "has no seccomp profile")
}


@pytest.fixture(scope="module")
def approver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The public half of an approver's key."""
    folder = tmp_path_factory.mktemp("approver")
    return write_public_key(generate_key(folder / "approver.pem"), folder / "trust")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The manifests as a person has them who has checked them out."""
    ignored = shutil.ignore_patterns("credentials")
    return Path(shutil.copytree(MANIFESTS, tmp_path / "manifests", ignore=ignored))


@pytest.fixture(scope="module")
def built(approver: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Object]]:
    """The objects of each overlay, as `kubectl apply -k` would apply them."""
    folder = Path(shutil.copytree(MANIFESTS, tmp_path_factory.mktemp("built") / "manifests", dirs_exist_ok=True))
    credentials(folder, approver)
    built = {}
    for name in OVERLAYS:
        done = kustomize(folder / "overlays" / name)
        assert done.returncode == 0, done.stderr
        built[name] = list(yaml.safe_load_all(done.stdout))
    return built


def kustomize(folder: Path) -> subprocess.CompletedProcess[str]:
    kubectl = go_binaries("kubernetes", print) / "kubectl"
    return subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, timeout=60, check=False)


def credentials(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["sh", folder / "credentials.sh", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def texts(folder: Path) -> dict[str, str]:
    """The generated files by their path."""
    found = [*(folder / "base").glob("*.*"), *(folder / "overlays").rglob("*.yaml")]
    return {str(path.relative_to(folder)): path.read_text() for path in found}


def test_the_manifests_are_those_that_the_chart_gives(helm_binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{helm_binary.parent}:{os.environ['PATH']}")
    assert find_differences(GENERATOR, ROOT) == [], "the chart, its defaults or the reference changed: make generate"


def test_no_secret_stands_in_the_repository() -> None:
    for name, text in texts(MANIFESTS).items():
        if name.endswith(".yaml"):
            assert yaml.safe_load(text)["kind"] != "Secret", name
        assert "PRIVATE KEY" not in text
    assert "manifests/base/credentials/" in (MANIFESTS.parent / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_pod_passes_the_restricted_pod_security_standard(built: dict[str, list[Object]], name: str) -> None:
    found = list(pods(built[name]))
    assert len(found) == (7 if name == "canary" else 6)
    for pod, spec, _ in found:
        assert [what for what in violations(spec) if (pod, what) not in INITIALIZER_OF_KNATIVE] == [], pod
    assert the(built[name], "Namespace")["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_whatever_an_object_names_is_there(built: dict[str, list[Object]], name: str) -> None:
    there = {(item["kind"], item["metadata"]["name"]) for item in built[name]}
    wanted = {("ServiceAccount", spec["serviceAccountName"]) for _, spec, _ in pods(built[name])
              if "serviceAccountName" in spec}  # fmt: skip
    for _, spec, _ in pods(built[name]):
        wanted |= set(_named(spec))
    assert wanted <= there
    for item in of_kind(built[name], "ServiceAccount"):
        assert {("Secret", secret["name"]) for secret in item.get("secrets", [])} <= there
    assert {item["metadata"].get("namespace") for item in built[name]} == {None, NAMESPACE}


def _named(value: Any) -> list[tuple[str, str]]:
    """Secrets and ConfigMaps that a pod's spec names, at any depth."""
    if isinstance(value, list):
        return [found for each in value for found in _named(each)]
    if not isinstance(value, dict):
        return []
    found = [named for each in value.values() for named in _named(each)]
    for key, kind, name in (
        ("secret", "Secret", "secretName"),
        ("secret", "Secret", "name"),
        ("secretKeyRef", "Secret", "name"),
        ("configMap", "ConfigMap", "name"),
    ):
        if isinstance(value.get(key), dict) and name in value[key]:
            found.append((kind, value[key][name]))
    return found


def test_the_trial_stores_rights_are_those_of_the_chart(helm: Helm, built: dict[str, list[Object]]) -> None:
    chart = json.loads(the(helm.render(TRIAL), "Secret", "pneumoserve-store")["stringData"]["identities.json"])
    made = the(built["standard"], "Secret", "pneumoserve-store")["data"]["identities.json"]
    identities = json.loads(_decoded(made))
    assert identities["policies"] == chart["policies"]
    assert [(each["name"], each["policyNames"]) for each in identities["identities"]] == [
        (each["name"], each["policyNames"]) for each in chart["identities"]
    ]
    for each in identities["identities"]:
        data = the(built["standard"], "Secret", f"pneumoserve-{each['name']}")["data"]
        keys = {"accessKey": data["AWS_ACCESS_KEY_ID"], "secretKey": data["AWS_SECRET_ACCESS_KEY"]}
        assert each["credentials"] == [{key: _decoded(value) for key, value in keys.items()}]


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()


def test_a_canary_has_a_tenth_of_the_calls_whatever_the_protocol(built: dict[str, list[Object]]) -> None:
    names = [f"pneumonia-{release}" for release in sorted((reference_release(), CANDIDATE))]
    assert sorted(item["metadata"]["name"] for item in of_kind(built["canary"], "InferenceService")) == names
    rules = the(built["canary"], "HTTPRoute")["spec"]["rules"]
    ports = {8081, 80}
    for rule in rules:
        weights = {backend["name"]: backend["weight"] for backend in rule["backendRefs"]}
        assert weights == {
            f"pneumonia-{reference_release()}-predictor": 90,
            f"pneumonia-{CANDIDATE}-predictor": 10,
        }
        (port,) = {backend["port"] for backend in rule["backendRefs"]}
        ports.remove(port)
    assert not ports


def test_torchserve_has_a_gpu(built: dict[str, list[Object]]) -> None:
    (models,) = [
        container
        for container in the(built["gpu"], "ServingRuntime")["spec"]["containers"]
        if container["name"] == "kserve-container"
    ]
    assert models["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert models["image"].startswith("pneumoserve/models-gpu:")


def test_without_credentials_nothing_is_built(copy: Path) -> None:
    done = kustomize(copy / "overlays" / "standard")
    assert done.returncode != 0
    assert "credentials" in done.stderr


def test_with_an_s3_server_of_ones_own_its_credentials_are_ones_own_too(
    helm_binary: Path, copy: Path, approver: Path, tmp_path: Path
) -> None:
    file = tmp_path / "site.yaml"
    given = {name: {"existingSecret": f"s3-{name}"} for name in ("archive", "seal", "rollout", "releases", "setup")}
    s3 = {"endpoint": "https://minio.example.org:9000", **given}
    file.write_text(yaml.safe_dump({"trialStore": {"enabled": False}, "s3": s3}))
    release = reference_release()
    write(copy, render_manifests(helm_binary, release=release, candidate=CANDIDATE, namespace=NAMESPACE, values=[file]))
    assert credentials(copy, approver).returncode == 0
    assert {path.name for path in (copy / "base" / "credentials").iterdir()} == {
        "trust", "signing", "sealer", "references"
    }  # fmt: skip
    done = kustomize(copy / "overlays" / "standard")
    assert done.returncode == 0, done.stderr
    secrets = {item["metadata"]["name"] for item in yaml.safe_load_all(done.stdout) if item["kind"] == "Secret"}
    assert secrets == {f"pneumoserve-archive-{name}" for name in ("signing", "sealer", "references")}


def test_a_site_with_a_reading_room_has_its_credentials(
    helm_binary: Path, copy: Path, approver: Path, tmp_path: Path
) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(yaml.safe_dump(ROOM))
    release = reference_release()
    write(copy, render_manifests(helm_binary, release=release, candidate=CANDIDATE, namespace=NAMESPACE, values=[file]))
    assert credentials(copy, approver).returncode == 0
    done = kustomize(copy / "overlays" / "standard")
    assert done.returncode == 0, done.stderr
    objects = [each for each in yaml.safe_load_all(done.stdout) if each]
    identities = json.loads(_decoded(the(objects, "Secret", "pneumoserve-store")["data"]["identities.json"]))
    for name in ("console", "alerts"):
        (identity,) = [each for each in identities["identities"] if each["name"] == name]
        data = the(objects, "Secret", f"pneumoserve-{name}")["data"]
        assert identity["credentials"][0]["secretKey"] == _decoded(data["AWS_SECRET_ACCESS_KEY"])


def test_credentials_stay_when_they_are_asked_for_again(copy: Path, approver: Path) -> None:
    assert credentials(copy, approver).returncode == 0
    folder = copy / "base" / "credentials"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert credentials(copy, approver).returncode == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert all(path.stat().st_mode & 0o077 == 0 for path in before)


def test_credentials_want_the_approvers_public_key(copy: Path, tmp_path: Path) -> None:
    private = tmp_path / "private.pem"
    generate_key(private)
    for words in ((), (private,), (tmp_path / "nowhere.pem",)):
        done = credentials(copy, *words)
        assert done.returncode == 2
        assert "public key" in done.stderr
    assert not (copy / "base" / "credentials").exists()
