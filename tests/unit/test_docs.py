"""Documents that must stay true: published schemas, and the tables of the protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from pneumoserve.archive.label import Label
from pneumoserve.archive.record import Record
from pneumoserve.archive.seals import Seal
from pneumoserve.archive.segment import Header
from pneumoserve.decision import Reason
from pneumoserve.front.models import DECISION_OUTPUTS
from pneumoserve.lineage import Lineage
from pneumoserve.release.schema import ReleaseManifest, RunFacts

DOCS = Path(__file__).parents[2] / "docs"
SCHEMAS: dict[str, type[BaseModel]] = {
    "label": Label,
    "lineage": Lineage,
    "record": Record,
    "release": ReleaseManifest,
    "run": RunFacts,
    "seal": Seal,
    "segment": Header,
}


def schema_text(model: type[BaseModel]) -> str:
    return json.dumps(model.model_json_schema(by_alias=True), indent=1, sort_keys=True) + "\n"


@pytest.mark.parametrize("name", SCHEMAS)
def test_published_schemas_are_those_of_the_code(name: str) -> None:
    """After a change on purpose: `python -m tests.unit.test_docs` writes them anew."""
    assert (DOCS / "schemas" / f"{name}.schema.json").read_text() == schema_text(SCHEMAS[name])


def test_the_protocol_names_every_output_and_reason() -> None:
    text = (DOCS / "protocol.md").read_text()
    for word in (*DECISION_OUTPUTS, *get_args(Reason)):
        assert f"`{word}`" in text


if __name__ == "__main__":
    for name, model in SCHEMAS.items():
        (DOCS / "schemas" / f"{name}.schema.json").write_text(schema_text(model))
