"""An install in Standard mode: each release an InferenceService of its own, one HTTPRoute that says who is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pneumoserve.rollout.cluster import (
    OWNER,
    STABLE,
    ClusterError,
    ConflictError,
    Object,
    Route,
    Running,
    accepted,
    copied,
    name_of,
    route_patch,
    service_of,
    weights_of,
    with_pods,
)
from pneumoserve.rollout.kubernetes import Install

_PLURALS: Final = {
    "InferenceService": "inferenceservices",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
    "ScaledObject": "scaledobjects",
}
_NOT_ACCEPTED: Final = (
    "No gateway has accepted the HTTPRoute, so weights would change nothing; look at "
    "`kubectl describe httproute`, and install or repair the gateway."
)


class StandardCluster(Install):
    """One install whose route a rollout turns."""

    # --- the switch

    def route(self) -> Route | None:
        found = self._get(self._route())
        if found is None:
            return None
        annotations = found["metadata"].get("annotations", {})
        return Route(
            weights=weights_of(found["spec"].get("rules", [])),
            owner=annotations.get(OWNER, ""),
            stable=annotations.get(STABLE, ""),
            accepted=accepted(found),
            version=found["metadata"]["resourceVersion"],
            why=_NOT_ACCEPTED,
        )

    def turn(self, weights: Mapping[str, int], owner: str, stable: str, version: str) -> None:
        found = self._get(self._route())
        if found is None or found["metadata"]["resourceVersion"] != version:
            raise ConflictError("the route changed")
        patch = route_patch(found, weights, owner, stable)
        patch["metadata"]["resourceVersion"] = version
        self._apply(self._route(), patch)

    def rendered(self, stable: str, candidate: str, pods: int, weights: Mapping[str, int]) -> list[Object]:
        found = self._get(self._route())
        if found is None:
            raise ClusterError("There is no HTTPRoute of this install; set route.enabled=true.")
        patch = route_patch(found, weights, "", stable)
        route = copied(found, stable, stable)
        route["metadata"].pop("annotations", None)
        route["spec"]["rules"] = patch["spec"]["rules"]
        return [*self._copies(stable, candidate, pods), route]

    # --- releases

    def release(self, release: str) -> Running | None:
        found = self._get(self._service(release))
        if found is None:
            return None
        conditions = found.get("status", {}).get("conditions", [])
        label = f"serving.kserve.io/inferenceservice={name_of(release)}"
        return self._running(release, conditions, service_of(release), label)

    def make(self, stable: str, candidate: str, pods: int) -> int:
        for item in self._copies(stable, candidate, pods):
            group = f"apis/{item['apiVersion']}"
            self._apply(self._at(group, _PLURALS[item["kind"]], item["metadata"]["name"]), item)
        return pods

    def _copies(self, stable: str, candidate: str, pods: int) -> list[Object]:
        found = [self._get(path) for path in self._of_release(stable)]
        if found[0] is None:
            raise ClusterError(f"Release {stable} does not run any more; bring it back with `helm upgrade`.")
        return [with_pods(copied(item, stable, candidate), pods) for item in found if item is not None]

    def remove(self, release: str) -> None:
        for path in self._of_release(release):
            self._request("DELETE", path, missing_ok=True)

    def let_go(self, release: str) -> None:
        self._disown(self._route(), *self._of_release(release))

    def _answering(self, release: str) -> tuple[str, str]:
        service = service_of(release)
        return f"{service}.{self._namespace}.svc", self._at("api/v1", "services", f"http:{service}:80")

    def _route(self) -> str:
        return self._at("apis/gateway.networking.k8s.io/v1", "httproutes", self._name)

    def _service(self, release: str) -> str:
        return self._at("apis/serving.kserve.io/v1beta1", "inferenceservices", name_of(release))

    def _of_release(self, release: str) -> list[str]:
        """The InferenceService of a release, and what the chart makes of the same name; not all need be there."""
        groups = ("policy/v1", "autoscaling/v2", "keda.sh/v1alpha1")
        kinds = ("poddisruptionbudgets", "horizontalpodautoscalers", "scaledobjects")
        others = [self._at(f"apis/{group}", kind, name_of(release)) for group, kind in zip(groups, kinds, strict=True)]
        return [self._service(release), *others]
