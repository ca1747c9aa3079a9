"""What may stand beside the service: payload logger, load, DICOM intake, InferenceGraph, `helm test`, other operators.

Installed from a mirror, which is all that the node's network reaches.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from pydicom.filereader import read_dataset

from loadtest.calls import PREDICT
from pneumoserve.records import find_record
from tests.e2e.conftest import Cluster, Images, named, restricted_namespace, seaweedfs
from tests.e2e.product import CHART, NAME, SMALL, Product, processes_of, secrets_of, wait_until
from tests.support import films
from tests.support.cluster.node import ADDRESS, PODS, REGISTRY
from tests.support.dicom_peers import closed_sockets, send_until_taken, take_reports
from tests.support.intake import child_xray
from tests.support.prometheus import ALERTMANAGER, PROMETHEUS, Peer, Target, running_alertmanager, running_prometheus
from tools.generate.manifests import MANIFESTS, NAMESPACE, reference_release

HOST = "addons.example.org"
FILM = films.sample_films()[0].read_bytes()
PAYLOADS = "payloads/"
MIRROR = f"{REGISTRY}/mirror"


@pytest.fixture(scope="module")
def logged(cluster: Cluster, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A release that had the payload logger from its beginning."""
    with restricted_namespace(cluster) as namespace:
        product = Product(cluster, namespace, images, tmp_path_factory.mktemp("addons"))
        product.prepare()
        product.values |= {"payloadLogger": {"enabled": True}, "route": {"hostnames": [HOST]}, "replicas": 1}
        notes = product.helm("install", *mirrored(product))
        assert "The payload logger keeps whole films" in notes
        product.push(product.folder / "releases" / product.first)
        product.helm("upgrade", release={"id": product.first})
        product.wait_ready(product.first)
        yield product
        cluster.helm("uninstall", NAME, f"--namespace={namespace}")


