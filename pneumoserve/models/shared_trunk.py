"""One run for two questions, where a release's detector and typer have the same trunk.

Both MARs hold the trunk, each with its own head. Where the trunks are equal, operator by operator and bit by bit, the
detector's graph takes the typer's head over as one more output. Nothing that is signed changes: this happens in the
worker's memory, from files that were verified.

A graph is read and written as ONNX's protobuf messages, of which only the fields that count here are named; the others
stay as they are (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from __future__ import annotations

import functools
import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# The output of the typer's head in the detector's graph.
TYPER_LOGITS: Final = "typer/logits"
_PREFIX: Final = "typer/"
_HEAD: Final = "head.weight"
_FIELDS: Final = """
name: "pneumoserve/onnx.proto" package: "pneumoserve.onnx" syntax: "proto2"
message_type { name: "Model"
  field { name: "graph" number: 7 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: "Graph" } }
message_type { name: "Graph"
  field { name: "node" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: "Node" }
  field { name: "initializer" number: 5 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: "Tensor" }
  field { name: "input" number: 11 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: "Value" }
  field { name: "output" number: 12 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: "Value" } }
message_type { name: "Node"
  field { name: "input" number: 1 label: LABEL_REPEATED type: TYPE_STRING }
  field { name: "output" number: 2 label: LABEL_REPEATED type: TYPE_STRING }
  field { name: "name" number: 3 label: LABEL_OPTIONAL type: TYPE_STRING } }
message_type { name: "Tensor"
  field { name: "name" number: 8 label: LABEL_OPTIONAL type: TYPE_STRING }
  field { name: "raw_data" number: 9 label: LABEL_OPTIONAL type: TYPE_BYTES }
  field { name: "external_data" number: 13 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: "Entry" }
  field { name: "data_location" number: 14 label: LABEL_OPTIONAL type: TYPE_INT32 } }
message_type { name: "Entry"
  field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
  field { name: "value" number: 2 label: LABEL_OPTIONAL type: TYPE_STRING } }
message_type { name: "Value"
  field { name: "name" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING } }
"""


@dataclass(frozen=True)
class Packed:
    """A model as its MAR holds it: model.json, the ONNX graph, and the safetensors file that the graph refers to."""

    facts: dict[str, Any]
    graph: bytes
    weights: bytes

    @classmethod
    def read_mar(cls, mar: Path, name: str) -> Packed:
        """Read a model from its MAR."""
        with zipfile.ZipFile(mar) as archive:
            facts = json.loads(archive.read("model.json"))
            return cls(facts, archive.read(f"{name}.onnx"), archive.read(f"{name}.safetensors"))

    @classmethod
    def read_folder(cls, folder: Path, name: str) -> Packed:
        """Read a model from the folder of its unpacked MAR."""
        facts = json.loads((folder / "model.json").read_text())
        return cls(facts, (folder / f"{name}.onnx").read_bytes(), (folder / f"{name}.safetensors").read_bytes())


def join_graphs(detector: Packed, typer: Packed) -> bytes | None:
    """The detector's graph with one more output, TYPER_LOGITS, which is the typer's; None where their trunks differ."""
    ours, theirs = _Graph(detector), _Graph(typer)
    if ours.head is None or theirs.head is None or ours.trunk_digest() != theirs.trunk_digest():
        return None
    ours.take_head(theirs)
    return ours.serialized


class _Graph:
    """A graph of a trunk and heads after it; `head` is the place of the first, which has `head.weight`, else None."""

    def __init__(self, packed: Packed) -> None:
        self._model = _model_class().FromString(packed.graph)
        self._graph = self._model.graph
        self._tensors = {tensor.name: _inline(tensor, packed.weights) for tensor in self._graph.initializer}
        self.head = next((index for index, node in enumerate(self._graph.node) if _HEAD in node.input), None)

    @property
    def features(self) -> str:
        """What a trunk gives and heads take."""
        return str(self._graph.node[self.head].input[0])

    @property
    def serialized(self) -> bytes:
        """As ONNX Runtime reads it."""
        return bytes(self._model.SerializeToString(deterministic=True))

    def trunk_digest(self) -> str:
        """SHA-256 of the trunk: its operators, how they are joined, and its weights, whatever any of them is named."""
        told = {value.name: f"input {index}" for index, value in enumerate(self._graph.input)}
        told |= {name: hashlib.sha256(_unnamed(tensor)).hexdigest() for name, tensor in self._tensors.items()}
        whole = hashlib.sha256()
        for number, node in enumerate(self._graph.node[: self.head]):
            bare = _copy(node)
            bare.name = ""
            bare.output[:] = []
            bare.input[:] = [told.get(name, name) for name in node.input]
            told |= {name: f"node {number}, {index}" for index, name in enumerate(node.output)}
            whole.update(hashlib.sha256(bare.SerializeToString(deterministic=True)).digest())
        of_heads = {name for node in self._graph.node[self.head :] for name in node.input}
        weights = sorted(told[name] for name in self._tensors.keys() - of_heads)
        whole.update("".join((told[self.features], *weights)).encode())
        return whole.hexdigest()

    def take_head(self, other: _Graph) -> None:
        """Compute another graph's first output too, from this one's features."""
        output, nodes = other._graph.output[0], other._graph.node[other.head :]
        names = {other.features: self.features, output.name: TYPER_LOGITS}
        for node in nodes:
            taken = _copy(node)
            taken.name = _PREFIX + node.name
            taken.input[:] = [names.get(name, _PREFIX + name) for name in node.input]
            taken.output[:] = [names.get(name, _PREFIX + name) for name in node.output]
            self._graph.node.append(taken)
        for name in sorted({name for node in nodes for name in node.input} & other._tensors.keys()):
            tensor = _copy(other._tensors[name])
            tensor.name = _PREFIX + name
            self._graph.initializer.append(tensor)
        value = _copy(output)
        value.name = TYPER_LOGITS
        self._graph.output.append(value)


def _copy(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _inline(tensor: Any, weights: bytes) -> Any:
    """A copy of a tensor that holds its data itself, in place of where they lie in the file of weights."""
    copy = _copy(tensor)
    if tensor.external_data:
        place = {entry.key: entry.value for entry in tensor.external_data}
        start = int(place["offset"])
        copy.raw_data = weights[start : start + int(place["length"])]
        copy.ClearField("external_data")
        copy.ClearField("data_location")
    return copy


def _unnamed(tensor: Any) -> bytes:
    copy = _copy(tensor)
    copy.ClearField("name")
    return bytes(copy.SerializeToString(deterministic=True))


@functools.cache
def _model_class() -> Any:
    # It comes with ONNX Runtime; who only names a score needs neither.
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format  # noqa: PLC0415

    pool = descriptor_pool.DescriptorPool()
    described = text_format.Parse(_FIELDS, descriptor_pb2.FileDescriptorProto())
    pool.AddSerializedFile(described.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("pneumoserve.onnx.Model"))
