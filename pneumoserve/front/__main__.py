"""Entry point of the transformer-container: verify the release, then serve."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pneumoserve.drain import serving
from pneumoserve.termination import tell


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; 1 where the release or the archive's settings are refused."""
    options = _parser().parse_args(arguments)
    # KServe's SDK parses sys.argv when it is imported, and reads options of its own from it.
    sys.argv = sys.argv[:1]
    from pneumoserve.archive.journal import Journal  # noqa: PLC0415
    from pneumoserve.archive.references import ReferenceKeyError, References  # noqa: PLC0415
    from pneumoserve.archive.store import StoreError  # noqa: PLC0415
    from pneumoserve.archive.writer import LockRule  # noqa: PLC0415
    from pneumoserve.front.callers import Callers  # noqa: PLC0415
    from pneumoserve.front.server import Archiving, FrontServer, Settings  # noqa: PLC0415
    from pneumoserve.release import ReleaseError, verify  # noqa: PLC0415
    from pneumoserve.release.signing import KeyFileError, load_key  # noqa: PLC0415

    try:
        release = verify(options.release, options.trust)
        settings = Settings(
            options.host,
            options.http_port,
            options.grpc_port,
            options.models_url,
            options.management_url,
            Callers(options.subject_header),
        )
        archiving = Archiving(
            load_key(options.archive_key),
            References.of_file(options.reference_key),
            None if options.journal is None else Journal(options.journal, options.journal_bytes),
            LockRule(options.lock_days, options.lock_mode),
        )
        with serving(options.drain_lock):
            FrontServer(settings, release, archiving).run()
    except (ReleaseError, StoreError, KeyFileError, ReferenceKeyError) as error:
        tell(str(error))
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pneumoserve.front",
        description="Serve a verified release over KServe's V1 and V2 protocols and gRPC. The archive's store is read "
        "from S3_ENDPOINT, S3_ACCESS_KEY, S3_SECRET_KEY, S3_BUCKET and S3_REGION.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--release", type=Path, default=Path("/mnt/models"), help="folder of the release")
    parser.add_argument("--trust", type=Path, default=Path("/etc/pneumoserve/trust"), help="folder of trusted keys")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on")  # noqa: S104 - a pod's own address
    parser.add_argument("--http-port", type=int, default=8080, help="port of V1 and V2 REST, metrics and health")
    parser.add_argument("--grpc-port", type=int, default=8081, help="port of V2 gRPC")
    parser.add_argument(
        "--drain-lock", type=Path, default=None, help="file to hold a lock on while serving; see pneumoserve.drain"
    )
    keys = Path("/etc/pneumoserve")
    parser.add_argument(
        "--archive-key", type=Path, default=keys / "archive" / "key.pem", help="private key that signs the archive"
    )
    parser.add_argument(
        "--reference-key", type=Path, default=keys / "reference" / "key", help="key that hashes caller's references"
    )
    parser.add_argument(
        "--journal", type=Path, default=None, help="folder that takes the store's place while it is away; it must "
        "outlive the process. Without one, calls are refused meanwhile",
    )  # fmt: skip
    parser.add_argument("--journal-bytes", type=int, default=1024**3, help="how much may wait in the journal")
    parser.add_argument(
        "--lock-days", type=int, default=0, help="days for which nothing that is written can be removed; the bucket "
        "must have object lock",
    )  # fmt: skip
    parser.add_argument("--lock-mode", choices=["GOVERNANCE", "COMPLIANCE"], default="GOVERNANCE", help="by whom")
    parser.add_argument(
        "--subject-header", type=str.lower, default=None, help="header in which a gateway names the caller it has "
        "verified, whatever the caller sent there; calls without it are refused. Without one, nobody is named",
    )  # fmt: skip
    parser.add_argument("--models-url", default="http://127.0.0.1:8085", help="TorchServe's inference address")
    parser.add_argument("--management-url", default="http://127.0.0.1:8086", help="TorchServe's management address")
    return parser


if __name__ == "__main__":
    # The SDK starts threads that outlive a refused start; nothing of theirs is worth waiting for.
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
