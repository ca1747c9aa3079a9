"""KServe and Knative's controllers, played: what they make of an InferenceService, one small step at a time.

`traffic_of` and `noticed` are KServe 0.20's createKnativeService and PropagateStatus, faults included; `reported` is
what Knative's Service says once its Configuration and its Route have followed.
"""

from __future__ import annotations

from typing import Any, Final

from pneumoserve.rollout.cluster import OWNER, Object
from tests.support.fake_api import ApiServer

NAMESPACE: Final = "pneumo"
SERVICE: Final = "pneumonia-predictor"
SOURCE: Final = "internal.serving.kserve.io/storage-initializer-sourceuri"
INFERENCE: Final = f"/apis/serving.kserve.io/v1beta1/namespaces/{NAMESPACE}/inferenceservices/pneumonia"
KNATIVE: Final = f"/apis/serving.knative.dev/v1/namespaces/{NAMESPACE}"
MARKS: Final = f"/api/v1/namespaces/{NAMESPACE}/configmaps/pneumoserve-traffic"
CONFIGMAPS: Final = f"/api/v1/namespaces/{NAMESPACE}/configmaps"


def traffic_of(inference: Object) -> list[Object]:
    """The traffic that KServe asks Knative for."""
    percent: int | None = inference["spec"]["predictor"].get("canaryTrafficPercent")
    rolled_out = _predictor(inference).get("latestRolledoutRevision", "")
    if percent is None or not rolled_out:
        return [{"latestRevision": True, "percent": 100}]
    latest = {"latestRevision": True, "percent": percent}
    rest = {"latestRevision": False, "percent": 100 - percent, "revisionName": rolled_out, "tag": "prev"}
    return [latest, rest] if percent < 100 else [latest]


def noticed(predictor: Object, status: Object) -> Object:
    """What KServe notes of a Knative Service's status, beside what it noted before."""
    found = {**predictor, "latestCreatedRevision": status["latestCreatedRevisionName"]}
    ready = status["latestReadyRevisionName"]
    shares: dict[str, int] = {}
    for each in status["traffic"]:
        shares[each["revisionName"]] = shares.get(each["revisionName"], 0) + each["percent"]
    for each in status["traffic"]:
        if each["revisionName"] != ready or not each.get("latestRevision"):
            continue
        if found.get("latestRolledoutRevision", "") != ready:
            if each["percent"] == 100:
                found["previousRolledoutRevision"] = found.get("latestRolledoutRevision", "")
                found["latestRolledoutRevision"] = ready
        elif ready == found["latestCreatedRevision"] and each["percent"] < 100 and shares[ready] == 100:
            found["latestRolledoutRevision"] = found.get("previousRolledoutRevision") or ready
    return found


def reported(service: Object, created: str, ready: str, has_followed: bool) -> Object:
    """The status of a Knative Service whose Route has followed its spec, and maybe its Configuration."""
    traffic = [
        {**each, "revisionName": ready if each.get("latestRevision") else each["revisionName"]}
        for each in service["spec"]["traffic"]
    ]
    conditions = {"ConfigurationsReady": has_followed, "Ready": has_followed, "RoutesReady": True}
    return {
        "observedGeneration": service["metadata"]["generation"],
        "latestCreatedRevisionName": created,
        "latestReadyRevisionName": ready,
        "traffic": traffic,
        "conditions": [{"type": k, "status": "True" if v else "Unknown"} for k, v in conditions.items()],
    }


def _predictor(inference: Object) -> Object:
    found: Object = inference.get("status", {}).get("components", {}).get("predictor", {})
    return found


