"""Entry point of the kserve-container: verify the release, then become TorchServe, or start workers without it."""

from __future__ import annotations

import os
import sys

from pneumoserve.logs import set_up_logs
from pneumoserve.models.settings import ModelsSettings
from pneumoserve.models.torchserve import Ports, command, environment, prepare_folder
from pneumoserve.models.workers import run_workers
from pneumoserve.release import ReleaseError, verify
from pneumoserve.termination import explain_end


def main(arguments: list[str] | None = None) -> int:
    """Replace this process by TorchServe's Java, or run workers until a signal; 1 where the release is refused."""
    settings = ModelsSettings.from_flags(arguments)
    set_up_logs()
    try:
        release = verify(settings.release.resolve(), settings.trust, settings.release_id)
    except ReleaseError as error:
        explain_end(str(error))
        return 1
    # Not resolved: it may be a short link, made because the name of a socket must be short.
    work = settings.work_dir.absolute()
    if settings.engine == "inprocess":
        return run_workers(release, settings.sockets.absolute(), work, settings.workers)
    ports = Ports(
        settings.inference_port,
        settings.management_port,
        settings.metrics_port,
        settings.grpc_inference_port,
        settings.grpc_management_port,
    )
    prepare_folder(release, work, ports, settings.workers)
    words = command(release, work)
    sys.stdout.flush()
    os.chdir(work)
    # TorchServe's launcher would stay the parent, and a SIGTERM to it would orphan Java with its ports open.
    return os.execve(words[0], words, environment(release, work, settings.gpu))  # noqa: S606


if __name__ == "__main__":
    sys.exit(main())
