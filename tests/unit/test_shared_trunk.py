"""When a detector answers for the typer too, and that its graph is no other than the two it is made of."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pneumoserve.imaging.prepare import prepare
from pneumoserve.local.stack import REFERENCE_RUN
from pneumoserve.models.scorer import TYPER_MAR, Scorer
from pneumoserve.models.shared_trunk import Packed, _model_class, join_graphs
from pneumoserve.names import DETECTOR, TYPER
from tests.support import films

RUN = json.loads((REFERENCE_RUN / "run.json").read_bytes())


def packed(name: str) -> Packed:
    """A model of the reference run, as its MAR would hold it."""
    facts = next(each for each in RUN["models"] if each["name"] == name)
    facts = {**facts, "preprocessing_version": RUN["preprocessing_version"]}
    weights = REFERENCE_RUN / "weights"
    return Packed(facts, (weights / f"{name}.onnx").read_bytes(), (weights / f"{name}.safetensors").read_bytes())


def unpack(model: Packed, folder: Path) -> Path:
    """The folder in which TorchServe unpacks a model's MAR."""
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps(model.facts))
    (folder / f"{model.facts['name']}.onnx").write_bytes(model.graph)
    (folder / f"{model.facts['name']}.safetensors").write_bytes(model.weights)
    return folder


def pack(model: Packed, mar: Path) -> Path:
    with zipfile.ZipFile(mar, "w") as archive:
        archive.writestr("model.json", json.dumps(model.facts))
        archive.writestr(f"{model.facts['name']}.onnx", model.graph)
        archive.writestr(f"{model.facts['name']}.safetensors", model.weights)
    return mar


def with_another(model: Packed, tensor: str) -> Packed:
    """A model of which one bit of one tensor is another one: the lowest of its first weight."""
    length = int.from_bytes(model.weights[:8], "little")
    start, _ = json.loads(model.weights[8 : 8 + length])[tensor]["data_offsets"]
    weights = bytearray(model.weights)
    weights[8 + length + start] ^= 1
    return replace(model, weights=bytes(weights))


def test_one_run_gives_the_bits_of_both_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector, typer = (unpack(packed(name), tmp_path / name) for name in (DETECTOR, TYPER))
    apart = Scorer(detector, {}), Scorer(typer, {})
    monkeypatch.setenv(TYPER_MAR, str(pack(packed(TYPER), tmp_path / "typer.mar")))
    together = Scorer(detector, {})
    noise = np.random.default_rng(0).integers(0, 256, (8, 224, 224), dtype=np.uint8)
    shown = [prepare(path.read_bytes()).pixels for path in films.sample_films()[::7]]
    for pixels in (*noise, *shown):
        (wanted,), (type_wanted,), (found,) = (scorer.scores([pixels]) for scorer in (*apart, together))
        assert wanted.typer is None
        assert found == replace(wanted, typer=type_wanted)


@pytest.mark.parametrize("tensor", ["trunk._conv_stem.weight", "trunk._bn1.running_var"])
def test_a_trunk_that_differs_in_one_bit_is_another(
    tensor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = with_another(packed(TYPER), tensor)
    assert join_graphs(packed(DETECTOR), other) is None
    monkeypatch.setenv(TYPER_MAR, str(pack(other, tmp_path / "typer.mar")))
    (score,) = Scorer(unpack(packed(DETECTOR), tmp_path / "detector"), {}).scores([np.zeros((224, 224), np.uint8)])
    assert score.typer is None


def test_a_trunk_that_computes_something_else_is_another() -> None:
    typer = packed(TYPER)
    another_operator = typer.graph.replace(b"ReduceMean", b"ReduceProd")
    model = _model_class().FromString(typer.graph)
    joined = next(node for node in model.graph.node if node.name == "/Div")
    joined.input[:] = joined.input[::-1]
    for graph in (another_operator, model.SerializeToString()):
        assert graph != typer.graph
        assert join_graphs(packed(DETECTOR), replace(typer, graph=graph)) is None


def test_a_graph_whose_head_has_another_name_is_left_alone() -> None:
    other = replace(packed(TYPER), graph=packed(TYPER).graph.replace(b"head.weight", b"last.weight"))
    assert join_graphs(packed(DETECTOR), other) is None
    assert join_graphs(other, other) is None


def test_only_the_head_may_differ_and_names_do_not_count() -> None:
    typer = packed(TYPER)
    renamed = replace(typer, graph=typer.graph.replace(b"/_conv_head/Conv", b"/_conv_HEAD/Conv"))
    for other in (with_another(typer, "head.weight"), renamed):
        assert join_graphs(packed(DETECTOR), other) is not None
    # The same bytes each time, as anything that answers a patient.
    assert join_graphs(packed(DETECTOR), typer) == join_graphs(packed(DETECTOR), typer)
