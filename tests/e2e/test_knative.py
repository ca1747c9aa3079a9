"""Knative mode up to where Knative's controllers would take over: they cannot run here, so the tests play them.

KServe makes a Knative Service of the chart's objects, Knative's own validation takes it, and its pod runs. What Knative
would report is written into the Service's status by hand; how KServe then splits the calls is KServe's own doing.
"""

from __future__ import annotations

import copy
import json
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from loadtest.calls import PREDICT
from tests.chart.knative import refusal
from tests.e2e.conftest import Cluster, Images, restricted_namespace
from tests.e2e.knative import Knative
from tests.e2e.product import NAME, Product, wait_until
from tests.e2e.rollouts import Rollouts, commands, key_of
from tests.e2e.turns import Turns
from tests.support import films
from tests.support.cluster.components import KSERVE, module_folder

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
def serving(product: Product, turns: Turns) -> Iterator[Product]:
    """A cluster that knows Knative's kinds, and a KServe that knows it; both as before afterwards."""
    cluster = product.cluster
    known = definitions()
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "knative-serving"}}
    metadata = {"name": "config-autoscaler", "namespace": "knative-serving"}
    cluster.apply(*known, namespace, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {}})
    names = [f"customresourcedefinition/{item['metadata']['name']}" for item in known]
    cluster.kubectl("wait", *names, "--for=condition=Established", "--timeout=60s")
    # Others' objects would be refused while no webhook answers.
    with turns.alone():
        restart_manager(cluster)
    yield product
    cluster.helm("uninstall", NAME, f"--namespace={product.namespace}", "--wait", "--timeout=120s")
    cluster.kubectl("delete", *names, "namespace/knative-serving", "--timeout=120s")
    cluster.kubectl(
        "patch", "clusterstoragecontainer", "default", "--type=merge",
        '--patch={"spec":{"container":{"securityContext":{"seccompProfile":null}}}}',
    )  # fmt: skip
    with turns.alone():
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
    sentence = {(event["reason"], event["message"]) for event in found}
    print(f"without Knative: {sentence}")
    message = "It is not possible to use Knative deployment mode when Knative Services are not available"
    assert message in {message for _, message in sentence}
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


@pytest.fixture(scope="module")
def played(installed: Product) -> Iterator[Knative]:
    """Knative's controllers, played; a pod of the release that is asked for is Ready."""
    installed.kubectl("rollout", "status", f"deployment/{NAME}-store", "--timeout=120s")
    installed.push(*(installed.folder / "releases" / release for release in (installed.first, installed.second)))
    with Knative(installed, films.sample_films()[0].read_bytes()).running() as knative:
        wait_until(lambda: traffic_reported(installed) == {installed.second: 100}, 180, "a revision that is Ready")
        yield knative


def traffic_reported(product: Product) -> dict[str, int]:
    """Shares by release, as Knative reports them; those of 0 too. Empty where a revision is none of the player's."""
    found = product.get("revisions.serving.knative.dev")["items"]
    releases = {each["metadata"]["name"]: _release_of({"spec": {"template": each}}) for each in found}
    shares: dict[str, int] = {}
    for each in knative_service(product)["status"]["traffic"]:
        release = releases.get(each["revisionName"], "")
        shares[release] = shares.get(release, 0) + each["percent"]
    return shares


def test_a_pod_of_it_answers_and_puts_on_record(installed: Product, played: Knative) -> None:
    """Knative would add its proxy and its own wait before SIGTERM; the rest of the pod is this one."""
    (address,) = played.addresses.values()
    call = {"content": played.film, "headers": {"Content-Type": "image/jpeg"}}
    response = httpx.post(f"http://{address}:8080{PREDICT}", **call, timeout=60)
    assert response.status_code == 200, response.text
    assert response.headers["pneumoserve-release"] == installed.second
    (answer,) = response.json()["predictions"]
    assert answer["prediction_id"] in installed.recorded()


# --- a rollout


@pytest.fixture(scope="module")
def rollouts(installed: Product, played: Knative) -> Iterator[Rollouts]:
    installed.command("release", "key", str(key_of(installed)), "--trust", str(installed.folder / "writers"))
    with commands(installed) as made:
        yield made


def asked(product: Product) -> tuple[str, int]:
    """The release and the percent of the InferenceService."""
    predictor = product.get("inferenceservice", "pneumonia")["spec"]["predictor"]
    return predictor["model"]["storageUri"].rpartition("/")[2], predictor["canaryTrafficPercent"]


def test_a_good_release_goes_to_100_percent_by_the_same_gates(
    installed: Product, played: Knative, rollouts: Rollouts
) -> None:
    plan = rollouts.plan(
        installed.first, {"percent": 50, "minCalls": 4}, rollbackWindowSeconds=1, drainSeconds=1, shadow={"films": 5}
    )
    revisions = len(installed.get("revisions.serving.knative.dev")["items"])
    with played.called():
        done = rollouts.run("start", "--plan", str(plan))
    print(done.stderr)
    assert done.returncode == 0, done.stderr
    assert f"{installed.first} gets 50 % of the calls" in done.stderr
    counts = Counter(played.answers)
    print(f"a rollout in Knative mode, played: {counts}")
    assert not played.failures, played.failures[:5]
    assert min(counts[installed.first], counts[installed.second]) >= 4
    assert (rollouts.state().outcome, asked(installed)) == ("promoted", (installed.first, 100))
    assert traffic_reported(installed) == {installed.first: 100}
    # Marks, steps and the end made none.
    assert len(installed.get("revisions.serving.knative.dev")["items"]) == revisions + 1
    refused = installed.try_helm("upgrade", installed.values).stderr
    assert f"A rollout settled on release {installed.first}" in refused, refused
    assert "kubectl annotate configmap pneumoserve-traffic" in refused
    installed.helm("upgrade", release={"id": installed.first})
    assert asked(installed) == (installed.first, 100)


def test_one_that_is_given_up_leaves_the_stable_release_as_it_was(
    installed: Product, played: Knative, rollouts: Rollouts
) -> None:
    plan = rollouts.plan(installed.second, {"percent": 50, "minCalls": 500}, drainSeconds=1)
    with rollouts.started(plan):
        wait_until(lambda: asked(installed) == (installed.second, 0), 60, "a candidate without calls")
        refused = installed.try_helm("upgrade", installed.values).stderr
        assert f"A rollout beside release {installed.first} is under way, and in Knative mode" in refused, refused
        done = rollouts.run("abort", "--reason", "it was the wrong one")
    assert done.returncode == 0, done.stderr
    assert rollouts.state().outcome == "aborted"
    assert asked(installed) == (installed.first, 100)
    wait_until(lambda: traffic_reported(installed) == {installed.first: 100}, 60, "all calls to it")
    marks = installed.get("configmap", f"{NAME}-traffic")["metadata"]["annotations"]
    assert "pneumoserve/rollout" not in marks
    installed.helm("upgrade")


def share(product: Product, release: str, percent: int) -> None:
    """What an operator does: an upgrade with the release and its share."""
    product.helm("upgrade", release={"id": release}, knative={"canaryTrafficPercent": percent})


def _release_of(service: dict[str, Any]) -> str:
    annotations: dict[str, str] = service["spec"]["template"]["metadata"]["annotations"]
    return annotations["internal.serving.kserve.io/storage-initializer-sourceuri"].rpartition("/")[2]
