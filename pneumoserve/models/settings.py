"""Settings of the models container."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from pneumoserve.models.exchange import SOCKETS
from pneumoserve.names import ModelServer
from pneumoserve.settings import ProcessSettings


class ModelsSettings(ProcessSettings):
    """Verify a release and serve its two models, by TorchServe on loopback or by workers on Unix sockets."""

    model_config = SettingsConfigDict(cli_prog_name="python -m pneumoserve.models")

    release: Path = Field(Path("/mnt/models"), description="folder of the release")
    release_id: str | None = Field(None, description="id of the release to run; any other is refused")
    trust: Path = Field(Path("/etc/pneumoserve/trust"), description="folder of trusted keys")
    engine: ModelServer = Field("torchserve", description="what runs the models; inprocess goes without TorchServe")
    sockets: Path = Field(SOCKETS, description="folder of the sockets of the engine inprocess")
    inference_port: int = Field(8085, description="TorchServe's inference port")
    management_port: int = Field(8086, description="TorchServe's management port")
    metrics_port: int = Field(8087, description="TorchServe's metrics port")
    grpc_inference_port: int = Field(7070, description="TorchServe's gRPC inference port")
    grpc_management_port: int = Field(7071, description="TorchServe's gRPC management port")
    workers: int = Field(1, description="workers of each model; of the engine inprocess, each has both")
    work_dir: Path = Field(Path("/tmp/torchserve"), description="where it may write")  # noqa: S108
    gpu: bool = Field(False, description="use torch on the GPUs TorchServe finds")

    @model_validator(mode="after")
    def _check_gpu(self) -> Self:
        if self.gpu and self.engine == "inprocess":
            raise ValueError("--gpu goes with --engine torchserve; the engine inprocess runs on the CPU.")
        return self
