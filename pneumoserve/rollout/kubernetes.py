"""A cluster by its API server: in a pod by the pod's account, elsewhere by the kubeconfig."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import urllib3
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config
from kubernetes.dynamic import DynamicClient, Resource

from pneumoserve.front.identity import GATEWAY_HEADER
from pneumoserve.rollout.cluster import (
    MANAGER,
    Cluster,
    ClusterError,
    ConflictError,
    LeaseView,
    Object,
    RunningRelease,
    StoredText,
    UnreachableError,
    subject_header,
)

_PREDICT: Final = "/v1/models/pneumonia:predict"
_KEY: Final = "rollout.json"
_TIMEOUT: Final = (3.05, 10.0)
_FILM_TIMEOUT: Final = 30.0
_CHART: Final = "pneumoserve"
# What the front takes a caller's name for true by, where the chart's gateway has such a secret.
_GATEWAY_SECRET: Final = "PNEUMOSERVE_GATEWAY_SECRET"  # noqa: S105 - the variable's name
_EVENT_MESSAGE: Final = 1000
# Seen from here a server that says so is as good as away: a webhook that is down, an election, too many requests.
_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})


class Kind(NamedTuple):
    """A kind of objects by its API version. All that a rollout meets are namespaced, with a regular plural."""

    api_version: str
    name: str

    def resource(self, api: DynamicClient) -> Resource:
        """Where the API server has it: known, so that nothing needs to be discovered."""
        group, _, version = self.api_version.rpartition("/")
        return Resource(
            prefix="apis" if group else "api",
            group=group,
            api_version=version,
            kind=self.name,
            name=f"{self.name.lower()}s",
            namespaced=True,
            client=api,
        )


CONFIG_MAP: Final = Kind("v1", "ConfigMap")
EVENT: Final = Kind("v1", "Event")
POD: Final = Kind("v1", "Pod")
DEPLOYMENT: Final = Kind("apps/v1", "Deployment")
LEASE: Final = Kind("coordination.k8s.io/v1", "Lease")
INFERENCE_SERVICE: Final = Kind("serving.kserve.io/v1beta1", "InferenceService")
SERVING_RUNTIME: Final = Kind("serving.kserve.io/v1alpha1", "ServingRuntime")


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
        # Discovery would ask for every group, and keep its cache in a file of a known name that all users may write.
        self._api = DynamicClient(self._client, discoverer=lambda *_: None)

    def close(self) -> None:
        self._client.close()

    # --- the state

    def load(self) -> StoredText | None:
        found = self._get(CONFIG_MAP, self._record)
        if found is None or _KEY not in found.get("data", {}):
            return None
        return StoredText(found["data"][_KEY], found["metadata"]["resourceVersion"])

    def save(self, text: str, version: str | None) -> None:
        self._put(CONFIG_MAP, {"data": {_KEY: text}}, version)

    def lease(self) -> LeaseView | None:
        found = self._get(LEASE, self._record)
        if found is None:
            return None
        spec = found.get("spec", {})
        return LeaseView(
            spec.get("holderIdentity") or "", spec.get("renewTime") or "", found["metadata"]["resourceVersion"]
        )

    def take_lease(self, holder: str, seconds: int, version: str | None) -> str:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        spec = {"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": now}
        written = self._put(LEASE, {"spec": spec}, version)
        return str(written["metadata"]["resourceVersion"])

    @property
    def _record(self) -> str:
        """The name of the objects in which a rollout is kept."""
        return f"{self._name}-rollout"

    # --- releases

    @abstractmethod
    def render_step(self, stable: str, candidate: str, pods: int, weights: Mapping[str, int]) -> list[Object]:
        """The objects of a step as a person would apply them; nothing is changed."""

    def call(self, release: str, film: bytes) -> int:
        """Inside the cluster straight to what answers for the release, elsewhere through the API server."""
        host, proxy = self._addresses(release)
        if not host:
            return 0
        headers = {"Content-Type": "image/png"}
        if header := self._subject_header(release):
            headers[header] = MANAGER
            if secret := os.environ.get(_GATEWAY_SECRET):
                headers[GATEWAY_HEADER] = secret
        try:
            if self._inside:
                url = f"http://{host}{_PREDICT}"
                sent = urllib3.request("POST", url, body=film, headers=headers, timeout=_FILM_TIMEOUT, retries=False)
            else:
                path = f"/api/v1/namespaces/{self._namespace}/{proxy}/proxy{_PREDICT}"
                sent = self._api.request(
                    "post",
                    path,
                    body=film,
                    header_params=headers,
                    content_type=headers["Content-Type"],
                    serialize=False,
                    _request_timeout=_FILM_TIMEOUT,
                )
        except kubernetes_client.ApiException as error:
            return error.status or 0
        except urllib3.exceptions.HTTPError:
            return 0
        return int(sent.status)

    @abstractmethod
    def _addresses(self, release: str) -> tuple[str, str]:
        """Host and port inside the cluster that lead to a release alone, and what the API server's proxy calls it.

        Both are empty where nothing answers for the release.
        """

    @abstractmethod
    def _service(self, release: str) -> str:
        """The name of the InferenceService that runs a release."""

    def _subject_header(self, release: str) -> str:
        """The header in which a gateway names a release's callers; empty where callers do not sign in."""
        service = self._get(INFERENCE_SERVICE, self._service(release)) or {}
        runtime = service.get("spec", {}).get("predictor", {}).get("model", {}).get("runtime", "")
        found = self._get(SERVING_RUNTIME, runtime) if runtime else None
        return subject_header(found or {})

    def _pods(self, label: str) -> list[Object]:
        """Pods with a label, as `name=value`."""
        found = self._ask(self._api.get, POD, missing_ok=True, label_selector=label) or {}
        items: list[Object] = found.get("items", [])
        return items

    def _running(self, release: str, conditions: list[Object], deployment: str, label: str) -> RunningRelease:
        """A release by the condition `Ready` of what runs it, its Deployment, and its pods' label."""
        ready = next((each for each in conditions if each["type"] == "Ready"), {})
        found = self._get(DEPLOYMENT, deployment) or {}
        is_ready = ready.get("status") == "True"
        return RunningRelease(
            release=release,
            ready=is_ready,
            pods=found.get("status", {}).get("readyReplicas", 0),
            wanted=found.get("spec", {}).get("replicas", 0),
            why="" if is_ready else _reason_not_ready(self._pods(label)) or ready.get("message", ""),
        )

    def _disown(self, *objects: tuple[Kind, str]) -> None:
        """Give up what a rollout owns of objects, by kind and name; their fields stay."""
        for kind, name in objects:
            found = self._get(kind, name)
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
            self._ask(self._api.patch, kind, name=name, body=patch, content_type="application/json-patch+json")

    def emit_event(self, release: str, reason: str, sentence: str, bad: bool) -> None:
        name = self._service(release)
        found = self._get(INFERENCE_SERVICE, name) or {}
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        item = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.name,
            "metadata": {"generateName": f"{name}.", "namespace": self._namespace},
            "involvedObject": {
                "apiVersion": INFERENCE_SERVICE.api_version,
                "kind": INFERENCE_SERVICE.name,
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
        self._ask(self._api.create, EVENT, body=item)

    # --- the API server

    def _get(self, kind: Kind, name: str) -> Object | None:
        return self._ask(self._api.get, kind, name=name, missing_ok=True)

    def _put(self, kind: Kind, content: Object, version: str | None) -> Object:
        """Make an object of the rollout, or replace this version of it; it says that it is part of this install."""
        labels = {"app.kubernetes.io/part-of": _CHART, "app.kubernetes.io/component": "rollout"}
        metadata: Object = {"name": self._record, "namespace": self._namespace, "labels": labels}
        if version is not None:
            metadata["resourceVersion"] = version
        item = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, **content}
        return self._ask(self._api.create if version is None else self._api.replace, kind, body=item) or {}

    def _apply(self, item: Object) -> None:
        """Own what an object says, whoever did before."""
        kind = Kind(item["apiVersion"], item["kind"])
        self._ask(self._api.server_side_apply, kind, body=item, field_manager=MANAGER, force_conflicts=True)

    def _delete(self, kind: Kind, name: str) -> None:
        self._ask(self._api.delete, kind, name=name, missing_ok=True)

    def _ask(self, verb: Callable[..., Any], kind: Kind, *, missing_ok: bool = False, **request: Any) -> Object | None:
        """What the API server answers to a method of the dynamic client; None where there is no such object.

        Raises:
            ConflictError, UnreachableError, ClusterError: by the status of the answer.
        """
        try:
            answer: Object = verb(
                kind.resource(self._api),
                namespace=self._namespace,
                serializer=lambda _, parsed: parsed,
                _request_timeout=_TIMEOUT,
                **request,
            )
        except kubernetes_client.ApiException as error:
            if error.status == 404 and missing_ok:
                return None
            raise _meaning(error, f"{verb.__name__} of kind {kind.name}") from None
        except urllib3.exceptions.HTTPError as error:
            raise UnreachableError(type(error).__name__) from None
        return answer


def _meaning(error: kubernetes_client.ApiException, what: str) -> ClusterError:
    """What a refusal of the API server means for a rollout."""
    try:
        message = str(json.loads(error.body or "").get("message", ""))
    except ValueError:
        message = ""
    if error.status == 409:
        return ConflictError(message)
    if not error.status or error.status in _PASSING:
        return UnreachableError(message or f"status {error.status}")
    if error.status in {401, 403}:
        return ClusterError(f"The cluster refuses us ({message or what}); ask for that right, or use another account.")
    return ClusterError(f"{what} gave {error.status}: {message}; install what it names, then go on.")


def _reason_not_ready(pods: list[Object]) -> str:
    """What the newest container that ended, or cannot start, said."""
    for pod in pods:
        status = pod.get("status", {})
        for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
            if message := _container_message(container):
                return message
    return ""


def _container_message(container: Object) -> str:
    """What a container that does not run says of it."""
    for key in ("state", "lastState"):
        ended = container.get(key, {}).get("terminated", {})
        if ended.get("exitCode") and ended.get("message"):
            return str(ended["message"]).strip().splitlines()[-1]
    waiting = container.get("state", {}).get("waiting", {})
    return str(waiting.get("message", "")).strip()
