"""What a rollout asks of a cluster, and the objects it writes there."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pneumoserve.errors import PneumoserveError

Object = dict[str, Any]
MANAGER: Final = "pneumoserve-rollout"
# On the route: the rollout that owns its weights, and the release that the operator's values should name.
OWNER: Final = "pneumoserve/rollout"
STABLE: Final = "pneumoserve/stable"
# On an InferenceService: the release that its pods must run.
RELEASE_LABEL: Final = "pneumoserve_release"
_PREFIX: Final = "pneumonia-"
_SUFFIX: Final = "-predictor"
_SUBJECT: Final = "--subject-header="
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"


class ClusterError(PneumoserveError):
    """The cluster does not let us; the sentence says what to do."""

    exit_code = 2


class UnreachableError(ClusterError):
    """The cluster does not answer, or not now: what is there stays unknown."""

    exit_code = 1


class ConflictError(ClusterError):
    """Another hand wrote in between, or has made it already."""


@dataclass(frozen=True)
class StoredText:
    """A text that is kept in the cluster, and the version to replace."""

    text: str
    version: str


@dataclass(frozen=True)
class RunningRelease:
    """A release as it runs. `ready` is what KServe says; `pods` are ready now, of `wanted`; `why` it is not ready."""

    release: str
    ready: bool
    pods: int
    wanted: int
    why: str = ""


@dataclass(frozen=True)
class Route:
    """The switch. `weights` by release, the same in all rules, else empty; `accepted`: the gateway has taken it so.

    `why`: what is wrong and what to do where it has not.
    """

    weights: dict[str, int]
    owner: str
    stable: str
    accepted: bool
    version: str
    why: str


@dataclass(frozen=True)
class LeaseView:
    """Who holds the lease; `renewed` changes with every renewal."""

    holder: str
    renewed: str
    version: str


class Cluster(ABC):
    """One install in one namespace. Every method but `call` may raise UnreachableError and ClusterError."""

    @abstractmethod
    def load(self) -> StoredText | None:
        """The state of the rollout; None where there never was one."""

    @abstractmethod
    def save(self, text: str, version: str | None) -> None:
        """Replace this version of the state, or make the first one; ConflictError where it is another one."""

    @abstractmethod
    def lease(self) -> LeaseView | None:
        """Who runs the rollout; None where nobody ever did."""

    @abstractmethod
    def take_lease(self, holder: str, seconds: int, version: str | None) -> str:
        """Take or renew it; the new version. ConflictError where another hand did."""

    @abstractmethod
    def route(self) -> Route | None:
        """The switch as it is now; None where there is none."""

    @abstractmethod
    def set_weights(self, weights: Mapping[str, int], owner: str, stable: str, version: str) -> None:
        """Set all weights, and those annotations that are not empty, by one patch.

        ConflictError where the route has another version.
        """

    @abstractmethod
    def release(self, release: str) -> RunningRelease | None:
        """A release as it runs; None where it does not."""

    @abstractmethod
    def apply_candidate(self, stable: str, candidate: str, pods: int) -> int:
        """Let a candidate run as the stable release does, with so many pods; at least so many where load scales it.

        Returns how many pods are to be waited for: fewer where others come with the calls only.
        """

    @abstractmethod
    def remove(self, release: str) -> None:
        """Let a release run no more; it may take a while to go."""

    @abstractmethod
    def release_ownership(self, release: str) -> None:
        """Give up the fields of the route and of a release, so that whoever installs may own them."""

    @abstractmethod
    def call(self, release: str, film: bytes) -> int:
        """The HTTP status of one call past the gateway; 0 where there was no answer."""

    @abstractmethod
    def emit_event(self, release: str, reason: str, sentence: str, bad: bool) -> None:
        """Make a Kubernetes Event of a release."""


def service_of(release: str) -> str:
    """The Service that KServe makes for a release."""
    return f"{_PREFIX}{release}{_SUFFIX}"


def name_of(release: str) -> str:
    """The InferenceService of a release, as the chart names it."""
    return f"{_PREFIX}{release}"


def copy_for(item: Object, release: str, other: str) -> Object:
    """What runs one release, as it should be to run another: everything that names the first names the second."""
    metadata = item["metadata"]
    annotations = {key: value for key, value in metadata.get("annotations", {}).items() if key != _LAST_APPLIED}
    wanted = {
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": metadata.get("labels", {}),
            **({"annotations": annotations} if annotations else {}),
        },
        "spec": item["spec"],
    }
    renamed: Object = json.loads(json.dumps(wanted).replace(release, other))
    return renamed


def with_pods(item: Object, pods: int) -> Object:
    """What says how many pods a release has, with so many; where load scales it, with so many at least."""
    match item["kind"]:
        case "InferenceService":
            predictor = _with_bounds(item["spec"]["predictor"], "minReplicas", "maxReplicas", pods)
            return {**item, "spec": {**item["spec"], "predictor": predictor}}
        case "HorizontalPodAutoscaler":
            return {**item, "spec": _with_bounds(item["spec"], "minReplicas", "maxReplicas", pods)}
        case "ScaledObject":
            return {**item, "spec": _with_bounds(item["spec"], "minReplicaCount", "maxReplicaCount", pods)}
        case _:
            return item


def _with_bounds(spec: Object, low: str, high: str, pods: int) -> Object:
    most = max(spec.get(high, pods), pods) if spec.get(high, 0) > spec.get(low, 1) else pods
    return {**spec, low: pods, high: most}


def weights_of(rules: list[Object]) -> dict[str, int]:
    """Weights by release, where all rules that lead to releases have the same; else none."""
    found = [
        {_release(backend): int(backend.get("weight", 1)) for backend in rule["backendRefs"]}
        for rule in rules
        if _leads_to_releases(rule)
    ]
    return found[0] if found and all(each == found[0] for each in found) else {}


def with_weights(rules: list[Object], weights: Mapping[str, int]) -> list[Object]:
    """The rules with these weights; matches, filters and timeouts stay, and so do rules that lead elsewhere."""
    return [
        {**rule, "backendRefs": [_backend(rule["backendRefs"][0], *each) for each in weights.items()]}
        if _leads_to_releases(rule)
        else rule
        for rule in rules
    ]


def _backend(like: Object, release: str, weight: int) -> Object:
    return {**like, "name": service_of(release), "weight": weight}


def _release(backend: Object) -> str:
    name: str = backend["name"]
    return name.removeprefix(_PREFIX).removesuffix(_SUFFIX)


def _leads_to_releases(rule: Object) -> bool:
    backends = rule.get("backendRefs", [])
    return bool(backends) and all(
        each["name"].startswith(_PREFIX) and each["name"].endswith(_SUFFIX) for each in backends
    )


def is_accepted(route: Object) -> bool:
    """Whether every gateway that the route names has taken its newest version."""
    generation = route["metadata"].get("generation")
    parents = route.get("status", {}).get("parents", [])
    return bool(parents) and all(
        _holds(parent, kind, generation) for parent in parents for kind in ("Accepted", "ResolvedRefs")
    )


def _holds(parent: Object, kind: str, generation: int | None) -> bool:
    return any(
        each["type"] == kind and each["status"] == "True" and each.get("observedGeneration", generation) == generation
        for each in parent.get("conditions", [])
    )


def subject_header(runtime: Object) -> str:
    """The header that the front of a ServingRuntime takes a caller's name from, empty where it takes none."""
    words = [word for each in runtime.get("spec", {}).get("containers", []) for word in each.get("args", [])]
    return next((word.removeprefix(_SUBJECT) for word in words if word.startswith(_SUBJECT)), "")


def route_patch(route: Object, weights: Mapping[str, int], owner: str, stable: str) -> Object:
    """What a rollout owns of the route."""
    metadata = route["metadata"]
    annotations = {key: value for key, value in ((STABLE, stable), (OWNER, owner)) if value}
    return {
        "apiVersion": route["apiVersion"],
        "kind": route["kind"],
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "annotations": annotations},
        "spec": {"rules": with_weights(route["spec"]["rules"], weights)},
    }