def mirrored(product: Product) -> list[str]:
    """Copy chart and images, as for a cluster without internet; what `helm install` then takes."""
    if product.cluster.node is None:
        return [str(CHART)]
    # The node has this one in itself; a mirror is filled from a registry.
    server, archive = f"{REGISTRY}/chrislusf/seaweedfs:4.48", product.folder / "seaweedfs.tar"
    seaweedfs(server).write(archive)
    product.cluster.run("skopeo", "copy", "--dest-tls-verify=false", f"docker-archive:{archive}", f"docker://{server}")
    product.values["trialStore"]["image"] = named(server)
    file = product.folder / "values.json"
    # All that the tests below need.
    more = {
        "release": {"id": product.first},
        "loadTest": {"enabled": True, "image": named(product.images.loadtest)},
        "intake": intake_values(product),
    }
    file.write_text(json.dumps({**product.values, **more}))
    helm = Path(product.cluster.tool("helm"))
    signed = product.folder / "signed"
    environment = {
        **os.environ, "PATH": f"{helm.parent}:{os.environ['PATH']}", "PLAIN_HTTP": "1", "IMAGES": f"{signed}/images",
    }  # fmt: skip
    for words in (("attest.sh", str(product.key), str(signed)), ("mirror.sh", MIRROR)):
        command = ["sh", str(CHART.parent / words[0]), *words[1:], f"--values={file}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        print(done.stdout)
    product.values["images"]["registry"] = MIRROR
    return [f"oci://{MIRROR}/charts/pneumoserve", "--plain-http"]


def intake_values(product: Product, *to: str) -> dict[str, Any]:
    """DICOM intake with these destinations. The node may send, which pods see by its address among theirs."""
    peers = [{"aeTitle": "PACS", "networks": [f"{ADDRESS}/32", PODS]}]
    return {
        "enabled": True, "image": named(product.images.intake), "resources": SMALL, "to": list(to),
        "rules": {"peers": peers, "quietSeconds": 8}, "service": {"type": "NodePort"},
    }  # fmt: skip


@pytest.fixture
def answered(logged: Product, gateway: str) -> str:
    """The id of a prediction through the gateway, by a call that names no one."""
    call = {"instances": [{"image": {"b64": base64.b64encode(FILM).decode()}}]}

    def answer() -> httpx.Response | None:
        response = httpx.post(f"http://{gateway}{PREDICT}", json=call, headers={"Host": HOST}, timeout=30)
        return response if response.is_success else None

    response = wait_until(answer, 60, "an answer through the gateway")
    return str(response.json()["predictions"][0]["prediction_id"])


# --- without internet


@pytest.mark.skipif("KUBECONFIG" in os.environ, reason="needs a network that reaches one registry and nothing else")
def test_the_mirror_is_all_that_is_needed(logged: Product, answered: str) -> None:
    with pytest.raises(OSError, match="No route to host"):
        socket.create_connection(("192.0.2.1", 443), timeout=5)
    every = logged.get("pods")["items"]
    ours = [c["image"] for pod in every for c in pod["spec"]["containers"] if c["name"] != "agent"]
    assert len(ours) >= 3
    assert not [image for image in ours if not image.startswith(f"{MIRROR}/")]


# --- the payload logger


def body(kept: bytes) -> str:
    """What was called or answered, of an object that the payload logger wrote."""
    return base64.b64decode(json.loads(kept)["bytes"]).decode()


def test_bodies_of_calls_and_answers_are_in_the_store_when_it_is_on(logged: Product, answered: str) -> None:
    folder = f"{PAYLOADS}{logged.namespace}/pneumonia-{logged.first}/predictor/logs/"
    with logged.store() as store:

        def response() -> str | None:
            keys = [item.key for item in store.list(folder)]
            found = [key for key in keys if answered in body(store.get(key))]
            return found[0] if found else None

        key = wait_until(response, 60, f"the answer below {folder}")
        request = body(store.get(key.replace("-response.", "-request.")))
        assert base64.b64encode(FILM).decode() in request, "the whole film, readable"
        print(f"kept by the payload logger: {sorted(item.key for item in store.list(PAYLOADS))[:4]}")
    with logged.reader() as reader:
        assert find_record(reader, answered) is not None
    # The archive is not troubled by what stands beside it.
    print(logged.job("verify"))


def test_the_payload_logger_has_not_the_archives_credential(logged: Product) -> None:
    """KServe gives it the one that the storage-initializer reads releases with."""
    (pod,) = logged.pods(logged.first)
    (agent,) = [container for container in pod["spec"]["containers"] if container["name"] == "agent"]
    assert secrets_of(agent) == {f"{NAME}-releases"}


def test_it_is_not_switched_off_under_calls(logged: Product, answered: str) -> None:
    done = logged.try_helm("upgrade", {**logged.values, "payloadLogger": {"enabled": False}})
    assert done.returncode != 0
    assert f"Release {logged.first} answers calls with the payload logger" in done.stderr


# --- helm test


def test_helm_test_passes_where_calls_are_recorded_and_not_without_the_store(logged: Product, answered: str) -> None:
    test = ("test", NAME, f"--namespace={logged.namespace}", "--timeout=180s")
    print(logged.cluster.helm(*test).stdout)
    assert logged.get("pods,configmaps,networkpolicies", "--selector=app.kubernetes.io/component=test")["items"] == []
    with store_away(logged):
        done = logged.cluster.helm(*test, check=False)
        sentence = logged.kubectl("logs", f"pod/{NAME}-test")
    assert done.returncode != 0
    assert "The status is 503" in sentence or "No service answers" in sentence, sentence
    print(f"helm test without the store: {sentence.strip()}")
    logged.kubectl("delete", "pod", f"{NAME}-test")
    wait_until(lambda: logged.ready_pods(logged.first), 120, "a Ready pod")


@contextlib.contextmanager
def store_away(product: Product) -> Iterator[None]:
    """The trial store scaled to nothing, as long as the context lasts."""
    product.kubectl("scale", f"deployment/{NAME}-store", "--replicas=0")
    product.kubectl("wait", "pods", "--selector=app.kubernetes.io/component=store", "--for=delete", "--timeout=60s")
    try:
        yield
    finally:
        product.kubectl("scale", f"deployment/{NAME}-store", "--replicas=1")
        product.kubectl("rollout", "status", f"deployment/{NAME}-store", "--timeout=120s")


# --- the load test


def test_the_load_job_asks_in_every_form_at_its_rate_and_its_thresholds_decide(logged: Product, answered: str) -> None:
    before = len(logged.recorded())
    load = {"enabled": True, "image": named(logged.images.loadtest), "rate": 4, "seconds": 10}
    logged.helm("upgrade", loadTest={**load, "thresholds": {"p99Ms": 60000}})
    sentence = logged.job("load")
    print(sentence)
    assert len(logged.recorded()) - before >= load["rate"] * load["seconds"] * 0.9
    logged.helm("upgrade", loadTest={**load, "thresholds": {"p50Ms": 1}})
    assert "p50" in logged.job("load", fails=True)


# --- objects of other operators


def watched(product: Product) -> list[Any]:
    """What the chart makes for other operators."""
    values = {
        **product.values,
        "autoscaling": {"enabled": True, "by": "keda", "prometheus": "http://prometheus.monitoring.svc:9090"},
        "monitoring": {"podMonitor": {"enabled": True}, "rules": {"enabled": True}, "labels": {"release": "main"}},
        "networkPolicies": {"metricsNamespaces": ["monitoring"]},
    }
    file = product.folder / "watched.json"
    file.write_text(json.dumps(values))
    command = ["template", NAME, str(CHART), f"--namespace={product.namespace}", f"--values={file}", "--skip-tests"]
    wanted = {"ScaledObject", "PodMonitor", "PrometheusRule"}
    rendered = yaml.safe_load_all(product.cluster.helm(*command).stdout)
    found = [item for item in rendered if item and item["kind"] in wanted]
    assert {item["kind"] for item in found} == wanted
    return found


def test_the_api_server_takes_what_the_chart_makes_for_keda_and_prometheus(logged: Product) -> None:
    found = watched(logged)
    text = "\n---\n".join(map(json.dumps, found))
    sentence = logged.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", given=text)
    assert sentence.count("created (server dry run)") == len(found), sentence


@pytest.mark.skipif(
    "KUBECONFIG" in os.environ or PROMETHEUS is None or ALERTMANAGER is None,
    reason="Prometheus and Alertmanager run on our own node, which reaches its pods",
)
def test_alertmanager_hears_that_the_store_is_away_and_that_it_is_back(
    logged: Product, answered: str, tmp_path: Path
) -> None:
    """By the chart's rules, of shorter windows and less patience; the fault and its end are real."""
    assert answered
    (rules,) = [item for item in watched(logged) if item["kind"] == "PrometheusRule"]
    groups = json.loads(json.dumps(rules["spec"]["groups"]).replace("[5m]", "[15s]"))
    for rule in (rule for group in groups for rule in group["rules"] if "for" in rule):
        rule["for"] = "3s"
    address = logged.pods(logged.first)[0]["status"]["podIP"]
    front = Target(f"{address}:8082", {"namespace": logged.namespace, "release": logged.first})
    heard = Peer()

    def told(status: str) -> bool:
        alerts = [alert for message in heard.posted for alert in message["alerts"]]
        return ("PneumoserveStoreAway", status) in {(each["labels"]["alertname"], each["status"]) for each in alerts}

    def call() -> httpx.Response:
        return httpx.post(f"http://{address}:8080{PREDICT}", content=FILM, timeout=30)

    with (
        heard.serving(),
        running_alertmanager(tmp_path / "alertmanager", f"http://{heard.address}/") as manager,
        running_prometheus(tmp_path / "prometheus", [front], groups, manager) as prometheus,
    ):
        wait_until(lambda: prometheus.query("sum(up) == 1"), 30, "a scrape of the front")
        assert call().is_success
        assert not told("firing")
        with store_away(logged):
            wait_until(lambda: call().status_code == 503 and told("firing"), 60, "an alert of the store")
            alerts = httpx.get(f"http://{manager}/api/v2/alerts", timeout=10).json()
            assert "PneumoserveStoreAway" in {each["labels"]["alertname"] for each in alerts}
        wait_until(lambda: call().is_success and told("resolved"), 90, "the end of the alert")
    wait_until(lambda: logged.ready_pods(logged.first), 120, "a Ready pod")


# --- DICOM


def intake_pods(logged: Product) -> list[Any]:
    found = logged.get("pods", "--selector=app.kubernetes.io/component=intake")["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def restarts(pods: list[Any]) -> int:
    return sum(each["restartCount"] for pod in pods for each in pod["status"].get("containerStatuses", []))


def intake_command(logged: Product, *words: str) -> str:
    """What an operator types."""
    return logged.kubectl("exec", f"deployment/{NAME}-intake", "--", "pneumoserve", "intake", *words)


@pytest.fixture
def _closed_sockets() -> Iterator[None]:
    with closed_sockets():
        yield


@pytest.mark.usefixtures("_closed_sockets")
@pytest.mark.skipif("KUBECONFIG" in os.environ, reason="kills a pod from outside, and its PACS listens on our own node")
def test_each_study_has_one_report_though_an_intake_pod_is_killed(logged: Product, answered: str) -> None:
    """Studies of two X-rays come through the Service; one of the two pods is killed while it has some."""
    studies = [f"1.2.826.0.1.3680043.10.{number}" for number in range(1, 7)]
    with take_reports(ADDRESS) as (destination, taken):
        logged.helm("upgrade", intake=intake_values(logged, destination))
        # The trial store starts anew, with the new credential.
        for part in ("store", "intake"):
            logged.kubectl("rollout", "status", f"deployment/{NAME}-{part}", "--timeout=300s")
        assert "answers" in intake_command(logged, "echo", destination)
        (port,) = logged.get("service", f"{NAME}-intake")["spec"]["ports"]

        def send(study: str) -> None:
            for number in (1, 2):
                send_until_taken(child_xray(number, study), port["nodePort"], ADDRESS)

        for study in studies[:3]:
            send(study)
        before = restarts(intake_pods(logged))
        victim, _ = processes_of(intake_pods(logged), "pneumoserve.intake")
        victim.kill()
        for study in studies[3:]:
            send(study)
        wait_until(lambda: restarts(intake_pods(logged)) == before + 1, 120, "the pod's container was started again")
        logged.kubectl("rollout", "status", f"deployment/{NAME}-intake", "--timeout=120s")
        wait_until(lambda: json.loads(intake_command(logged, "list", "--json"))["studies"] == [], 180, "an empty spool")
    # Two contents of one report would name its study twice.
    reports = [read_dataset(io.BytesIO(each), False, True) for contents in taken.values() for each in contents]
    print(f"{len(reports)} reports of {len(studies)} studies")
    assert sorted(str(each.StudyInstanceUID) for each in reports) == studies
    with logged.reader() as reader:
        records = [json.loads(line) for segment in reader.segments() for line in segment.lines]
    routed = [each for each in records if each["call"].get("origin") == "routed" and each["kind"] == "prediction"]
    assert len(routed) == 2 * len(studies)


# --- an InferenceGraph


def test_a_graph_answers_with_both_raw_models_scores(logged: Product, answered: str) -> None:
    assert logged.first == reference_release()
    with graph(logged):
        # KServe calls a graph Ready as soon as it has a Deployment, available or not.
        scores = ("deployment/pneumonia-scores", "--namespace=pneumonia-graph")
        logged.cluster.kubectl("wait", *scores, "--for=create", "--timeout=60s")
        logged.cluster.kubectl("rollout", "status", *scores, "--timeout=120s")
        call = {"instances": [{"image": {"b64": base64.b64encode(FILM).decode()}}]}
        with logged.cluster.forwarded("pneumonia-graph", "service/pneumonia-scores", 80) as address:
            response = httpx.post(f"http://{address}", json=call, timeout=60)
        assert response.status_code == 200, response.text
        print(f"the graph's answer: {response.text[:600]}")
        ((detector,), (typer,)) = (response.json()[name]["predictions"] for name in ("detector", "typer"))
        assert {detector["prediction_id"], typer["prediction_id"]} <= logged.recorded()
        assert 0 <= detector["pneumonia_probability"] <= 1
        assert 0 <= typer["bacterial_probability"] <= 1


@contextlib.contextmanager
def graph(logged: Product) -> Iterator[None]:
    """The example, asking this install."""
    text = (MANIFESTS / "examples" / "inferencegraph.yaml").read_text()
    text = text.replace(f".{NAMESPACE}.svc", f".{logged.namespace}.svc").replace(
        f"namespace: {NAMESPACE}\n", f"namespace: {logged.namespace}\n"
    )
    logged.cluster.kubectl("apply", "--server-side", "-f", "-", given=text)
    try:
        yield
    finally:
        logged.cluster.kubectl("delete", "--wait=false", "-f", "-", given=text)
