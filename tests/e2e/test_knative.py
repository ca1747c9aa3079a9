"""Knative mode up to where Knative's controllers would take over: they cannot run here, so the test plays them.

KServe makes a Knative Service of the chart's objects, Knative's own validation takes it, and its pod runs. What Knative
would report is written into the Service's status by hand; how KServe then splits the calls is KServe's own doing.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from loadtest.calls import PREDICT
from tests import films
from tests.chart.knative import refusal
from tests.cluster.components import KSERVE, module_folder
from tests.e2e.conftest import Cluster, Images, restricted_namespace
from tests.e2e.product import NAME, Product, wait_until

pytestmark = pytest.mark.skipif("KUBECONFIG" in os.environ, reason="gives the cluster Knative's CRDs, restarts KServe")

SERVICE = "pneumonia-predictor"
MANAGER = "deployment/kserve-controller-manager"
KNATIVE = {
    "mode": "Knative",
    "route": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
    "topologySpread": {"enabled": False},
}


def definitions() -> list[dict[str, Any]]:
    folder = module_folder("knative", "knative.dev/serving") / "config/core/300-resources"
    files = (folder / f"{name}.yaml" for name in ("configuration", "revision", "route", "service"))
    return [item for file in files for item in yaml.safe_load_all(file.read_text())]


def restart_manager(cluster: Cluster) -> None:
    """KServe's manager looks for Knative when it starts; its webhooks answer a little after it is Ready."""
    cluster.kubectl("rollout", "restart", MANAGER, f"--namespace={KSERVE}")
    cluster.kubectl("rollout", "status", MANAGER, f"--namespace={KSERVE}", "--timeout=180s")
    probe = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": "probe", "namespace": KSERVE},
        "spec": {"containers": [{"name": "kserve-container", "image": "none"}]},
    }
    words = (cluster.tool("kubectl"), "apply", "--server-side", "--dry-run=server", "-f", "-")
    wait_until(
        lambda: cluster.run(*words, given=json.dumps(probe), check=False).returncode == 0, 60, "webhooks that answer"
    )


@pytest.fixture(scope="module")
def product(cluster: Cluster, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with restricted_namespace(cluster) as namespace:
        product = Product(cluster, namespace, images, tmp_path_factory.mktemp("knative"))
        product.prepare()
        product.values |= KNATIVE | {"release": {"id": product.first}}
        yield product
        cluster.helm("uninstall", NAME, f"--namespace={namespace}", "--ignore-not-found")


@pytest.fixture(scope="module")
def serving(product: Product) -> Iterator[Product]:
    """A cluster that knows Knative's kinds, and a KServe that knows it; both as before afterwards."""
    cluster = product.cluster
    known = definitions()
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "knative-serving"}}
    metadata = {"name": "config-autoscaler", "namespace": "knative-serving"}
    cluster.apply(*known, namespace, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {}})
    names = [f"customresourcedefinition/{item['metadata']['name']}" for item in known]
    cluster.kubectl("wait", *names, "--for=condition=Established", "--timeout=60s")
    restart_manager(cluster)
    yield product
    cluster.helm("uninstall", NAME, f"--namespace={product.namespace}", "--wait", "--timeout=120s")
    cluster.kubectl("delete", *names, "namespace/knative-serving", "--timeout=120s")
    cluster.kubectl(
        "patch", "clusterstoragecontainer", "default", "--type=merge",
        '--patch={"spec":{"container":{"securityContext":{"seccompProfile":null}}}}',
    )  # fmt: skip
    restart_manager(cluster)


@pytest.fixture(scope="module")
def installed(serving: Product) -> Product:
    """The chart, after the one command that its preflight asks for."""
    refused = serving.try_helm("install", serving.values).stderr
    assert "which KServe's storage-initializer does not meet in Knative mode" in refused
    patch = refused.partition(" --type merge -p '")[2].partition("'")[0]
    serving.cluster.kubectl("patch", "clusterstoragecontainer", "default", "--type=merge", f"--patch={patch}")
    serving.helm("install")
    wait_until(lambda: serving.get("services.serving.knative.dev")["items"], 60, "a Knative Service")
    return serving


