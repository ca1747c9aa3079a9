"""What is asked of an API server, and what its answers mean; the server is a fake on a loopback port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pneumoserve.rollout.cluster import MANAGER, OWNER, STABLE, ClusterError, ConflictError, UnreachableError
from pneumoserve.rollout.standard import StandardCluster
from tests.support.fake_api import ApiServer, served
from tests.unit.rollout.test_objects import NEW, OLD, route, service

NAMESPACE = "pneumo"
ROUTE = f"/apis/gateway.networking.k8s.io/v1/namespaces/{NAMESPACE}/httproutes/pneumoserve"
SERVICES = f"/apis/serving.kserve.io/v1beta1/namespaces/{NAMESPACE}/inferenceservices"
DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/pneumonia-{OLD}-predictor"
STATE = f"/api/v1/namespaces/{NAMESPACE}/configmaps"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with served(ApiServer(), tmp_path, monkeypatch) as api:
        yield api


@pytest.fixture
def cluster(server: ApiServer) -> Iterator[StandardCluster]:
    made = StandardCluster(NAMESPACE, "pneumoserve")
    yield made
    made.close()


def test_weights_are_one_patch_of_the_version_that_was_seen(server: ApiServer, cluster: StandardCluster) -> None:
    server.objects[ROUTE] = route({OLD: 100}, resourceVersion="7")
    seen = cluster.route()
    assert seen is not None
    assert (seen.weights, seen.owner, seen.stable, seen.accepted) == ({OLD: 100}, "", "", False)
    cluster.set_weights({OLD: 90, NEW: 10}, "r", OLD, seen.version)
    ((path, kind, body),) = server.of("PATCH")
    assert path == f"{ROUTE}?fieldManager={MANAGER}&force=true"
    assert kind == "application/apply-patch+yaml"
    assert body["metadata"]["resourceVersion"] == "7"
    assert body["metadata"]["annotations"] == {OWNER: "r", STABLE: OLD}
    assert [[each["weight"] for each in rule["backendRefs"]] for rule in body["spec"]["rules"]] == [[90, 10]] * 2
    server.objects[ROUTE] = route({OLD: 100}, resourceVersion="9")
    with pytest.raises(ConflictError):
        cluster.set_weights({OLD: 90, NEW: 10}, "r", OLD, seen.version)


def test_the_state_is_made_once_and_then_replaced_by_its_version(server: ApiServer, cluster: StandardCluster) -> None:
    assert cluster.load() is None
    cluster.save("{}", None)
    ((path, _, made),) = server.of("POST")
    assert path == STATE
    assert "resourceVersion" not in made["metadata"]
    server.objects[f"{STATE}/pneumoserve-rollout"] = {**made, "metadata": {"resourceVersion": "5"}}
    stored = cluster.load()
    assert stored is not None
    assert (stored.text, stored.version) == ("{}", "5")
    cluster.save("{}", stored.version)
    ((path, _, replaced),) = server.of("PUT")
    assert path == f"{STATE}/pneumoserve-rollout"
    assert replaced["metadata"]["resourceVersion"] == "5"
    server.status[STATE] = 409
    with pytest.raises(ConflictError):
        cluster.save("{}", None)


def test_a_candidate_is_made_like_the_stable_release(server: ApiServer, cluster: StandardCluster) -> None:
    server.objects[f"{SERVICES}/pneumonia-{OLD}"] = service()
    metadata = {"name": f"pneumonia-{OLD}", "namespace": NAMESPACE}
    spec = {"scaleTargetRef": {"name": f"pneumonia-{OLD}-predictor"}, "minReplicas": 2, "maxReplicas": 8}
    scaler = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata, "spec": spec}
    autoscalers = f"/apis/autoscaling/v2/namespaces/{NAMESPACE}/horizontalpodautoscalers"
    server.objects[f"{autoscalers}/pneumonia-{OLD}"] = scaler
    cluster.apply_candidate(OLD, NEW, 1)
    made = {path.partition("?")[0]: body["spec"] for path, _, body in server.of("PATCH")}
    assert set(made) == {f"{SERVICES}/pneumonia-{NEW}", f"{autoscalers}/pneumonia-{NEW}"}
    assert made[f"{SERVICES}/pneumonia-{NEW}"]["predictor"]["minReplicas"] == 1
    wanted = {"scaleTargetRef": {"name": f"pneumonia-{NEW}-predictor"}, "minReplicas": 1, "maxReplicas": 8}
    assert made[f"{autoscalers}/pneumonia-{NEW}"] == wanted
    cluster.remove(NEW)
    removed = {path for path, _, _ in server.of("DELETE")}
    assert {f"{SERVICES}/pneumonia-{NEW}", f"{autoscalers}/pneumonia-{NEW}"} <= removed


def test_what_was_owned_is_given_up_and_the_fields_stay(server: ApiServer, cluster: StandardCluster) -> None:
    fields = [{"manager": MANAGER, "operation": "Apply"}, {"manager": "helm", "operation": "Update"}]
    server.objects[ROUTE] = route({NEW: 100}, resourceVersion="7", managedFields=fields)
    alone = service()
    alone["metadata"]["managedFields"] = fields[:1]
    server.objects[f"{SERVICES}/pneumonia-{OLD}"] = alone
    cluster.release_ownership(OLD)
    patches = {path: body for path, _, body in server.of("PATCH")}
    assert patches[ROUTE][0]["value"] == fields[1:]
    # An empty list would be filled by the server again.
    assert patches[f"{SERVICES}/pneumonia-{OLD}"][0]["value"] == [{}]
    assert {kind for _, kind, _ in server.of("PATCH")} == {"application/json-patch+json"}


@pytest.mark.parametrize(
    ("conditions", "deployment", "wanted"),
    [
        (
            [{"type": "Ready", "status": "True"}],
            {"spec": {"replicas": 3}, "status": {"readyReplicas": 2}},
            (True, 2, 3),
        ),
        ([{"type": "Ready", "status": "False"}], {"spec": {"replicas": 1}, "status": {}}, (False, 0, 1)),
        ([], None, (False, 0, 0)),
    ],
)
def test_a_release_is_ready_by_kserve_and_its_pods_by_the_deployment(
    server: ApiServer, cluster: StandardCluster, conditions: list[Any], deployment: Any, wanted: tuple[bool, int, int]
) -> None:
    assert cluster.release(OLD) is None
    server.objects[f"{SERVICES}/pneumonia-{OLD}"] = {**service(), "status": {"conditions": conditions}}
    if deployment is not None:
        server.objects[DEPLOYMENT] = deployment
    running = cluster.release(OLD)
    assert running is not None
    assert (running.ready, running.pods, running.wanted) == wanted


def test_a_pod_that_was_refused_says_why(server: ApiServer, cluster: StandardCluster) -> None:
    server.objects[f"{SERVICES}/pneumonia-{OLD}"] = service()
    ended = {"terminated": {"exitCode": 1, "message": "log\nThe release is not signed; sign it.\n"}}
    statuses = [{"state": {"waiting": {"message": "back-off"}}, "lastState": ended}]
    server.objects[f"/api/v1/namespaces/{NAMESPACE}/pods"] = {"items": [{"status": {"containerStatuses": statuses}}]}
    running = cluster.release(OLD)
    assert running is not None
    assert running.why == "The release is not signed; sign it."


@pytest.mark.parametrize(
    ("status", "kind"),
    [(409, ConflictError), (429, UnreachableError), (500, UnreachableError), (503, UnreachableError),
     (403, ClusterError), (422, ClusterError)],
)  # fmt: skip
def test_what_an_answer_means(server: ApiServer, cluster: StandardCluster, status: int, kind: type[Exception]) -> None:
    server.status[ROUTE] = status
    with pytest.raises(ClusterError) as refused:
        cluster.route()
    assert type(refused.value) is kind
    assert "so it is" in str(refused.value)


def test_a_server_that_is_away_is_unreachable(cluster: StandardCluster) -> None:
    cluster._client.configuration.host = "http://127.0.0.1:1"
    with pytest.raises(UnreachableError):
        cluster.load()


def test_a_candidate_is_called_as_callers_call(server: ApiServer, cluster: StandardCluster) -> None:
    assert cluster.call(OLD, b"film") == 200
    ((path, kind, body),) = server.of("POST")
    assert path.endswith(f"/services/http:pneumonia-{OLD}-predictor:80/proxy/v1/models/pneumonia:predict")
    assert (kind, body) == ("image/png", b"film")
    server.status[path] = 503
    assert cluster.call(OLD, b"film") == 503


def test_without_a_kubeconfig_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ClusterError, match="set KUBECONFIG"):
        StandardCluster(NAMESPACE, "pneumoserve")


def test_inside_the_cluster_a_candidate_is_called_without_the_api_server(
    server: ApiServer, cluster: StandardCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = cluster._client.configuration.host.removeprefix("http://")
    monkeypatch.setattr(cluster, "_inside", True)
    monkeypatch.setattr(cluster, "_addresses", lambda release: (here, ""))
    server.objects[f"{SERVICES}/pneumonia-{OLD}"] = service()
    assert cluster.call(OLD, b"film") == 200
    assert server.of("POST") == [("/v1/models/pneumonia:predict", "image/png", b"film")]
    server.status["/v1/models/pneumonia:predict"] = 503
    assert cluster.call(OLD, b"film") == 503
    monkeypatch.setattr(cluster, "_addresses", lambda release: ("127.0.0.1:1", ""))
    assert cluster.call(OLD, b"film") == 0


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (403, "The cluster refuses us (so it is); ask for that right, or use another account."),
        (404, "server_side_apply of kind InferenceService gave 404: so it is; install what it names, then go on."),
    ],
)
def test_a_refusal_says_what_to_do(server: ApiServer, cluster: StandardCluster, status: int, sentence: str) -> None:
    server.objects[f"{SERVICES}/pneumonia-{OLD}"] = service()
    server.status[f"{SERVICES}/pneumonia-{NEW}"] = status
    with pytest.raises(ClusterError) as refused:
        cluster.apply_candidate(OLD, NEW, 1)
    assert str(refused.value) == sentence
