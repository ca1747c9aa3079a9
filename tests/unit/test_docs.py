"""The protocol's page names what the front answers."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from pneumoserve.decision import Reason
from pneumoserve.front.models import DECISION_OUTPUTS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_protocol_names_every_output_and_reason() -> None:
    text = (DOCS / "reference" / "protocol.md").read_text()
    for word in (*DECISION_OUTPUTS, *get_args(Reason)):
        assert f"`{word}`" in text