def knative_service(product: Product) -> dict[str, Any]:
    found: dict[str, Any] = product.get("services.serving.knative.dev", SERVICE)
    return found


def traffic(product: Product) -> list[dict[str, Any]]:
    """How KServe asks Knative to split the calls."""
    return list(knative_service(product)["spec"]["traffic"])


def play_knative(product: Product, revision: str, split: list[dict[str, Any]]) -> None:
    """Report a revision as Ready and the calls as split, as Knative's controllers would."""
    url = f"http://{SERVICE}.{product.namespace}.svc.cluster.local"
    ready = [{"type": each, "status": "True"} for each in ("ConfigurationsReady", "Ready", "RoutesReady")]
    status = {
        "observedGeneration": knative_service(product)["metadata"]["generation"],
        "latestCreatedRevisionName": revision,
        "latestReadyRevisionName": revision,
        "traffic": split,
        "conditions": ready,
        "url": url,
        "address": {"url": url},
    }
    patch = json.dumps({"status": status})
    product.kubectl(
        "patch", "services.serving.knative.dev", SERVICE, "--subresource=status", "--type=merge", "-p", patch
    )


# --- without Knative


def test_without_knative_nothing_is_changed_and_what_to_do_is_told(product: Product) -> None:
    done = product.try_helm("install", product.values)
    assert done.returncode != 0
    assert "The cluster has no Knative Serving; install it with a networking layer" in done.stderr
    assert "nothing was changed" in done.stderr
    assert product.get("inferenceservices")["items"] == []


def test_without_knative_kserve_takes_the_objects_and_says_why_no_pod_comes(product: Product) -> None:
    """What `kubectl apply -k` meets, where no preflight looks."""
    unlooked = {**product.values, "preflight": {"enabled": False}}
    rendered = yaml.safe_load_all(product.try_helm("template", unlooked, check=True).stdout)
    (inference,) = (item for item in rendered if item and item["kind"] == "InferenceService")
    product.cluster.apply(inference)
    selector = "involvedObject.name=pneumonia"
    found = wait_until(lambda: product.get("events", f"--field-selector={selector}")["items"], 60, "an event")
    told = {(event["reason"], event["message"]) for event in found}
    print(f"without Knative: {told}")
    message = "It is not possible to use Knative deployment mode when Knative Services are not available"
    assert message in {message for _, message in told}
    product.kubectl("delete", "inferenceservice", "pneumonia", "--timeout=60s")


# --- with it


def test_kserve_makes_a_knative_service_that_knative_would_take(installed: Product) -> None:
    service = knative_service(installed)
    assert refusal(service) == ""
    assert service["metadata"]["labels"]["networking.knative.dev/visibility"] == "cluster-local"
    template = service["spec"]["template"]
    scaling = {key: value for key, value in template["metadata"]["annotations"].items() if "autoscaling" in key}
    print(f"KServe asks Knative's autoscaler for {scaling}")
    assert scaling["autoscaling.knative.dev/class"] == "kpa.autoscaling.knative.dev"
    assert scaling["autoscaling.knative.dev/min-scale"] == "2"
    assert scaling["autoscaling.knative.dev/max-scale"] == "6"
    assert scaling["autoscaling.knative.dev/target"] == "4"
    assert template["spec"]["timeoutSeconds"] == 120
    ports = [port for each in template["spec"]["containers"] for port in each.get("ports", [])]
    assert [port["containerPort"] for port in ports] == [8080]
    assert traffic(installed) == [{"latestRevision": True, "percent": 100}]


