"""The product on a real cluster, in the order of its life: installed, asked, disturbed, upgraded, removed.

The tests share one install and run in the order they stand in; each leaves it as it found it.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import gzip
import json
import os
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from pneumoserve.ledger import list_segments
from pneumoserve.names import DETECTOR
from pneumoserve.records import find_record
from tests.e2e.conftest import Cluster, Images, restricted_namespace
from tests.e2e.load import Load
from tests.e2e.product import CHART, CHART_BEFORE, NAME, Product, processes_of, wait_until
from tests.integration.front.test_clients import CLIENTS, DECISION_OUTPUTS
from tests.support import films
from tests.support.attacks import LARGE_DOCUMENTS, LARGE_MESSAGES, attacker, write_large_document

FILMS = [path.read_bytes() for path in films.sample_films()[:20]]
PER_SECOND = 10.0
ours = pytest.mark.skipif("KUBECONFIG" in os.environ, reason="kills processes from outside of their pods")


@dataclasses.dataclass(frozen=True)
class Service:
    """What the client matrix asks of a stack: where it listens."""

    url: str
    grpc: str


@pytest.fixture(scope="module")
def product(cluster: Cluster, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """Installed by helm into a namespace that enforces Pod Security "restricted"; nothing answers yet.

    Its route answers to every host name, but for those of the installs beside it.
    """
    with no_answer_for_others(cluster), restricted_namespace(cluster) as namespace:
        product = Product(cluster, namespace, images, tmp_path_factory.mktemp("product"))
        product.prepare()
        notes = product.helm("install")
        assert "NOT FOR CLINICAL USE" in notes
        assert "The trial store is one pod" in notes
        yield product


@contextlib.contextmanager
def no_answer_for_others(cluster: Cluster) -> Iterator[None]:
    """A route of its own for the other installs' host names, which they have routes for only after a while."""
    with restricted_namespace(cluster) as namespace:
        metadata = {"name": "nobody", "namespace": namespace}
        envoy = "gateway.envoyproxy.io"
        reference = {"group": envoy, "kind": "HTTPRouteFilter", "name": "nobody"}
        cluster.apply(
            {
                "apiVersion": f"{envoy}/v1alpha1",
                "kind": "HTTPRouteFilter",
                "metadata": metadata,
                "spec": {"directResponse": {"statusCode": 404}},
            },
            {
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "HTTPRoute",
                "metadata": metadata,
                "spec": {
                    "parentRefs": [{"name": "kserve-ingress-gateway", "namespace": "kserve"}],
                    "hostnames": ["*.example.org"],
                    "rules": [{"filters": [{"type": "ExtensionRef", "extensionRef": reference}]}],
                },
            },
        )
        yield


@pytest.fixture(scope="module")
def serving(product: Product) -> Product:
    """A release was pushed and answers."""
    if not product.cluster.get("inferenceservices", f"--namespace={product.namespace}")["items"]:
        product.push(product.folder / "releases" / product.first)
        product.helm("upgrade", release={"id": product.first, "standby": []})
        product.wait_ready(product.first)
    return product


def load(gateway: str, *, per_second: float = PER_SECOND) -> Load:
    return Load(gateway, FILMS, per_second)


def answers(gateway: str) -> bool:
    try:
        return httpx.post(f"http://{gateway}/v1/models/pneumonia:predict", content=FILMS[0], timeout=30).is_success
    except httpx.TransportError:
        return False


# --- installed


def test_a_pushed_release_comes_ready_and_answers_through_the_gateway(serving: Product, gateway: str) -> None:
    wait_until(lambda: answers(gateway), 60, "an answer through the gateway")
    response = httpx.get(f"http://{gateway}/v2/models/pneumonia", timeout=30)
    assert response.json()["versions"] == [serving.first]