class Played(ApiServer):
    """An API server with an install in Knative mode, and the controllers of both. Each `step` is one of theirs.

    It checks what must hold of calls whenever they change. `hasty`: the Route follows before the Configuration does.
    """

    def __init__(self, release: str, percent: int | None = 100) -> None:
        super().__init__()
        self.hasty = False
        self.version = 1
        self.called: list[dict[str, int]] = []
        self.ages: dict[str, int] = {}
        predictor = {
            "minReplicas": 2,
            "maxReplicas": 6,
            "model": {"storageUri": f"s3://pneumoserve/releases/{release}", "runtime": "r"},
            **({} if percent is None else {"canaryTrafficPercent": percent}),
        }
        metadata = {
            "name": "pneumonia",
            "namespace": NAMESPACE,
            "labels": {"app.kubernetes.io/instance": "pneumoserve"},
            "annotations": {"serving.kserve.io/deploymentMode": "Knative"},
            "resourceVersion": "1",
        }
        self.inference: Object = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": metadata,
            "spec": {"predictor": predictor},
            "status": {},
        }
        self.service: Object = {"metadata": {"generation": 0}, "spec": {}, "status": {}}
        pod = {
            "metadata": {"name": "pod"},
            "status": {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
        }
        self.objects = {
            INFERENCE: self.inference,
            f"{KNATIVE}/services/{SERVICE}": self.service,
            MARKS: {"metadata": {"resourceVersion": "1"}},
            f"/api/v1/namespaces/{NAMESPACE}/pods": {"items": [pod]},
        }
        self.settle()

    def settle(self) -> None:
        """As it is once nothing more follows."""
        for _ in range(8):
            self.step()

    def step(self) -> None:
        """All controllers, one after the other."""
        self._kserve()
        if self.hasty:
            self._route()
            self._kserve()
        self._configuration()
        self._pods()
        self._route()

    # --- what is there

    @property
    def wanted(self) -> tuple[str, int]:
        """The release and the percent that KServe is asked for."""
        predictor = self.inference["spec"]["predictor"]
        return predictor["model"]["storageUri"].rpartition("/")[2], predictor.get("canaryTrafficPercent", 100)

    @property
    def marks(self) -> dict[str, str]:
        found: dict[str, str] = self.objects[MARKS]["metadata"].get("annotations", {})
        return found

    def release_of(self, revision: str) -> str:
        found: str = self.objects[f"{KNATIVE}/revisions/{revision}"]["metadata"]["annotations"][SOURCE]
        return found.rpartition("/")[2]

    def _asked(self) -> str:
        """The release that KServe asks Knative for."""
        found: str = self.service["spec"]["template"]["metadata"]["annotations"][SOURCE]
        return found.rpartition("/")[2]

    # --- the controllers

    def _kserve(self) -> None:
        source = {SOURCE: self.inference["spec"]["predictor"]["model"]["storageUri"]}
        template = {"metadata": {"annotations": source}}
        spec = {"traffic": traffic_of(self.inference), "template": template}
        if self.service["spec"] != spec:
            self.service["spec"] = spec
            self.service["metadata"]["generation"] += 1
        if self.service["status"].get("traffic"):
            found = noticed(_predictor(self.inference), self.service["status"])
            self.inference["status"] = {"components": {"predictor": found}}

    def _configuration(self) -> None:
        if self.ages and self.release_of(max(self.ages)) == self._asked():
            return
        name = f"{SERVICE}-{len(self.ages) + 1:05}"
        self.ages[name] = 0
        self.objects[f"{KNATIVE}/revisions/{name}"] = {
            "metadata": {"name": name, **self.service["spec"]["template"]["metadata"]},
            "status": {"conditions": [{"type": "Ready", "status": "Unknown", "message": "it starts"}]},
        }

    def _pods(self) -> None:
        """A revision is ready at the third step; one that nobody names has no pods."""
        named = {each["revisionName"] for each in self.service["status"].get("traffic", [])} | {max(self.ages)}
        for name in self.ages:
            self.ages[name] += 1
            is_ready = self.ages[name] > 2
            revision = self.objects[f"{KNATIVE}/revisions/{name}"]
            if is_ready:
                revision["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
            pods = 2 if name in named else 0
            path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}-deployment"
            self.objects[path] = {"spec": {"replicas": pods}, "status": {"readyReplicas": pods if is_ready else 0}}

    def _route(self) -> None:
        ready = [name for name, age in self.ages.items() if age > 2]
        if not ready:
            return
        has_followed = self.release_of(max(self.ages)) == self._asked() and max(self.ages) == max(ready)
        status = reported(self.service, max(self.ages), max(ready), has_followed)
        self.service["status"] = status
        called: dict[str, int] = {}
        for each in status["traffic"]:
            assert each["revisionName"] in ready, f"a revision that is not ready is called: {status}"
            release = self.release_of(each["revisionName"])
            called[release] = called.get(release, 0) + each["percent"]
        called = {release: percent for release, percent in called.items() if percent}
        assert len(called) == 1 or OWNER in self.marks, "a percent without an owner"
        if not self.called or self.called[-1] != called:
            self.called.append(called)

    # --- the API

    def answer(self, method: str, path: str, kind: str, body: bytes) -> tuple[int, Any]:
        bare = path.partition("?")[0]
        status, found = super().answer(method, path, kind, body)
        item = self.asked[-1][3]
        if kind == "application/apply-patch+yaml" and status == 200:
            return self._applied(self.objects[bare], item)
        if method in {"POST", "PUT"} and bare.startswith(CONFIGMAPS):
            self.version += 1
            made = {**item, "metadata": {**item["metadata"], "resourceVersion": str(self.version)}}
            self.objects[f"{CONFIGMAPS}/{item['metadata']['name']}"] = made
            return 200, made
        return status, found

    def _applied(self, found: Object, item: Object) -> tuple[int, Any]:
        seen = found["metadata"]["resourceVersion"]
        if item["metadata"].get("resourceVersion", seen) != seen:
            return 409, {"message": "another version"}
        self.version += 1
        found["metadata"]["resourceVersion"] = str(self.version)
        if "spec" not in item:
            found["metadata"]["annotations"] = item["metadata"].get("annotations", {})
            return 200, found
        asked = item["spec"]["predictor"]
        predictor = found["spec"]["predictor"]
        predictor["canaryTrafficPercent"] = asked["canaryTrafficPercent"]
        predictor["model"]["storageUri"] = asked["model"]["storageUri"]
        return 200, found
