"""A cluster by its API server: in a pod by the pod's account, elsewhere by the kubeconfig."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import urllib3.exceptions
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config

from pneumoserve.rollout.cluster import (
    MANAGER,
    Cluster,
    ClusterError,
    ConflictError,
    LeaseView,
    Object,
    Running,
    Stored,
    UnreachableError,
    subject_header,
)

_PREDICT: Final = "/v1/models/pneumonia:predict"
_KEY: Final = "rollout.json"
_TIMEOUT: Final = (3.05, 10.0)
_FILM_TIMEOUT: Final = 30.0
_CHART: Final = "pneumoserve"
_EVENT_MESSAGE: Final = 1000
# Seen from here a server that says so is as good as away: a webhook that is down, an election, too many requests.
_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})


def fullname(helm_release: str) -> str:
    """What the chart calls its objects, by the name it is installed under (`pneumoserve.fullname` of the chart)."""
    if _CHART in helm_release:
        return helm_release[:40].removesuffix("-")
    return f"{helm_release[:28].removesuffix('-')}-{_CHART}"


class Install(Cluster):
    """What is the same of an install of the chart in either mode."""

    def __init__(self, namespace: str, helm_release: str) -> None:
        """Find the API server.

        Raises:
            ClusterError: there is neither a pod's account nor a kubeconfig.
        """
        self._namespace = namespace
        self._name = fullname(helm_release)
        configuration = kubernetes_client.Configuration()
        self._inside = bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
        try:
            if self._inside:
                kubernetes_config.load_incluster_config(client_configuration=configuration)
            else:
                # The library reads the variable only when it is imported.
                kubeconfig = os.environ.get("KUBECONFIG")
                kubernetes_config.load_kube_config(kubeconfig, client_configuration=configuration)
        except kubernetes_config.ConfigException as error:
            raise ClusterError(f"No cluster is known here ({error}); set KUBECONFIG.") from None
        # Who asks again, and when, is the rollout's to say.
        configuration.retries = False
        self._client = kubernetes_client.ApiClient(configuration)

    def close(self) -> None:
        self._client.close()

    # --- the state

    def load(self) -> Stored | None:
        found = self._get(self._at("api/v1", "configmaps", f"{self._name}-rollout"))
        if found is None or _KEY not in found.get("data", {}):
            return None
        return Stored(found["data"][_KEY], found["metadata"]["resourceVersion"])

    def save(self, text: str, version: str | None) -> None:
        item: Object = {"apiVersion": "v1", "kind": "ConfigMap", "data": {_KEY: text}}
        self._put(self._at("api/v1", "configmaps"), f"{self._name}-rollout", item, version)

    def lease(self) -> LeaseView | None:
        found = self._get(self._at("apis/coordination.k8s.io/v1", "leases", f"{self._name}-rollout"))
        if found is None:
            return None
        spec = found.get("spec", {})
        return LeaseView(
            spec.get("holderIdentity") or "", spec.get("renewTime") or "", found["metadata"]["resourceVersion"]
        )

    def take_lease(self, holder: str, seconds: int, version: str | None) -> str:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        item = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": now},
        }
        written = self._put(self._at("apis/coordination.k8s.io/v1", "leases"), f"{self._name}-rollout", item, version)
        return str(written["metadata"]["resourceVersion"])

    # --- releases

    @abstractmethod
    def rendered(self, stable: str, candidate: str, pods: int, weights: Mapping[str, int]) -> list[Object]:
        """The objects of a step as a person would apply them; nothing is changed."""

    def call(self, release: str, film: bytes) -> int:
        """Inside the cluster straight to what answers for the release, elsewhere through the API server."""
        host, proxy = self._answering(release)
        if not host:
            return 0
        headers = {"Content-Type": "image/png"}
        if header := self._subject_header(release):
            headers[header] = MANAGER
        url = f"http://{host}{_PREDICT}"
        if not self._inside:
            path = f"{proxy}/proxy{_PREDICT}"
            url = f"{self._client.configuration.host}{path}"
            self._client.update_params_for_auth(headers, [], ["BearerToken"], path, "POST", None)
        try:
            response = self._client.call_api("POST", url, headers, film, _request_timeout=_FILM_TIMEOUT)
            response.read()
        except (urllib3.exceptions.HTTPError, kubernetes_client.ApiException):
            return 0
        return int(response.status)

    @abstractmethod
    def _answering(self, release: str) -> tuple[str, str]:
        """Host and port inside the cluster that lead to a release alone, and what the API server's proxy calls it."""

    @abstractmethod
    def _service(self, release: str) -> str:
        """The path of the InferenceService that runs a release."""

    def _subject_header(self, release: str) -> str:
        """The header in which a gateway names a release's callers; empty where callers do not sign in."""
        service = self._get(self._service(release)) or {}
        runtime = service.get("spec", {}).get("predictor", {}).get("model", {}).get("runtime", "")
        found = self._get(self._at("apis/serving.kserve.io/v1alpha1", "servingruntimes", runtime)) or {}
        return subject_header(found)

    def _pods(self, label: str) -> list[Object]:
        """Pods with a label, as `name=value`."""
        items: list[Object] = (self._get(self._at("api/v1", "pods") + f"?labelSelector={label}") or {}).get("items", [])
        return items

    def _running(self, release: str, conditions: list[Object], deployment: str, label: str) -> Running:
        """A release by the condition `Ready` of what runs it, its Deployment, and its pods' label."""
        ready = next((each for each in conditions if each["type"] == "Ready"), {})
        found = self._get(self._at("apis/apps/v1", "deployments", deployment)) or {}
        is_ready = ready.get("status") == "True"
        return Running(
            release=release,
            ready=is_ready,
            pods=found.get("status", {}).get("readyReplicas", 0),
            wanted=found.get("spec", {}).get("replicas", 0),
            why="" if is_ready else _why(self._pods(label)) or ready.get("message", ""),
        )

    def _disown(self, *paths: str) -> None:
        """Give up what a rollout owns of these objects; their fields stay."""
        for path in paths:
            found = self._get(path)
            if found is None:
                continue
            managers = found["metadata"].get("managedFields", [])
            others = [each for each in managers if each.get("manager") != MANAGER]
            if len(others) == len(managers):
                continue
            patch = [
                {"op": "replace", "path": "/metadata/managedFields", "value": others or [{}]},
                {"op": "replace", "path": "/metadata/resourceVersion", "value": found["metadata"]["resourceVersion"]},
            ]
            self._request("PATCH", path, patch, "application/json-patch+json")

    def event(self, release: str, reason: str, sentence: str, bad: bool) -> None:
        service = self._service(release)
        name = service.rpartition("/")[2]
        found = self._get(service) or {}
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        item = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{name}.", "namespace": self._namespace},
            "involvedObject": {
                "apiVersion": "serving.kserve.io/v1beta1",
                "kind": "InferenceService",
                "name": name,
                "namespace": self._namespace,
                "uid": found.get("metadata", {}).get("uid", ""),
            },
            "reason": "Rollout" + "".join(word.capitalize() for word in reason.split("_")),
            "message": sentence[:_EVENT_MESSAGE],
            "type": "Warning" if bad else "Normal",
            "source": {"component": MANAGER},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        self._request("POST", self._at("api/v1", "events"), item)

    # --- the API server

    def _at(self, group: str, plural: str, name: str = "") -> str:
        return f"/{group}/namespaces/{self._namespace}/{plural}" + (f"/{name}" if name else "")

    def _get(self, path: str) -> Object | None:
        return self._request("GET", path, missing_ok=True)

    def _put(self, path: str, name: str, item: Object, version: str | None) -> Object:
        """Make an object, or replace this version of it; it says that it is part of this install."""
        labels = {"app.kubernetes.io/part-of": _CHART, "app.kubernetes.io/component": "rollout"}
        metadata: Object = {"name": name, "namespace": self._namespace, "labels": labels}
        if version is None:
            written = self._request("POST", path, {**item, "metadata": metadata})
        else:
            metadata["resourceVersion"] = version
            written = self._request("PUT", f"{path}/{name}", {**item, "metadata": metadata})
        return written or {}

    def _apply(self, path: str, item: Object) -> None:
        query = f"?fieldManager={MANAGER}&force=true"
        self._request("PATCH", path + query, item, "application/apply-patch+yaml")

    def _request(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
        *,
        missing_ok: bool = False,
    ) -> Object | None:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        try:
            self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            response = self._client.call_api(
                method, self._client.configuration.host + path, headers, body, _request_timeout=_TIMEOUT
            )
            response.read()
        except (urllib3.exceptions.HTTPError, kubernetes_client.ApiException) as error:
            raise UnreachableError(type(error).__name__) from None
        return _answer(response.status, response.data, missing_ok, f"{method} {path.partition('?')[0]}")