@pytest.mark.usefixtures("alone")
def test_a_second_release_is_ready_within_20_seconds_of_its_apply(serving: Product) -> None:
    serving.push(serving.folder / "releases" / serving.second)
    first = serving.get("inferenceservice", f"pneumonia-{serving.first}")
    first["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "a-person"
    uri = f"s3://pneumoserve/releases/{serving.second}"
    started = time.monotonic()
    _apply_copy(serving, first, f"pneumonia-{serving.second}", uri, minReplicas=1, maxReplicas=1)
    serving.wait_ready(serving.second)
    seconds = time.monotonic() - started
    print(f"apply of an InferenceService to Ready, images present: {seconds:.1f} s")
    (pod,) = serving.pods(serving.second)
    print("\n".join(f"  {line}" for line in start_up(pod)))
    assert seconds < 60, "the goal is 20 s on a machine that does nothing else"


def start_up(pod: dict[str, Any]) -> list[str]:
    """When each container of a pod started, and when it was ready: lines of a timetable."""
    status = pod["status"]
    moments = [(c["lastTransitionTime"], c["type"]) for c in status["conditions"] if c["status"] == "True"]
    for container in status["containerStatuses"]:
        moments.append((container["state"]["running"]["startedAt"], f"{container['name']} started"))
    for container in status["initContainerStatuses"]:
        ended = container["state"]["terminated"]
        moments += [(ended["startedAt"], f"{container['name']} started"), (ended["finishedAt"], "  and ended")]
    return [f"{moment} {what}" for moment, what in sorted(moments)]


def test_memory_of_each_container_is_told(serving: Product) -> None:
    node = serving.cluster.get("nodes")["items"][0]["metadata"]["name"]
    stats = json.loads(serving.cluster.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary"))
    stated_text = [
        (pod["podRef"]["name"], container["name"], container["memory"]["workingSetBytes"] / 2**20)
        for pod in stats["pods"]
        if pod["podRef"]["namespace"] == serving.namespace
        for container in pod.get("containers", [])
        if "workingSetBytes" in container.get("memory", {})
    ]
    assert {"transformer-container", "kserve-container"} <= {container for _, container, _ in stated_text}
    for pod, container, mebibytes in stated_text:
        print(f"memory of {container} in {pod}: {mebibytes:.0f} MiB")


# --- asked


@pytest.mark.parametrize("name", CLIENTS)
async def test_every_stock_client_is_answered_through_the_gateway(name: str, serving: Product, gateway: str) -> None:
    service: Any = Service(f"http://{gateway}", gateway)
    outputs = await CLIENTS[name](service, "pneumonia", FILMS[:2])
    assert list(outputs) == DECISION_OUTPUTS
    by_v1 = [
        httpx.post(f"http://{gateway}/v1/models/pneumonia:predict", content=film, timeout=30).json()["predictions"][0]
        for film in FILMS[:2]
    ]
    assert outputs["pneumonia_probability"] == [answer["pneumonia_probability"] for answer in by_v1]
    assert {str(getattr(each, "decode", lambda each=each: each)()) for each in outputs["release"]} == {serving.first}


def test_a_dicom_object_is_answered_and_its_record_reads_back(serving: Product, gateway: str) -> None:
    response = httpx.post(
        f"http://{gateway}/v1/models/pneumonia:predict",
        content=films.CHEST_DICOM.read_bytes(),
        headers={"content-type": "application/dicom"},
        timeout=60,
    )
    assert response.status_code == 200, response.text
    (answer,) = response.json()["predictions"]
    with serving.reader() as reader:
        record = find_record(reader, answer["prediction_id"])
        assert record is not None
        assert record.image is not None
        assert reader.store.exists(record.image.stored_key)
    assert record.release == serving.first
    assert record.image.format == "dicom"
    assert [use.probability for use in record.models if use.name == DETECTOR] == [answer["pneumonia_probability"]]


def test_bad_input_has_its_status_through_the_gateway(gateway: str, serving: Product) -> None:
    url = f"http://{gateway}/v1/models/pneumonia:predict"
    for body, status in ((b"<html>no film</html>", 415), (FILMS[0][:200], 400), (b"", 400)):
        response = httpx.post(url, content=body, headers={"content-type": "image/jpeg"}, timeout=30)
        assert response.status_code == status, response.text
        assert set(response.json()) == {"error", "prediction_id"}


# --- closed


def test_torchserve_is_closed_to_other_pods(serving: Product) -> None:
    target = serving.pods(serving.first)[0]["status"]["podIP"]
    other = serving.ready_pods(serving.second)[0]
    code = f"""
import socket
for port in (8080, 8081, 8085, 8086, 8087, 7070, 7071):
    with socket.socket() as probe:
        probe.settimeout(5)
        print(port, probe.connect_ex(({target!r}, port)) == 0)
"""
    stated_text = dict(line.split() for line in serving.execute(other, "transformer-container", code).splitlines())
    assert [port for port, is_open in stated_text.items() if is_open == "True"] == ["8080", "8081"]


def test_a_front_in_its_pod_outlives_large_calls_while_others_are_answered(serving: Product, tmp_path: Path) -> None:
    def restarts() -> list[int]:
        return [
            each["restartCount"] for pod in serving.pods(serving.first) for each in pod["status"]["containerStatuses"]
        ]

    before = restarts()
    address = serving.pods(serving.first)[0]["status"]["podIP"]
    for program, *words in (
        (LARGE_MESSAGES, f"{address}:8081", "identity", "44"),
        (LARGE_DOCUMENTS, f"http://{address}:8080", str(write_large_document(tmp_path))),
    ):
        attack = attacker(program, *words)
        while attack.poll() is None:
            url = f"http://{address}:8080/v1/models/pneumonia:predict"
            assert httpx.post(url, content=FILMS[0], timeout=60).status_code == 200
        assert attack.returncode == 0
    assert restarts() == before


def test_there_is_no_route_but_ours(serving: Product) -> None:
    routes = [route["metadata"]["name"] for kind in ("httproutes", "ingresses") for route in serving.get(kind)["items"]]
    assert routes == [NAME]
    services = serving.get("services")["items"]
    assert {service["spec"]["type"] for service in services} <= {"ClusterIP", "ExternalName"}


def test_the_policies_deny_all_but_what_is_named(serving: Product) -> None:
    """As written: the test node's network does not enforce them."""
    policies = {item["metadata"]["name"].removeprefix(f"{NAME}-"): item["spec"] for item in
                serving.get("networkpolicies")["items"]}  # fmt: skip
    deny = policies.pop("deny")
    assert sorted(deny["policyTypes"]) == ["Egress", "Ingress"]
    assert not deny.get("ingress")
    assert not deny.get("egress")
    every_pod = [pod["metadata"]["labels"] for pod in serving.get("pods")["items"]]
    assert all(deny["podSelector"]["matchLabels"].items() <= labels.items() for labels in every_pod)
    (rule,) = policies["predictor"]["ingress"]
    (source,) = rule["from"]
    assert source["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "envoy-gateway-system"}
    proxies = serving.cluster.get("pods", "--namespace=envoy-gateway-system")["items"]
    selected = source["podSelector"]["matchLabels"].items()
    assert [each for each in proxies if selected <= each["metadata"]["labels"].items()]
    assert [port["port"] for port in rule["ports"]] == [8080, 8081]
    assert [port["port"] for rule in policies["store"]["ingress"] for port in rule["ports"]] == [8333]
    targets = [rule.get("to") for rule in policies["egress"]["egress"]]
    assert targets[0] is None
    assert [port["port"] for port in policies["egress"]["egress"][0]["ports"]] == [53, 53]
    assert targets[1][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "store"


def test_only_the_front_has_a_credential(serving: Product) -> None:
    (pod, *_) = serving.pods(serving.first)
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    containers = {container["name"]: container for container in spec["containers"]}
    secrets = {
        name: [variable["name"] for variable in container.get("env", []) if "secretKeyRef" in json.dumps(variable)]
        for name, container in containers.items()
    }
    assert secrets == {"kserve-container": [], "transformer-container": ["S3_ACCESS_KEY", "S3_SECRET_KEY"]}
    secret = {volume["name"] for volume in spec["volumes"] if "secret" in volume}
    mounted = {
        name: secret & {mount["name"] for mount in container["volumeMounts"]} for name, container in containers.items()
    }
    assert mounted == {"kserve-container": set(), "transformer-container": secret}
    assert secret, "the keys of archive and references"


def _keys(serving: Product) -> dict[str, dict[str, str]]:
    """The archive's keys, by Secret and file."""
    names = ("signing", "sealer", "references")
    found = {name: serving.get("secret", f"pneumoserve-archive-{name}")["data"] for name in names}
    return {
        name: {key: base64.b64decode(value).decode() for key, value in each.items()} for name, each in found.items()
    }


def test_no_release_secret_of_helm_holds_a_key_of_the_archive(serving: Product) -> None:
    made = _keys(serving)
    keys = [made["references"]["key"], *(made[name]["key.pem"].splitlines()[1] for name in ("signing", "sealer"))]
    releases = serving.get("secrets", "--selector=owner=helm")["items"]
    assert releases
    for release in releases:
        # Helm gives Kubernetes base64 of gzip, and Kubernetes gives base64 of that.
        text = gzip.decompress(base64.b64decode(base64.b64decode(release["data"]["release"]))).decode()
        assert "PRIVATE KEY" not in text, release["metadata"]["name"]
        assert not [key for key in keys if key in text], release["metadata"]["name"]


# --- disturbed


def test_pods_deleted_one_by_one_lose_no_call(serving: Product, gateway: str) -> None:
    with load(gateway).running() as running:
        running.wait_for_answers(20)
        for name in serving.ready_pods(serving.first):
            serving.kubectl("delete", "pod", name, "--wait=true")
            wait_until(lambda: len(serving.ready_pods(serving.first)) == 2, 120, "two Ready pods")
        running.wait_for_answers(20)
    print(f"pods deleted one by one: {running.summary()}")
    assert not running.failures, running.failures[:5]
    assert not {call.prediction_id for call in running.calls} - serving.recorded()


def test_a_killed_torchserve_worker_loses_no_call(serving: Product, gateway: str) -> None:
    kill = """
import os, pathlib, signal
for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    if b"model_service_worker" in path.read_bytes():
        os.kill(int(path.parent.name), signal.SIGKILL)
        print("killed", flush=True)
        break
"""
    with load(gateway).running() as running:
        running.wait_for_answers(20)
        for pod in serving.ready_pods(serving.first):
            assert serving.execute(pod, "kserve-container", kill) == "killed\n"
            running.wait_for_answers(40)
    print(f"TorchServe workers killed: {running.summary()}")
    assert not running.failures, running.failures[:5]


@ours
def test_a_killed_front_answers_nothing_without_a_record_and_comes_back(serving: Product, gateway: str) -> None:
    victim, *_ = processes_of(serving.pods(serving.first), "pneumoserve.front")
    restarts = _restarts(serving)
    with load(gateway).running() as running:
        running.wait_for_answers(20)
        victim.kill()
        wait_until(lambda: _restarts(serving) == restarts + 1, 60, "the front was started again")
        wait_until(lambda: len(serving.ready_pods(serving.first)) == 2, 120, "two Ready pods")
        back = time.monotonic()
        running.wait_for_answers(20)
    print(f"a front killed: {running.summary()}")
    # What the dead front held is lost, and what reaches its pod before its readiness is asked again; no more.
    assert len(running.failures) < 60, running.failures[:5]
    assert not [call for call in running.failures if call.due > back]
    assert not {call.prediction_id for call in running.calls if call.answered} - serving.recorded()


def _restarts(serving: Product) -> int:
    return sum(
        status["restartCount"]
        for pod in serving.pods(serving.first)
        for status in pod["status"].get("containerStatuses", [])
        if status["name"] == "transformer-container"
    )


def test_without_its_store_nothing_is_answered_and_with_it_again(serving: Product, gateway: str) -> None:
    with load(gateway).running() as running:
        running.wait_for_answers(20)
        # Its pod is killed, and stays away until calls have felt it.
        serving.kubectl("scale", f"deployment/{NAME}-store", "--replicas=0")
        serving.kubectl("delete", "pod", "--selector=app.kubernetes.io/component=store", "--grace-period=0", "--force")
        wait_until(lambda: running.failures, 60, "a call that was refused")
        serving.kubectl("scale", f"deployment/{NAME}-store", "--replicas=1")
        wait_until(lambda: answers(gateway), 120, "an answer after the store is back")
        running.wait_for_answers(40, 120)
    print(f"the store killed: {running.summary()}")
    assert {call.outcome.split()[0] for call in running.failures} <= {"503", "UNAVAILABLE"}, running.failures[:5]
    assert not {call.prediction_id for call in running.calls if call.answered} - serving.recorded()


# --- upgraded


def test_the_chart_before_and_this_one_replace_each_other_and_lose_no_call(serving: Product, gateway: str) -> None:
    """Back to the last released chart, as `helm rollback` would, and from it up to this one.

    The trial store is one pod, and starts anew where its rights change; the journal takes its place meanwhile.
    """
    before = {item["metadata"]["name"] for item in serving.get("servingruntimes")["items"]}
    keys = _keys(serving)
    front = serving.values["front"]
    serving.cluster.apply(_claim(serving, "journal"))
    with load(gateway).running() as running:
        running.wait_for_answers(20)
        for chart, stated_text in ((CHART, 8), (CHART_BEFORE, 7), (CHART, 6)):
            pods = {pod["metadata"]["name"] for pod in serving.pods(serving.first)}
            # The images are the same; a version that changed nothing about its pods would not replace them.
            journal = {"journal": {"existingClaim": "journal"}}
            serving.helm("upgrade", chart, front={**front, "preStopSeconds": stated_text}, archive=journal, s3={})
            wait_until(partial(_replaced, serving, pods), 240, "pods by the other runtime alone")
            running.wait_for_answers(20)
    print(f"chart exchanged and upgraded: {running.summary()}")
    assert not running.failures, running.failures[:5]
    answered = {call.prediction_id for call in running.calls if call.answered}
    wait_until(lambda: answered <= serving.recorded(), 60, "all that was answered in the store")
    # The next upgrade takes the pods off it.
    del serving.values["archive"]
    serving.kubectl("delete", "persistentvolumeclaim/journal", "--wait=false")
    after = {item["metadata"]["name"] for item in serving.get("servingruntimes")["items"]}
    # The chart before makes the keys by Helm: it takes up those of the Job, and leaves them.
    assert _keys(serving) == keys
    # The second release is a person's own and still runs by the runtime it names.
    assert before <= after
    assert serving.ready_pods(serving.second)


def _claim(serving: Product, name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": serving.namespace},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}},
    }


def _replaced(serving: Product, before: set[str]) -> bool:
    """Whether two new pods are Ready and no old one is there, not even ending."""
    every = serving.get("pods", f"--selector=serving.kserve.io/inferenceservice=pneumonia-{serving.first}")["items"]
    names = {pod["metadata"]["name"] for pod in every}
    return not names & before and set(serving.ready_pods(serving.first)) == names and len(names) == 2


# --- on record


def test_an_earlier_release_is_redeployed_and_a_replay_proves_that_it_answers_as_it_did(
    serving: Product, gateway: str
) -> None:
    # The second one is a person's until now; the chart takes it over.
    serving.kubectl("delete", f"inferenceservice/pneumonia-{serving.second}", "--wait=true")
    for now, other in ((serving.second, serving.first), (serving.first, serving.second)):
        with load(gateway).running() as running:
            running.wait_for_answers(10)
            serving.helm("upgrade", release={"id": other, "standby": [now]})
            serving.wait_ready(now)
            serving.helm("upgrade", release={"id": now, "standby": [other]})
            wait_until(lambda now=now: _release(gateway) == now, 60, f"{now} answers")
            running.wait_for_answers(20)
        assert not running.failures, running.failures[:5]
    stated_text = serving.job("replay")
    print(stated_text)
    assert "0 mismatches" in stated_text
    assert serving.first in stated_text


def _release(gateway: str) -> str:
    """The release that answers."""
    response = httpx.post(f"http://{gateway}/v1/models/pneumonia:predict", content=FILMS[0], timeout=30)
    return response.headers["pneumoserve-release"]


def test_the_archive_is_sealed_and_verified_by_its_jobs(serving: Product) -> None:
    print(serving.job("seal"))
    print(serving.job("verify"))
    with serving.store() as store:
        (place, *_) = [place for place in list_segments(store) if place.release == serving.first]
        segment = store.get(place.key)
        store.put(place.key, segment.replace(b'"writer"', b'"Writer"', 1), "application/x-ndjson")
        assert place.key in serving.job("verify", fails=True)
        store.put(place.key, segment, "application/x-ndjson")


# --- bad input


def test_releases_that_must_not_run_say_why_and_leave_the_others_alone(serving: Product, gateway: str) -> None:
    unsigned, altered = _bad_releases(serving)
    serving.push(unsigned, altered)
    whole, misplaced = serving.folder / "releases" / serving.first, "a" * 12
    with serving.store("setup") as store:
        # Signed by the approver, in the place of another one, where `release push` does not put it.
        for path in (path for path in whole.rglob("*") if path.is_file()):
            key = f"releases/{misplaced}/{path.relative_to(whole).as_posix()}"
            store.put(key, path.read_bytes(), "application/octet-stream")
        store.put(f"releases/{altered.name}/MODEL_CARD.md", b"another card", "text/markdown")
    wanted = {
        unsigned.name: f"is not signed; sign it with a trusted key (`pneumoserve release sign {unsigned.name} --key",
        altered.name: "the file MODEL_CARD.md was altered; fetch the release again.",
        misplaced: f"Release {misplaced} was asked for, and what is there is {serving.first}",
        "0123456789ab": "0123456789ab",
    }
    good = serving.get("inferenceservice", f"pneumonia-{serving.second}")
    for release in wanted:
        _apply_copy(serving, good, f"pneumonia-{release}", f"s3://pneumoserve/releases/{release}")
    serving.cluster.apply(*_wrong_keys(serving))
    _apply_copy(
        serving, good, "pneumonia-locked", f"s3://pneumoserve/releases/{serving.first}", serviceAccountName="wrong-keys"
    )
    wanted["locked"] = "S3 error [403]: Forbidden"
    for release, sentence in wanted.items():
        stated_text = wait_until(
            lambda release=release, sentence=sentence: _told(serving, release, sentence), 120, f"{release}: {sentence}"
        )
        print(f"{release}: {stated_text}")
        serving.kubectl("delete", f"inferenceservice/pneumonia-{release}", "--wait=false")
    assert answers(gateway)


def _bad_releases(serving: Product) -> tuple[Path, Path]:
    """One that nobody signed, and one to be altered in the store."""
    folders = []
    for name in ("unsigned", "altered"):
        run = Path(shutil.copytree(serving.folder / "other", serving.folder / name))
        facts = json.loads((run / "run.json").read_text())
        facts["policy"]["why"] = f"To be refused: {name}."
        (run / "run.json").write_text(json.dumps(facts))
        folders.append(serving.package(run, *(("--unsigned",) if name == "unsigned" else ())))
    return folders[0], folders[1]


def _wrong_keys(serving: Product) -> list[dict[str, Any]]:
    annotations = serving.get("secret", f"{NAME}-releases")["metadata"]["annotations"]
    metadata = {"name": "wrong-keys", "namespace": serving.namespace}
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                **metadata,
                "annotations": {key: value for key, value in annotations.items() if key.startswith("serving.")},
            },
            "stringData": {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing"},
        },
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "secrets": [{"name": "wrong-keys"}]},
    ]


def _apply_copy(serving: Product, good: dict[str, Any], name: str, uri: str, **predictor: Any) -> None:
    copy = json.loads(json.dumps(good))
    copy["metadata"] = {
        "name": name,
        "namespace": serving.namespace,
        "labels": good["metadata"]["labels"] | {"pneumoserve_release": uri.rpartition("/")[2]},
        "annotations": {k: v for k, v in good["metadata"]["annotations"].items() if "serving.kserve.io" in k},
    }
    copy.pop("status", None)
    copy["spec"]["predictor"] |= predictor
    copy["spec"]["predictor"]["model"]["storageUri"] = uri
    serving.cluster.apply(copy)


def _told(serving: Product, release: str, sentence: str) -> str | None:
    """The termination message that holds a sentence, None where there is none yet."""
    for pod in serving.pods(release):
        status = pod["status"]
        for container in status.get("containerStatuses", []) + status.get("initContainerStatuses", []):
            for state in (container["state"], container.get("lastState", {})):
                message: str = state.get("terminated", {}).get("message", "")
                if sentence in message:
                    return message.strip().splitlines()[-1]
    return None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"replicas": "many"}, "replicas"),
        ({"replica": 3}, "replica"),
        ({"trust": {"keys": {}}}, "Nobody's signature counts"),
        ({"route": {"gateway": {"name": "nowhere"}}}, "There is no Gateway nowhere in namespace kserve"),
        ({"release": {"id": "ba9876543210"}}, "release.standby"),
    ],
)
def test_a_wrong_value_changes_nothing(serving: Product, gateway: str, changes: dict[str, Any], sentence: str) -> None:
    before = _generations(serving)
    done = serving.try_helm("upgrade", {**serving.values, **changes})
    assert done.returncode != 0
    assert sentence in done.stderr, done.stderr
    assert _generations(serving) == before
    assert answers(gateway)


