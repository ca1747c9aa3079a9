"""The examples beside the manifests, which nothing makes."""

from __future__ import annotations

from typing import Final

import yaml

from pneumoserve.front.service import MODEL_NAMES
from tests.chart.conftest import TRIAL, Helm, of_kind, the
from tests.chart.manifests import MANIFESTS, NAMESPACE, reference_release

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
