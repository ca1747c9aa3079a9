"""Running a model: ONNX Runtime on the CPU, torch on a GPU; at one fixed shape, so an answer has no neighbours."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pneumoserve.models.architecture import Architecture
from pneumoserve.models.shared_trunk import TYPER_LOGITS, Packed, join_graphs

Pixels = npt.NDArray[np.uint8]
Profile = dict[str, str | int]

# The widest instruction set decides which kernels a library picks, and so the last bits of a sum.
_INSTRUCTION_SETS: Final = ("amx_tile", "avx512_vnni", "avx512f", "avx2", "avx", "asimd", "sse4_2")
# A GPU runs every batch at this size, padded: kernels are chosen by shape.
_GPU_BATCH: Final = 8
# What a graph's outputs are, by their names.
_FIELDS: Final = {"logits": "logit", "chest_logits": "chest_logit", TYPER_LOGITS: "typer_logit"}


class Raw(NamedTuple):
    """What a network gives for one film: the logit of its question, and those of the gate and the typer it has too."""

    logit: float
    chest_logit: float | None = None
    typer_logit: float | None = None


class Engine(Protocol):
    """Runs prepared films through a network, and says how they were computed."""

    profile: Profile

    def outputs(self, films: Sequence[Pixels]) -> list[Raw]:
        """What the network gives for each film of shape [224, 224]."""
        ...


class OnnxEngine:
    """ONNX Runtime, one thread, one film a run.

    A detector answers for `typer` in the same run, where both have the same trunk.
    """

    def __init__(self, folder: Path, name: str, typer: Packed | None = None) -> None:
        import onnxruntime as ort  # noqa: PLC0415 - the GPU image has none

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        graph: Path | bytes = folder / f"{name}.onnx"
        joined = None if typer is None else join_graphs(Packed.read_folder(folder, name), typer)
        if joined is not None:
            graph = joined
            # A graph that is given as bytes says nothing of where the weights lie that it refers to.
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._fields = [_FIELDS[output.name] for output in self._session.get_outputs()]
        self.profile: Profile = {"engine": "onnxruntime", "engine_version": ort.__version__, "threads": 1, **_cpu()}

    def outputs(self, films: Sequence[Pixels]) -> list[Raw]:
        """What the network gives for each film of shape [224, 224]."""
        return [self._run(film) for film in films]

    def _run(self, film: Pixels) -> Raw:
        outputs = self._session.run(None, {"pixels": film[None]})
        return Raw(**{field: float(values[0]) for field, values in zip(self._fields, outputs, strict=True)})


class TorchEngine:
    """torch, from the same weights, in batches of one fixed size."""

    def __init__(self, folder: Path, name: str, architecture: Architecture, device: str) -> None:
        import torch  # noqa: PLC0415 - the CPU image has none
        from safetensors.torch import load_file  # noqa: PLC0415

        from pneumoserve.models.network import Classifier, GatedClassifier  # noqa: PLC0415

        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        self._torch = torch
        self._device = device
        state = load_file(folder / f"{name}.safetensors")
        self._network = (GatedClassifier if "gate.weight" in state else Classifier)(architecture)
        self._network.load_state_dict(state)
        self._network.to(device).eval()
        unit = torch.cuda.get_device_name(device) if device != "cpu" else "cpu"
        self.profile: Profile = {
            "engine": "torch",
            "engine_version": torch.__version__,
            "device": unit,
            "batch": _GPU_BATCH,
            **_cpu(),
        }

    def outputs(self, films: Sequence[Pixels]) -> list[Raw]:
        """What the network gives for each film of shape [224, 224]."""
        answers: list[Raw] = []
        for start in range(0, len(films), _GPU_BATCH):
            part = films[start : start + _GPU_BATCH]
            padded = np.zeros((_GPU_BATCH, *part[0].shape), dtype=np.uint8)
            padded[: len(part)] = part
            with self._torch.inference_mode():
                output = self._network(self._torch.from_numpy(padded).to(self._device))
            columns = output if isinstance(output, tuple) else (output,)
            rows = zip(*(column.cpu().double().tolist() for column in columns), strict=True)
            answers += [_raw(row) for row in rows][: len(part)]
        return answers


def _raw(values: Iterable[float]) -> Raw:
    logit, *gate = values
    return Raw(logit, gate[0] if gate else None)


def engine_for(
    folder: Path, name: str, architecture: str, properties: dict[str, Any], typer: Packed | None = None
) -> Engine:
    """The engine for what TorchServe gave this worker: a GPU or none.

    On the CPU a detector answers for `typer` too, where both have the same trunk.

    Raises:
        RuntimeError: a GPU runs the code of this version, which does not know the network.
    """
    gpu = properties.get("gpu_id")
    if gpu is None:
        return OnnxEngine(folder, name, typer)
    try:
        known = Architecture.parse(architecture)
    except ValueError as error:
        raise RuntimeError(f"{error} Run it with the models image of its release's version, or on the CPU.") from None
    return TorchEngine(folder, name, known, f"cuda:{gpu}")


def _cpu() -> Profile:
    """Which processor, as far as it decides bits."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
    except OSError:
        return {"isa": platform.machine()}
    cpu = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set((cpu.get("flags") or cpu.get("Features") or "").split())
    isa = next((name for name in _INSTRUCTION_SETS if name in flags), platform.machine())
    return {
        "isa": isa,
        "cpu": f"{cpu.get('vendor_id', platform.machine())}-{cpu.get('cpu family', '')}-{cpu.get('model', '')}",
    }
