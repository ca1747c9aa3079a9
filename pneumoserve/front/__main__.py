"""Entry point of the transformer-container: verify the release, then serve."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from pneumoserve.drain import serving
from pneumoserve.errors import PneumoserveError
from pneumoserve.front.settings import FrontSettings
from pneumoserve.imaging.confinement import forbid_tracing
from pneumoserve.logs import set_up_logs
from pneumoserve.termination import explain_end
from pneumoserve.tracing import start_tracing, stop_tracing

if TYPE_CHECKING:
    from pneumoserve.store import Store


def main(arguments: list[str] | None = None, store: Store | None = None) -> int:
    """Serve until a signal; 1 where the release or the archive's settings are refused.

    What is recorded goes to `store`; None: to the one that S3_* variables name.
    """
    settings = FrontSettings.from_flags(arguments)
    set_up_logs()
    # The signing key and the store's credential are in this memory.
    forbid_tracing()
    # KServe's SDK parses sys.argv when it is imported, and reads options of its own from it.
    sys.argv = [sys.argv[0], "--configure_logging=false"]
    from pneumoserve.front.identity import Callers, read_secret  # noqa: PLC0415
    from pneumoserve.front.server import Archiving, FrontServer  # noqa: PLC0415
    from pneumoserve.ledger import Journal, LockRule  # noqa: PLC0415
    from pneumoserve.records import Pseudonyms, load_sealing_key  # noqa: PLC0415
    from pneumoserve.release import verify  # noqa: PLC0415
    from pneumoserve.signing import load_key  # noqa: PLC0415
    from pneumoserve.store import S3Settings, S3Store  # noqa: PLC0415

    try:
        release = verify(settings.release, settings.trust, settings.release_id)
        secret = None if settings.gateway_secret is None else read_secret(settings.gateway_secret)
        archiving = Archiving(
            store or S3Store(S3Settings.from_env()),
            load_key(settings.archive_key),
            Pseudonyms.read(settings.reference_key),
            None if settings.journal is None else Journal(settings.journal, settings.journal_bytes),
            LockRule(settings.lock_days, settings.lock_mode),
            None if settings.envelope_key is None else load_sealing_key(settings.envelope_key),
        )
        start_tracing("pneumoserve-front", release=release.id)
        with serving(settings.drain_lock):
            FrontServer(settings, release, archiving, Callers(settings.subject_header, secret)).run()
            stop_tracing()
    except PneumoserveError as error:
        explain_end(str(error))
        return 1
    return 0


if __name__ == "__main__":
    # The SDK starts threads that outlive a refused start; nothing of theirs is worth waiting for.
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
