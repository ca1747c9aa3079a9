"""Entry point of the kserve-container: verify the release, then become TorchServe."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pneumoserve.models.torchserve import Ports, command, environment, prepare_folder
from pneumoserve.release import ReleaseError, verify
from pneumoserve.termination import tell


def main(arguments: list[str] | None = None) -> int:
    """Replace this process by TorchServe's Java; 1 where the release is refused."""
    options = _parser().parse_args(arguments)
    try:
        release = verify(options.release.resolve(), options.trust)
    except ReleaseError as error:
        tell(str(error))
        return 1
    work = options.work_dir.resolve()
    ports = Ports(
        options.inference_port,
        options.management_port,
        options.metrics_port,
        options.grpc_inference_port,
        options.grpc_management_port,
    )
    prepare_folder(release, work, ports, options.workers)
    words = command(release, work)
    sys.stdout.flush()
    os.chdir(work)
    # TorchServe's launcher would stay the parent, and a SIGTERM to it would orphan Java with its ports open.
    return os.execve(words[0], words, environment(work, options.gpu))  # noqa: S606


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pneumoserve.models",
        description="Verify a release and serve its two models by TorchServe, on loopback only.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--release", type=Path, default=Path("/mnt/models"), help="folder of the release")
    parser.add_argument("--trust", type=Path, default=Path("/etc/pneumoserve/trust"), help="folder of trusted keys")
    parser.add_argument("--inference-port", type=int, default=8085, help="TorchServe's inference port")
    parser.add_argument("--management-port", type=int, default=8086, help="TorchServe's management port")
    parser.add_argument("--metrics-port", type=int, default=8087, help="TorchServe's metrics port")
    parser.add_argument("--grpc-inference-port", type=int, default=7070, help="TorchServe's gRPC inference port")
    parser.add_argument("--grpc-management-port", type=int, default=7071, help="TorchServe's gRPC management port")
    parser.add_argument("--workers", type=int, default=1, help="workers of each model")
    parser.add_argument("--work-dir", type=Path, default=Path("/tmp/torchserve"), help="where it may write")  # noqa: S108
    parser.add_argument("--gpu", action="store_true", help="use torch on the GPUs TorchServe finds")
    return parser


if __name__ == "__main__":
    sys.exit(main())