def test_nothing_of_the_runtime_is_dropped_on_the_way(installed: Product) -> None:
    """The API server drops what Knative's CRDs do not know, such as hooks, before a webhook could refuse it."""
    made = knative_service(installed)["spec"]["template"]["spec"]
    (runtime,) = installed.get("servingruntimes")["items"]
    by_name = {container["name"]: container for container in made["containers"]}
    assert len(by_name) == len(runtime["spec"]["containers"])
    for wanted in runtime["spec"]["containers"]:
        assert sorted(set(wanted) - set(by_name[wanted["name"]])) == []
    assert made["volumes"] == runtime["spec"]["volumes"]


def test_the_validation_can_refuse_what_kserve_made(installed: Product) -> None:
    service = copy.deepcopy(knative_service(installed))
    service["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 120
    assert "spec.template.spec.terminationGracePeriodSeconds" in refusal(service)


def test_a_pod_of_it_answers_and_puts_on_record(installed: Product) -> None:
    """Knative would add its proxy and its own wait before SIGTERM; the rest of the pod is this one."""
    installed.kubectl("rollout", "status", f"deployment/{NAME}-store", "--timeout=120s")
    installed.push(installed.folder / "releases" / installed.first)
    template = copy.deepcopy(knative_service(installed)["spec"]["template"])
    template["spec"].pop("timeoutSeconds")
    template["spec"].pop("responseStartTimeoutSeconds")
    template["spec"].pop("containerConcurrency", None)
    template["spec"]["terminationGracePeriodSeconds"] = 30
    template["metadata"] = {key: template["metadata"][key] for key in ("annotations", "labels")}
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] |= {"name": "revision", "namespace": installed.namespace}
    installed.cluster.apply(pod)
    installed.kubectl("wait", "pod/revision", "--for=condition=Ready", "--timeout=180s")
    with installed.cluster.forwarded(installed.namespace, "pod/revision", 8080) as address:
        call = {"content": films.sample_films()[0].read_bytes(), "headers": {"Content-Type": "image/jpeg"}}
        response = httpx.post(f"http://{address}{PREDICT}", **call, timeout=60)
    assert response.status_code == 200, response.text
    assert response.headers["pneumoserve-release"] == installed.first
    (answer,) = response.json()["predictions"]
    assert answer["prediction_id"] in installed.recorded()
    installed.kubectl("delete", "pod", "revision", "--timeout=60s")


def test_another_release_gets_a_tenth_then_all_of_the_calls_or_none(installed: Product) -> None:
    before, after = f"{SERVICE}-00001", f"{SERVICE}-00002"
    play_knative(installed, before, [{"revisionName": before, "latestRevision": True, "percent": 100}])
    installed.kubectl("wait", "inferenceservice/pneumonia", "--for=condition=Ready", "--timeout=60s")
    share(installed, installed.second, 10)
    expected = [
        {"latestRevision": True, "percent": 10},
        {"latestRevision": False, "percent": 90, "revisionName": before, "tag": "prev"},
    ]
    wait_until(lambda: traffic(installed) == expected, 60, "a tenth of the calls")
    service = knative_service(installed)
    assert refusal(service) == ""
    assert _release_of(service) == installed.second
    play_knative(installed, after, [{**expected[0], "revisionName": after}, expected[1]])
    share(installed, installed.second, 0)
    none = [{**expected[0], "percent": 0}, {**expected[1], "percent": 100}]
    wait_until(lambda: traffic(installed) == none, 60, "none of the calls")
    share(installed, installed.second, 100)
    wait_until(lambda: traffic(installed) == [{"latestRevision": True, "percent": 100}], 60, "all of the calls")


def share(product: Product, release: str, percent: int) -> None:
    """What an operator does: an upgrade with the release and its share."""
    product.helm("upgrade", release={"id": release}, knative={"canaryTrafficPercent": percent})


def _release_of(service: dict[str, Any]) -> str:
    annotations: dict[str, str] = service["spec"]["template"]["metadata"]["annotations"]
    return annotations["internal.serving.kserve.io/storage-initializer-sourceuri"].rpartition("/")[2]
