"""An install in Knative mode: one InferenceService whose revisions are the releases, and its `canaryTrafficPercent`.

KServe 0.20 (ksvc_reconciler.go, inference_service_status.go) gives the percent to the latest revision and the rest to
the last one that had all calls. It copies labels and annotations of the InferenceService into the revision's template,
so a rollout's annotations are on a ConfigMap of the chart's: there they make no revision. Knative
(labeler/metasync.go) keeps the least pods of every revision that a target names, at 0 percent too; one that no target
names loses its pods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pneumoserve.rollout.cluster import (
    OWNER,
    RELEASE_LABEL,
    STABLE,
    ClusterError,
    ConflictError,
    Object,
    Route,
    RunningRelease,
    UnreachableError,
    copy_for,
)
from pneumoserve.rollout.kubernetes import CONFIG_MAP, INFERENCE_SERVICE, Install, Kind
from pneumoserve.rollout.standard import StandardCluster

_NAME: Final = "pneumonia"
_SERVICE: Final = f"{_NAME}-predictor"
_SOURCE: Final = "internal.serving.kserve.io/storage-initializer-sourceuri"
_REVISION: Final = "serving.knative.dev/revision"
_PORT: Final = 8080
_KNATIVE_SERVICE: Final = Kind("serving.knative.dev/v1", "Service")
_KNATIVE_REVISION: Final = Kind("serving.knative.dev/v1", "Revision")
_NOT_TAKEN: Final = (
    "Knative has not taken the traffic that the InferenceService asks for, so a percent would change nothing; look at "
    "`kubectl describe inferenceservice pneumonia` and `kubectl describe ksvc pneumonia-predictor`."
)


def open_cluster(namespace: str, helm_release: str) -> Install:
    """The install of that name, in the mode that it has.

    Raises:
        ClusterError: there is no cluster to look into, or it does not let us.
    """
    knative = KnativeCluster(namespace, helm_release)
    if knative.is_there(helm_release):
        return knative
    knative.close()
    return StandardCluster(namespace, helm_release)


@dataclass(frozen=True)
class _Look:
    """What is asked of KServe, what KServe asks of Knative, and what that reports, of about one moment.

    `revisions`: by name, those that are the latest or that have, or will have, a part in the traffic.
    """

    inference: Object
    service: Object
    revisions: dict[str, Object]
    annotations: dict[str, str]

    @property
    def uri(self) -> str:
        uri: str = self.inference["spec"]["predictor"]["model"]["storageUri"]
        return uri

    @property
    def newest(self) -> str:
        """The release that is asked for: the latest revision's, once KServe has made that."""
        return self.uri.rpartition("/")[2]

    @property
    def rolled_out(self) -> str:
        """The revision that gets what the latest does not."""
        return rolled_out_revision(self.inference)

    @property
    def percent(self) -> int:
        """The latest revision's share: all, where KServe knows of no other revision."""
        asked = self.inference["spec"]["predictor"].get("canaryTrafficPercent")
        return 100 if asked is None or not self.rolled_out else int(asked)

    @property
    def earlier(self) -> str:
        """The release of the revision that gets what the latest does not."""
        return _release_of(self.revisions.get(self.rolled_out, {}))

    @property
    def latest(self) -> str:
        """The revision that Knative takes for the latest: the latest one that is ready."""
        name: str = next((each["revisionName"] for each in self._reported() if each.get("latestRevision")), "")
        return name

    @property
    def has_followed(self) -> bool:
        """Whether the percent is that of the newest revision, made of the release that is asked for."""
        status, template = self.service.get("status", {}), self.service.get("spec", {}).get("template", {})
        return (
            _release_of(template) == _release_of(self.revisions.get(self.latest, {})) == self.newest
            and self.latest == status.get("latestCreatedRevisionName")
            and status.get("observedGeneration") == self.service["metadata"]["generation"]
        )

    @property
    def may_rise(self) -> bool:
        """Whether a larger percent would be that of the revision meant, and that one is ready."""
        return self.has_followed and self._says("ConfigurationsReady")

    @property
    def weights(self) -> dict[str, int]:
        """Percent of the calls by release, without those that get none."""
        shares = {self.earlier: 100 - self.percent}
        shares[self.newest] = shares.get(self.newest, 0) + self.percent
        return {release: share for release, share in shares.items() if share}

    @property
    def goes_back(self) -> bool:
        """Whether calls still go to the latest revision, which had all of them and is to have none.

        KServe then names that one as the earlier; it notices, and names the one before.
        """
        return self.percent < 100 and self.rolled_out == self.latest

    @property
    def accepted(self) -> bool:
        """Whether Knative reports just the traffic that is asked for."""
        wanted = {"": self.percent, **({self.rolled_out: 100 - self.percent} if self.percent < 100 else {})}
        return (
            self.has_followed
            and not self.goes_back
            and self._says("RoutesReady")
            and _shares(self.service["spec"]["traffic"]) == _shares(self._reported()) == wanted
        )

    def of(self, release: str) -> list[str]:
        """Revisions of a release, that with most calls first, of equals the newest."""
        shares: dict[str, int] = {}
        for each in self._reported():
            shares[each["revisionName"]] = shares.get(each["revisionName"], 0) + int(each.get("percent") or 0)
        found = sorted((name for name, each in self.revisions.items() if _release_of(each) == release), reverse=True)
        return sorted(found, key=lambda name: -shares.get(name, 0))

    def _says(self, condition: str) -> bool:
        conditions: list[Object] = self.service.get("status", {}).get("conditions", [])
        return any(each["type"] == condition and each["status"] == "True" for each in conditions)

    def _reported(self) -> list[Object]:
        traffic: list[Object] = self.service.get("status", {}).get("traffic") or []
        return traffic


