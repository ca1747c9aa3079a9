"""From a trained network to what is served: weights once, as safetensors, and an ONNX graph that refers to them."""

from __future__ import annotations

import io
import json
import os
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pneumoserve.models.network import Classifier, ThreeHeads
from pneumoserve.names import DETECTOR, TYPER
from training.progress import track
from training.scores import Scores
from training.source import Films

_OPSET: Final = 17


class AllHeads(nn.Module):
    """A network to be exported whole: one graph that answers all questions of a film for the price of one trunk."""

    outputs = ("detector", "typer", "chest")

    def __init__(self, network: ThreeHeads) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The logits of `outputs`, each of shape [N], for prepared pixels uint8 [N, 224, 224]."""
        logits: tuple[Tensor, Tensor, Tensor] = self.network(pixels)
        return logits


def export(network: Classifier | AllHeads, folder: Path, name: str) -> tuple[Path, Path]:
    """Write `<name>.safetensors` and `<name>.onnx` and return both paths.

    The graph takes uint8 [N, 224, 224] and gives logits [N], those of each head that the network has. Its weights are
    ONNX external data: offsets into the safetensors file beside it, so that ONNX Runtime and torch read the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights, graph = folder / f"{name}.safetensors", folder / f"{name}.onnx"
    network = network.cpu().eval()
    save_file({key: value.contiguous().clone() for key, value in network.state_dict().items()}, weights)
    model = _trace(network)
    _refer(model, weights)
    graph.write_bytes(model.SerializeToString(deterministic=True))
    return weights, graph


def score(graphs: dict[str, Graph], films: Films, label: str) -> Scores:
    """Both models' logits of films; of a model without a gate every film is a chest film."""
    detector, *gate = graphs[DETECTOR].outputs(films.pixels, label)
    (typer,) = graphs[TYPER].outputs(films.pixels, label)
    chest = gate[0] if gate else np.full(len(films.items), np.inf, dtype=np.float32)
    return Scores(films.items, detector, typer, chest)


def _trace(network: Classifier | AllHeads) -> Any:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The TorchScript exporter is deprecated, and the only one whose graph keeps the state's names.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(1, 224, 224, dtype=torch.uint8),),
            buffer,  # type: ignore[arg-type] # it takes one, its stub says otherwise
            input_names=["pixels"],
            output_names=list(network.outputs),
            dynamic_axes={name: {0: "n"} for name in ("pixels", *network.outputs)},
            opset_version=_OPSET,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            dynamo=False,
        )
    return onnx.load_model_from_string(buffer.getvalue())


def _refer(model: Any, weights: Path) -> None:
    """Replace each initializer that the safetensors file holds by a reference into that file."""
    places = _tensor_places(weights)
    for tensor in model.graph.initializer:
        if tensor.name not in places:
            continue
        offset, length = places[tensor.name]
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        del tensor.external_data[:]
        for key, value in (("location", weights.name), ("offset", str(offset)), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)


def _tensor_places(weights: Path) -> dict[str, tuple[int, int]]:
    """Offset and length in bytes of each tensor (safetensors format: 8-byte length, JSON header, data)."""
    with weights.open("rb") as file:
        (header_length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(header_length))
    start = 8 + header_length
    return {
        name: (start + entry["data_offsets"][0], entry["data_offsets"][1] - entry["data_offsets"][0])
        for name, entry in header.items()
        if name != "__metadata__"
    }


class Graph:
    """An exported model in ONNX Runtime on the CPU; each film runs alone on one thread, as in serving."""

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def outputs(self, pixels: npt.NDArray[np.uint8], label: str) -> npt.NDArray[np.float32]:
        """What the graph gives for prepared pixels [N, 224, 224], one row for each of its outputs; with progress."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
            rows = list(track(threads.map(self._run, pixels), label, len(pixels)))
        return np.array(rows, dtype=np.float32).reshape(len(pixels), -1).T

    def _run(self, film: npt.NDArray[np.uint8]) -> list[float]:
        return [float(values[0]) for values in self._session.run(None, {"pixels": film[None]})]
