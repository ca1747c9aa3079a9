"""A stand-in for a cluster's API: discovery and reads, from objects in memory, which is all that a template asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.support.apiserver import listening

Object = dict[str, Any]
# Kinds by API version: plural, and whether objects of it are in a namespace.
CORE: Final[dict[str, dict[str, tuple[str, bool]]]] = {
    "v1": {
        "Namespace": ("namespaces", False),
        "Node": ("nodes", False),
        "Secret": ("secrets", True),
        "ConfigMap": ("configmaps", True),
        "Service": ("services", True),
        "ServiceAccount": ("serviceaccounts", True),
        "PersistentVolumeClaim": ("persistentvolumeclaims", True),
    },
    "apps/v1": {"Deployment": ("deployments", True)},
    "autoscaling/v2": {"HorizontalPodAutoscaler": ("horizontalpodautoscalers", True)},
    "batch/v1": {"Job": ("jobs", True), "CronJob": ("cronjobs", True)},
    "policy/v1": {"PodDisruptionBudget": ("poddisruptionbudgets", True)},
    "networking.k8s.io/v1": {"NetworkPolicy": ("networkpolicies", True)},
    "rbac.authorization.k8s.io/v1": {"Role": ("roles", True), "RoleBinding": ("rolebindings", True)},
}
KSERVE: Final[dict[str, dict[str, tuple[str, bool]]]] = {
    "serving.kserve.io/v1beta1": {"InferenceService": ("inferenceservices", True)},
    "serving.kserve.io/v1alpha1": {
        "ServingRuntime": ("servingruntimes", True),
        "ClusterStorageContainer": ("clusterstoragecontainers", False),
    },
}
GATEWAY: Final[dict[str, dict[str, tuple[str, bool]]]] = {
    "gateway.networking.k8s.io/v1": {"Gateway": ("gateways", True), "HTTPRoute": ("httproutes", True)}
}
ENVOY: Final[dict[str, dict[str, tuple[str, bool]]]] = {
    "gateway.envoyproxy.io/v1alpha1": {
        "SecurityPolicy": ("securitypolicies", True),
        "BackendTrafficPolicy": ("backendtrafficpolicies", True),
        "ClientTrafficPolicy": ("clienttrafficpolicies", True),
        "HTTPRouteFilter": ("httproutefilters", True),
    }
}
# What a cluster has that measures: prometheus-adapter, KEDA, the operator of Prometheus.
METRICS: Final[dict[str, dict[str, tuple[str, bool]]]] = {
    "custom.metrics.k8s.io/v1beta2": {"MetricValueList": ("pods/pneumoserve_calls_in_flight", True)},
    "keda.sh/v1alpha1": {"ScaledObject": ("scaledobjects", True)},
    "monitoring.coreos.com/v1": {
        "PodMonitor": ("podmonitors", True),
        "PrometheusRule": ("prometheusrules", True),
    },
}
# Knative Serving.
SERVING: Final[dict[str, dict[str, tuple[str, bool]]]] = {"serving.knative.dev/v1": {"Service": ("services", True)}}


class Api:
    """What a cluster has."""

    def __init__(self, kinds: dict[str, dict[str, tuple[str, bool]]], objects: list[Object]) -> None:
        self._kinds = kinds
        self._objects = objects

    def answer(self, path: str) -> Object | None:
        """The body of a GET, None where there is nothing."""
        words = path.partition("?")[0].strip("/").split("/")
        match words:
            case ["version"]:
                return {"major": "1", "minor": "36", "gitVersion": "v1.36.3"}
            case ["api"]:
                return {"kind": "APIVersions", "versions": ["v1"]}
            case ["apis"]:
                return {"kind": "APIGroupList", "apiVersion": "v1", "groups": self._groups()}
            case ["api", version, *rest]:
                return self._below(version, rest)
            case ["apis", group, version, *rest]:
                return self._below(f"{group}/{version}", rest)
        return None

    def _groups(self) -> list[Object]:
        groups: dict[str, list[Object]] = {}
        for version in self._kinds:
            group, slash, short = version.partition("/")
            if slash:
                groups.setdefault(group, []).append({"groupVersion": version, "version": short})
        return [{"name": name, "versions": found, "preferredVersion": found[0]} for name, found in groups.items()]

    def _below(self, version: str, rest: list[str]) -> Object | None:
        kinds = self._kinds.get(version)
        if kinds is None:
            return None
        if not rest:
            resources = [
                {"name": plural, "singularName": kind.lower(), "namespaced": namespaced, "kind": kind,
                 "verbs": ["get", "list"]}
                for kind, (plural, namespaced) in kinds.items()
            ]  # fmt: skip
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}
        namespace = None
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        kind = next((kind for kind, (plural, _) in kinds.items() if plural == rest[0]), None)
        found = [
            item
            for item in self._objects
            if (item["apiVersion"], item["kind"]) == (version, kind)
            and (namespace is None or item["metadata"].get("namespace") == namespace)
        ]
        if len(rest) == 1:
            return {"kind": f"{kind}List", "apiVersion": version, "metadata": {}, "items": found}
        return next((item for item in found if item["metadata"]["name"] == rest[1]), None)


@contextmanager
def served(api: Api, folder: Path) -> Iterator[Path]:
    """Serve it on a loopback port; gives the kubeconfig."""
    missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}

    def answer(method: str, path: str, kind: str, body: bytes) -> tuple[int, Any]:
        assert method == "GET", "a template only reads"
        found = api.answer(path)
        return (404, missing) if found is None else (200, found)

    with listening(answer, folder) as kubeconfig:
        yield kubeconfig
