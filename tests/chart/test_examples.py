"""Examples that people write: values of a hospital, and an InferenceGraph beside the manifests."""

from __future__ import annotations

from typing import Final

import yaml

from pneumoserve.front.service import MODEL_NAMES
from tests.chart.conftest import EVERYTHING, TRIAL, Helm, of_kind, the
from tests.chart.restricted import violations
from tests.chart.test_rendered import pods
from tools.generate.chart_values import CHART
from tools.generate.manifests import MANIFESTS, NAMESPACE, reference_release

HOSPITAL: Final = CHART.parents[1] / "examples" / "values-hospital.yaml"
GRAPH: Final = list(yaml.safe_load_all((MANIFESTS / "examples" / "inferencegraph.yaml").read_text()))


def test_the_graph_asks_models_of_the_reference_release() -> None:
    (root,) = the(GRAPH, "InferenceGraph")["spec"]["nodes"].values()
    service = f"http://pneumonia-{reference_release()}-predictor.{NAMESPACE}.svc.cluster.local"
    names = [
        step["serviceUrl"].removeprefix(f"{service}/v1/models/").removesuffix(":predict") for step in root["steps"]
    ]
    assert names == ["pneumonia-detector", "pneumonia-typer"]
    assert set(names) < set(MODEL_NAMES)


def test_the_releases_pods_let_the_graph_in(helm: Helm) -> None:
    rule = the(GRAPH, "NetworkPolicy")
    assert rule["metadata"]["namespace"] == NAMESPACE
    (predictor,) = of_kind(helm.render(TRIAL, {"release": {"id": reference_release()}}), "InferenceService")
    assert rule["spec"]["podSelector"]["matchLabels"].items() <= predictor["metadata"]["labels"].items()
    (source,) = rule["spec"]["ingress"][0]["from"]
    graph = the(GRAPH, "InferenceGraph")["metadata"]
    assert source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == graph["namespace"]
    assert source["podSelector"]["matchLabels"] == {"serving.kserve.io/inferencegraph": graph["name"]}


def test_a_hospitals_install_has_nothing_to_be_warned_of(helm: Helm) -> None:
    authorities = yaml.safe_load(EVERYTHING.read_text())["archive"]["trust"]["authorities"]
    trusting = {"archive": {"trust": {"authorities": authorities}}}
    assert "\nMind\n" not in helm.notes(HOSPITAL, trusting)
    # What the example says of the certificate is needed.
    notes = helm.notes(HOSPITAL)
    assert "\nMind\n" in notes
    assert "nobody checks the time stamps" in notes


def test_a_hospitals_install_holds_no_secret_and_every_pod_is_restricted(helm: Helm) -> None:
    objects = helm.render(HOSPITAL)
    assert of_kind(objects, "InferenceService")
    assert [violations(spec) for _, spec, _ in pods(objects)] == [[]] * len(list(pods(objects)))
    assert not any("trial" in text for text in map(str, objects))
    named = {item["metadata"]["name"] for item in of_kind(objects, "Secret")}
    assert not {name for name in named if name.removeprefix("pneumoserve-") in ("archive", "seal", "rollout", "setup")}
