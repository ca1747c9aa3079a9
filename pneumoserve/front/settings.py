"""The front's settings. Nothing of KServe's is imported here: its SDK reads the command line when it is imported."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_settings import SettingsConfigDict

from pneumoserve.front.cors import check_origin
from pneumoserve.models.exchange import SOCKETS
from pneumoserve.names import ModelServer
from pneumoserve.settings import ProcessSettings

_KEYS = Path("/etc/pneumoserve")


class FrontSettings(ProcessSettings):
    """Serve a verified release over KServe's V1 and V2 protocols and gRPC.

    The archive's store is read from S3_ENDPOINT, S3_ACCESS_KEY, S3_SECRET_KEY, S3_BUCKET and S3_REGION.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m pneumoserve.front")

    release: Path = Field(Path("/mnt/models"), description="folder of the release")
    release_id: str | None = Field(None, description="id of the release to run; any other is refused")
    trust: Path = Field(_KEYS / "trust", description="folder of trusted keys")
    host: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104 - a pod's own address
    http_port: int = Field(8080, description="port of V1 and V2 REST and health")
    http_socket: int | None = Field(
        None, description="file descriptor of a socket that listens already, in place of the one for --http-port"
    )
    grpc_port: int = Field(8081, description="port of V2 gRPC")
    metrics_port: int = Field(8082, description="port of Prometheus metrics; not for callers")
    proxy: list[IPv4Network | IPv6Network] = Field(
        [],
        description="network, such as 10.0.0.0/8, of a gateway that brings the calls of many; other addresses may hold "
        "64 connections each. May be given repeatedly",
    )
    cors_origin: list[Annotated[str, AfterValidator(check_origin)]] = Field(
        [],
        description="origin of web pages that may call, such as https://pacs.example, or * for all. May be given "
        "repeatedly",
    )
    drain_lock: Path | None = Field(None, description="file to hold a lock on while serving; see pneumoserve.drain")
    archive_key: Path = Field(_KEYS / "archive" / "key.pem", description="private key that signs the archive")
    reference_key: Path = Field(_KEYS / "reference" / "key", description="key that hashes caller's references")
    journal: Path | None = Field(
        None,
        description="folder that takes the store's place while it is away; it must outlive the process. Without one, "
        "calls are refused meanwhile",
    )
    journal_bytes: int = Field(1024**3, description="how much may wait in the journal")
    lock_days: int = Field(
        0, description="days for which nothing that is written can be removed; the bucket must have object lock"
    )
    lock_mode: Literal["GOVERNANCE", "COMPLIANCE"] = Field("GOVERNANCE", description="by whom")
    subject_header: Annotated[str, StringConstraints(to_lower=True)] | None = Field(
        None,
        description="header in which a gateway names the caller it has verified, whatever the caller sent there; calls "
        "without it are refused. Without one, nobody is named",
    )
    gateway_secret: Path | None = Field(
        None,
        description="file with what the gateway sends in Pneumoserve-Gateway, so that --subject-header is believed "
        "from it alone",
    )
    envelope_key: Path | None = Field(
        None,
        description="public key of the alert service, to which practitioner and reference of a call are sealed; calls "
        "that name either are refused without one",
    )
    alert_hint: Annotated[str, StringConstraints(pattern=r"^[^\s/]+:[0-9]{1,5}$")] | None = Field(
        None,
        description="host and UDP port of the alert sender, which looks at once after an answer that may alert",
    )
    engine: ModelServer = Field("torchserve", description="what runs the models; inprocess goes without TorchServe")
    models_sockets: Path = Field(SOCKETS, description="folder of the workers' sockets, of the engine inprocess")
    models_url: str = Field("http://127.0.0.1:8085", description="TorchServe's inference address")
    management_url: str = Field("http://127.0.0.1:8086", description="TorchServe's management address")
    models_metrics_url: str = Field("http://127.0.0.1:8087", description="TorchServe's metrics address")