class KnativeCluster(Install):
    """One install whose percent a rollout sets."""

    def is_there(self, helm_release: str) -> bool:
        """Whether an install of that name is in Knative mode."""
        metadata: Object = (self._get(INFERENCE_SERVICE, _NAME) or {}).get("metadata", {})
        mode: str = metadata.get("annotations", {}).get("serving.kserve.io/deploymentMode", "")
        instance: str = metadata.get("labels", {}).get("app.kubernetes.io/instance", "")
        return (mode, instance) == ("Knative", helm_release)

    # --- the switch

    def route(self) -> Route | None:
        look = self._look()
        if look is None:
            return None
        return Route(
            weights=look.weights,
            owner=look.annotations.get(OWNER, ""),
            stable=look.annotations.get(STABLE, ""),
            accepted=look.accepted,
            version=look.inference["metadata"]["resourceVersion"],
            why=_NOT_TAKEN,
        )

    def set_weights(self, weights: Mapping[str, int], owner: str, stable: str, version: str) -> None:
        look = self._look()
        if look is None or look.inference["metadata"]["resourceVersion"] != version:
            raise ConflictError("the InferenceService changed")
        # Annotations first: there is never a percent without an owner.
        self._annotate(look, {key: value for key, value in ((STABLE, stable), (OWNER, owner)) if value})
        called = {release: weight for release, weight in weights.items() if weight}
        share = called.get(look.newest, 0)
        if called == look.weights or (share > look.percent and not look.may_rise):
            return  # as it is, or too early: until the newest revision is ready, the percent is another one's
        if share != look.percent:
            self._request_release(look, look.newest, share)
        elif not look.goes_back:
            # KServe gives the rest to a third release. It can take a revision that is about to be followed for one
            # that was taken back.
            self._request_release(look, next(release for release in called if release != look.newest), 0)

    def render_step(
        self,
        stable: str,
        candidate: str,
        pods: int,  # noqa: ARG002 - Knative says how many
        weights: Mapping[str, int],
    ) -> list[Object]:
        look = self._require_look()
        item = copy_for(look.inference, stable, candidate)
        item["spec"]["predictor"]["canaryTrafficPercent"] = weights[candidate]
        return [item]

    # --- releases

    def release(self, release: str) -> RunningRelease | None:
        look = self._look()
        if look is None:
            return None
        for name in look.of(release)[:1]:
            conditions = look.revisions[name].get("status", {}).get("conditions", [])
            return self._running(release, conditions, f"{name}-deployment", f"{_REVISION}={name}")
        # Until the stable release's own latest revision has all calls, the candidate's way out is not at its end.
        if look.annotations.get(OWNER) and look.percent < 100 and look.newest == look.earlier != release:
            return RunningRelease(release, ready=False, pods=0, wanted=0, why="it goes")
        return None

    def apply_candidate(self, stable: str, candidate: str, pods: int) -> int:
        """The candidate as the latest revision, with no calls. `minReplicas` is the revision's own, so it stays."""
        look = self._require_look()
        if look.newest != candidate:
            # Where KServe knows of no earlier revision, it gives all calls to the latest whatever the percent.
            if look.weights != {stable: 100} or look.earlier != stable:
                raise UnreachableError(f"KServe does not say yet that release {stable} has all calls")
            self._request_release(look, candidate, 0)
        return min(pods, int(look.inference["spec"]["predictor"].get("minReplicas", 1)))

    def remove(self, release: str) -> None:
        """The release before is asked for again. Its revision of then answers until the new one is ready.

        One that is neither asked for nor called is Knative's to collect.
        """
        look = self._look()
        if look is None:
            return
        if look.newest == release:
            if look.earlier in ("", release):
                raise UnreachableError(f"KServe does not say yet who has the calls beside release {release}")
            self._request_release(look, look.earlier, 0)
        elif look.percent < 100 and look.may_rise:
            self._request_release(look, look.newest, 100)

    def release_ownership(self, release: str) -> None:  # noqa: ARG002 - one runs them all
        self._disown((INFERENCE_SERVICE, _NAME), (CONFIG_MAP, self._annotated))

    def _addresses(self, release: str) -> tuple[str, str]:
        """A pod of the release's revision: past the gateway and past Knative's proxy beside the front."""
        look = self._look()
        revisions = look.of(release) if look is not None else []
        for pod in self._pods(f"{_REVISION}={revisions[0]}") if revisions else []:
            address = pod.get("status", {}).get("podIP", "")
            if address and _is_ready(pod):
                host = f"[{address}]" if ":" in address else address
                return f"{host}:{_PORT}", f"pods/{pod['metadata']['name']}:{_PORT}"
        return "", ""

    # --- the objects

    def _service(self, release: str) -> str:  # noqa: ARG002 - one runs them all
        return _NAME

    @property
    def _annotated(self) -> str:
        """The name of the ConfigMap that has a rollout's annotations."""
        return f"{self._name}-traffic"

    def _look(self) -> _Look | None:
        inference = self._get(INFERENCE_SERVICE, _NAME)
        if inference is None:
            return None
        service = self._get(_KNATIVE_SERVICE, _SERVICE) or {"metadata": {"generation": 0}}
        status = service.get("status", {})
        traffic = status.get("traffic") or []
        names = {status.get("latestCreatedRevisionName"), rolled_out_revision(inference)}
        names |= {each.get("revisionName") for each in traffic}
        found = {name: self._get(_KNATIVE_REVISION, name) for name in names if name}
        revisions = {name: each for name, each in found.items() if each is not None}
        annotations = (self._get(CONFIG_MAP, self._annotated) or {}).get("metadata", {}).get("annotations", {})
        return _Look(inference, service, revisions, annotations)

    def _require_look(self) -> _Look:
        look = self._look()
        if look is None:
            raise ClusterError(f"There is no InferenceService {_NAME}; bring it back with `helm upgrade`.")
        return look

    def _annotate(self, look: _Look, annotations: dict[str, str]) -> None:
        if {key: look.annotations[key] for key in (STABLE, OWNER) if key in look.annotations} != annotations:
            metadata = {"name": self._annotated, "namespace": self._namespace, "annotations": annotations}
            self._apply({"apiVersion": CONFIG_MAP.api_version, "kind": CONFIG_MAP.name, "metadata": metadata})

    def _request_release(self, look: _Look, release: str, percent: int) -> None:
        """A release as the latest revision, and its percent: one patch of the version that was seen."""
        wanted = {key: look.inference["metadata"][key] for key in ("name", "namespace", "resourceVersion")}
        # Pods refuse any other release; a runtime that does not ask for the label ignores it.
        wanted["labels"] = {RELEASE_LABEL: release}
        model = {"storageUri": f"{look.uri.rpartition('/')[0]}/{release}"}
        item = {
            "apiVersion": look.inference["apiVersion"],
            "kind": look.inference["kind"],
            "metadata": wanted,
            "spec": {"predictor": {"canaryTrafficPercent": percent, "model": model}},
        }
        self._apply(item)


def rolled_out_revision(inference: Object) -> str:
    """The last revision that KServe saw with all calls; empty where there was none."""
    components = inference.get("status", {}).get("components", {})
    name: str = components.get("predictor", {}).get("latestRolledoutRevision", "")
    return name


def _release_of(revision: Object) -> str:
    annotations = revision.get("metadata", {}).get("annotations", {})
    source: str = annotations.get(_SOURCE, "")
    return source.rpartition("/")[2]


def _shares(traffic: list[Object]) -> dict[str, int]:
    """Percent by revision; the latest has no name, as where it is asked for."""
    return {
        "" if each.get("latestRevision") else each.get("revisionName", ""): int(each.get("percent") or 0)
        for each in traffic
    }


def _is_ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions", [])
    return "deletionTimestamp" not in pod["metadata"] and any(
        each["type"] == "Ready" and each["status"] == "True" for each in conditions
    )