def _answer(status: int, data: bytes, missing_ok: bool, what: str) -> Object | None:
    """The object that the server sent.

    Raises:
        ConflictError, UnreachableError, ClusterError: by its status.
    """
    if status < 300:
        answer: Object = json.loads(data) if data else {}
        return answer
    if status == 404 and missing_ok:
        return None
    try:
        told = str(json.loads(data).get("message", ""))
    except ValueError:
        told = ""
    if status == 409:
        raise ConflictError(told)
    if status in _PASSING:
        raise UnreachableError(told or f"status {status}")
    if status in {401, 403}:
        raise ClusterError(f"The cluster refuses us ({told or what}); ask for that right, or use another account.")
    raise ClusterError(f"{what} gave {status}: {told}; install what it names, then go on.")


def _why(pods: list[Object]) -> str:
    """What the newest container that ended, or cannot start, said."""
    for pod in pods:
        status = pod.get("status", {})
        for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
            if told := _told(container):
                return told
    return ""


def _told(container: Object) -> str:
    """What a container that does not run says of it."""
    for key in ("state", "lastState"):
        ended = container.get(key, {}).get("terminated", {})
        if ended.get("exitCode") and ended.get("message"):
            return str(ended["message"]).strip().splitlines()[-1]
    waiting = container.get("state", {}).get("waiting", {})
    return str(waiting.get("message", "")).strip()
