"""`kubectl apply -k` alone, as manifests/README.md has it, installs a service that answers."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.e2e.conftest import SEAWEEDFS, Cluster, Images, named
from tests.e2e.product import Product, wait_until
from tests.support import films
from tools.generate.manifests import MANIFESTS, NAMESPACE, reference_release

HOST = "manifests.example.org"


@pytest.fixture(scope="module")
def applied(cluster: Cluster, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """The standard overlay below one of a site, which names its images and a host name; nothing was pushed yet."""
    product = Product(cluster, NAMESPACE, images, tmp_path_factory.mktemp("manifests"))
    product.prepare()
    folder = product.folder / "manifests"
    shutil.copytree(MANIFESTS, folder, ignore=shutil.ignore_patterns("credentials"))
    (public,) = (product.folder / "trust").glob("*.pem")
    subprocess.run(["sh", folder / "credentials.sh", public], check=True, capture_output=True)
    site = _site(product.folder / "site", images)
    try:
        # As it says in the README: one apply, into a cluster that has not even the namespace.
        cluster.kubectl("apply", "--kustomize", str(site))
        yield product
    finally:
        cluster.kubectl("delete", "--kustomize", str(site), "--ignore-not-found", "--wait=false")


def _site(folder: Path, images: Images) -> Path:
    names = {"front": images.front, "models": images.models}
    document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["../manifests/overlays/standard"],
        "images": [_renamed(f"pneumoserve/{name}", reference) for name, reference in names.items()]
        + [_renamed("chrislusf/seaweedfs", SEAWEEDFS)],
        "patches": [
            {
                "target": {"kind": "HTTPRoute", "name": "pneumoserve"},
                "patch": json.dumps([{"op": "add", "path": "/spec/hostnames", "value": [HOST]}]),
            },
            # The node has two cores for everything.
            {
                "target": {"kind": "InferenceService"},
                "patch": json.dumps([{"op": "replace", "path": "/spec/predictor/minReplicas", "value": 1},
                                     {"op": "replace", "path": "/spec/predictor/maxReplicas", "value": 1}]),
            },
        ],
    }  # fmt: skip
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(document))
    return folder


def _renamed(name: str, reference: str) -> dict[str, str]:
    keys = {"repository": "newName", "digest": "digest", "tag": "newTag"}
    return {"name": name, **{keys[key]: value for key, value in named(reference).items()}}


def test_apply_k_and_a_pushed_release_answer_through_the_gateway(applied: Product, gateway: str) -> None:
    release = reference_release()
    assert applied.first == release
    setup = "--selector=app.kubernetes.io/component=setup"
    applied.kubectl("wait", "jobs", setup, "--for=condition=Complete", "--timeout=180s")
    applied.push(applied.folder / "releases" / release)
    # Pods that looked for the release in vain try again after minutes.
    applied.kubectl("delete", "pods", "--selector=app.kubernetes.io/component=predictor")
    applied.wait_ready(release)
    film = films.sample_films()[0].read_bytes()

    def answer() -> httpx.Response | None:
        response = httpx.post(
            f"http://{gateway}/v1/models/pneumonia:predict", content=film, headers={"Host": HOST}, timeout=30
        )
        return response if response.is_success else None

    response = wait_until(answer, 60, "an answer through the gateway")
    assert response.headers["pneumoserve-release"] == release
    assert response.json()["predictions"][0]["prediction_id"] in applied.recorded()


def test_applied_again_nothing_changes(applied: Product) -> None:
    before = _generations(applied)
    applied.cluster.kubectl("apply", "--kustomize", str(applied.folder / "site"))
    assert _generations(applied) == before


def _generations(applied: Product) -> dict[str, int]:
    """How often each object that runs something was changed."""
    found = applied.get("inferenceservices,servingruntimes,deployments,jobs,cronjobs,httproutes")["items"]
    return {f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["generation"] for item in found}