def _generations(serving: Product) -> dict[str, int]:
    """How often each of the chart's releases changed; a copy that a test before deleted may still be going."""
    return {
        release: serving.get("inferenceservice", f"pneumonia-{release}")["metadata"]["generation"]
        for release in (serving.first, serving.second)
    }


# --- removed


def test_uninstall_removes_every_object_but_what_holds_data(serving: Product) -> None:
    serving.kubectl("delete", "inferenceservices", "--all")
    done = serving.cluster.helm("uninstall", NAME, f"--namespace={serving.namespace}")
    stated_text = done.stdout + done.stderr
    kept = {"PersistentVolumeClaim/pneumoserve-store"} | {
        f"Secret/pneumoserve-{name}"
        for name in (
            "archive", "archive-references", "archive-sealer", "archive-signing", "releases", "rollout", "seal", "setup"
        )
    }  # fmt: skip
    # The archive's keys were never Helm's, so it says nothing of them.
    for name in {name for name in kept if "archive-" not in name} - {"Secret/pneumoserve-releases"}:
        kind, _, named = name.partition("/")
        assert f"[{kind}] {named}" in stated_text
    kinds = "inferenceservices,servingruntimes,deployments,pods,services,httproutes,networkpolicies,configmaps,\
poddisruptionbudgets,serviceaccounts,jobs,cronjobs,secrets,persistentvolumeclaims,horizontalpodautoscalers"
    wait_until(lambda: _left(serving, kinds) == kept, 90, "nothing is left but claim, keys and credentials")


def _left(serving: Product, kinds: str) -> set[str]:
    """Objects of the install that are there; a cluster puts some of its own into every namespace."""
    not_ours = {
        "ConfigMap/kube-root-ca.crt",
        "ServiceAccount/default",
        "ServiceAccount/wrong-keys",
        "Secret/wrong-keys",
    }
    items = serving.get(kinds)["items"]
    return {f"{item['kind']}/{item['metadata']['name']}" for item in items} - not_ours
