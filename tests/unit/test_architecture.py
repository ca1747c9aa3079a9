"""What a release says of its network is enough to run it; none of this needs torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.models.architecture import Architecture
from pneumoserve.models.engine import engine_for


@pytest.mark.parametrize("standardised", [True, False])
@pytest.mark.parametrize("side", [96, 224])
@pytest.mark.parametrize("mirrored", [True, False])
def test_what_a_release_says_is_read_back(standardised: bool, side: int, mirrored: bool) -> None:
    architecture = Architecture(standardised, side, mirrored)
    assert Architecture.parse(str(architecture)) == architecture


def test_the_words_of_signed_releases_stay() -> None:
    models = json.loads((REFERENCE_RUN / "run.json").read_bytes())["models"]
    assert {model["architecture"] for model in models} == {"efficientnet-lite0, standardised, 176 px"}
    assert Architecture.parse("efficientnet-lite0, standardised, 176 px") == Architecture(True, 176, False)


@pytest.mark.parametrize("text", ["", "efficientnet-lite0", "resnet, standardised, 176 px", "{}, inverted"])
def test_on_a_gpu_an_unknown_network_is_refused_in_words(text: str, tmp_path: Path) -> None:
    unknown = text.format(Architecture())
    with pytest.raises(RuntimeError, match=r"knows no network .*release's version, or on the CPU"):
        engine_for(tmp_path, "pneumonia-detector", unknown, {"gpu_id": 0})
