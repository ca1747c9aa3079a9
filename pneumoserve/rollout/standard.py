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
    RunningRelease,
    copy_for,
    is_accepted,
    name_of,
    route_patch,
    service_of,
    weights_of,
    with_pods,
)
from pneumoserve.rollout.kubernetes import INFERENCE_SERVICE, Install, Kind

_HTTP_ROUTE: Final = Kind("gateway.networking.k8s.io/v1", "HTTPRoute")
# What the chart makes of a release, all of the same name; but for the first, not all need be there.
_KINDS_OF_RELEASE: Final = (
    INFERENCE_SERVICE,
    Kind("policy/v1", "PodDisruptionBudget"),
    Kind("autoscaling/v2", "HorizontalPodAutoscaler"),
    Kind("keda.sh/v1alpha1", "ScaledObject"),
)
_NOT_ACCEPTED: Final = (
    "No gateway has accepted the HTTPRoute, so weights would change nothing; look at "
    "`kubectl describe httproute`, and install or repair the gateway."
)


class StandardCluster(Install):
    """One install whose route a rollout turns."""

    # --- the switch

    def route(self) -> Route | None:
        found = self._get(_HTTP_ROUTE, self._name)
        if found is None:
            return None
        annotations = found["metadata"].get("annotations", {})
        return Route(
            weights=weights_of(found["spec"].get("rules", [])),
            owner=annotations.get(OWNER, ""),
            stable=annotations.get(STABLE, ""),
            accepted=is_accepted(found),
            version=found["metadata"]["resourceVersion"],
            why=_NOT_ACCEPTED,
        )

    def set_weights(self, weights: Mapping[str, int], owner: str, stable: str, version: str) -> None:
        found = self._get(_HTTP_ROUTE, self._name)
        if found is None or found["metadata"]["resourceVersion"] != version:
            raise ConflictError("the route changed")
        patch = route_patch(found, weights, owner, stable)
        patch["metadata"]["resourceVersion"] = version
        self._apply(patch)

    def render_step(self, stable: str, candidate: str, pods: int, weights: Mapping[str, int]) -> list[Object]:
        found = self._get(_HTTP_ROUTE, self._name)
        if found is None:
            raise ClusterError("There is no HTTPRoute of this install; set route.enabled=true.")
        patch = route_patch(found, weights, "", stable)
        route = copy_for(found, stable, stable)
        route["metadata"].pop("annotations", None)
        route["spec"]["rules"] = patch["spec"]["rules"]
        return [*self._copies(stable, candidate, pods), route]

    # --- releases

    def release(self, release: str) -> RunningRelease | None:
        found = self._get(INFERENCE_SERVICE, name_of(release))
        if found is None:
            return None
        conditions = found.get("status", {}).get("conditions", [])
        label = f"serving.kserve.io/inferenceservice={name_of(release)}"
        return self._running(release, conditions, service_of(release), label)

    def apply_candidate(self, stable: str, candidate: str, pods: int) -> int:
        for item in self._copies(stable, candidate, pods):
            self._apply(item)
        return pods

    def _copies(self, stable: str, candidate: str, pods: int) -> list[Object]:
        found = [self._get(kind, name_of(stable)) for kind in _KINDS_OF_RELEASE]
        if found[0] is None:
            raise ClusterError(f"Release {stable} does not run any more; bring it back with `helm upgrade`.")
        return [with_pods(copy_for(item, stable, candidate), pods) for item in found if item is not None]

    def remove(self, release: str) -> None:
        for kind in _KINDS_OF_RELEASE:
            self._delete(kind, name_of(release))

    def release_ownership(self, release: str) -> None:
        self._disown((_HTTP_ROUTE, self._name), *((kind, name_of(release)) for kind in _KINDS_OF_RELEASE))

    def _addresses(self, release: str) -> tuple[str, str]:
        service = service_of(release)
        return f"{service}.{self._namespace}.svc", f"services/http:{service}:80"

    def _service(self, release: str) -> str:
        return name_of(release)
