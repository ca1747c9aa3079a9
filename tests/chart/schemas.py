"""Kubernetes' own schemas, and those of the custom resources that the chart makes, read strictly: no unknown field.

They come from the Go modules that the test node is built of, so they are of the versions that the tests run on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from jsonschema import Draft4Validator
from jsonschema.exceptions import best_match

from tests.chart.api import Object
from tests.support.cluster.components import module_folder

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_OPERATOR: Final = ("prometheus-operator", "github.com/prometheus-operator/prometheus-operator")
# Where each module keeps its definitions of custom resources.
_DEFINITIONS: Final = (
    ("kserve", None, "charts/kserve-crd/templates/*[!r]s.yaml"),
    ("envoy-gateway", "sigs.k8s.io/gateway-api", "config/crd/standard/*.yaml"),
    ("envoy-gateway", None, "charts/gateway-helm/charts/crds/crds/generated/*.yaml"),
    ("kserve", "github.com/kedacore/keda/v2", "config/crd/bases/keda.sh_scaledobjects.yaml"),
    (*_OPERATOR, "example/prometheus-operator-crd/*_podmonitors.yaml"),
    (*_OPERATOR, "example/prometheus-operator-crd/*_prometheusrules.yaml"),
)
# Swagger says "string" of what may be a number too.
_NUMBERS_TOO: Final = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
}
_ANYTHING: Final = {
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
}


def problems(item: Object) -> Iterator[str]:
    """What the API server would refuse of an object, or drop from it without a word: a path and a sentence each.

    Raises:
        KeyError: there is no schema of its kind.
    """
    validator = _validators()[item["apiVersion"], item["kind"]]
    for error in validator.iter_errors(item):
        cause = best_match([error]) or error
        yield f"{'.'.join(map(str, cause.absolute_path)) or 'the object'}: {cause.message[:200]}"


@cache
def _validators() -> dict[tuple[str, str], Draft4Validator]:
    return {**_of_kubernetes(), **_of_custom_resources()}


def _of_kubernetes() -> dict[tuple[str, str], Draft4Validator]:
    swagger = json.loads((module_folder("kubernetes") / "api/openapi-spec/swagger.json").read_bytes())
    definitions = {name: _of_definition(name, schema) for name, schema in swagger["definitions"].items()}
    return {
        ("/".join(filter(None, (kind["group"], kind["version"]))), kind["kind"]): Draft4Validator(
            {"$ref": f"#/definitions/{name}", "definitions": definitions}
        )
        for name, schema in swagger["definitions"].items()
        for kind in schema.get("x-kubernetes-group-version-kind", [])
    }


def _of_definition(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    if name in _NUMBERS_TOO:
        return {"type": ["string", "number"]}
    return {} if name in _ANYTHING else _strict(schema)


def _of_custom_resources() -> dict[tuple[str, str], Draft4Validator]:
    found = {}
    for module, wanted, pattern in _DEFINITIONS:
        for path in sorted(module_folder(module, wanted).glob(pattern)):
            for item in yaml.load_all(path.read_text(), _LOADER):
                if item is not None and item.get("kind") == "CustomResourceDefinition":
                    found |= dict(_of_resource(item["spec"]))
    return found


def _of_resource(spec: dict[str, Any]) -> Iterator[tuple[tuple[str, str], Draft4Validator]]:
    for version in spec["versions"]:
        schema = _strict(version["schema"]["openAPIV3Schema"])
        # A custom resource's schema leaves out what all objects have.
        schema["properties"] = {**schema["properties"], "metadata": {"type": "object"}}
        yield (f"{spec['group']}/{version['name']}", spec["names"]["kind"]), Draft4Validator(schema)


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without fields that it does not know, wherever it does not keep them on purpose."""
    strict = {key: value for key, value in schema.items() if key not in {"default", "example", "description", "format"}}
    if strict.pop("x-kubernetes-int-or-string", False):
        return {"type": ["string", "integer"], **{k: v for k, v in strict.items() if k not in {"type", "anyOf"}}}
    for key in ("items", "additionalProperties", "not"):
        if isinstance(strict.get(key), dict):
            strict[key] = _strict(strict[key])
    for key in ("allOf", "anyOf", "oneOf"):
        if key in strict:
            # These add conditions to a schema that stands beside them, and know a part of its fields each.
            strict[key] = [{**each, "properties": each.get("properties", {})} for each in strict[key]]
    if "properties" in strict:
        strict["properties"] = {key: _strict(value) for key, value in strict["properties"].items()}
        if not strict.get("x-kubernetes-preserve-unknown-fields"):
            strict.setdefault("additionalProperties", False)
    if strict.pop("nullable", False) and "type" in strict:
        strict["type"] = [strict["type"], "null"]
    return strict


def read_folder(folder: Path) -> list[Object]:
    """The objects of a folder of manifests, kustomize's own files left out."""
    paths = sorted(path for path in folder.glob("*.yaml") if path.name != "kustomization.yaml")
    return [item for path in paths for item in yaml.load_all(path.read_text(), _LOADER) if item]
