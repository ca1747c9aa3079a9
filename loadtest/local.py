"""`make load`: start the local stack on the reference release in a temporary state, load it, stop all of it.

Takes the options of `python -m loadtest`, but for where the service is.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from loadtest.__main__ import options
from pneumoserve.local.demo import serving


def main() -> int:
    """Serve, load, stop; the load's exit code."""
    # Wrong options are refused before anything is started.
    options().parse_args(["--url", "http://127.0.0.1", *sys.argv[1:]])
    # However it is ended, the stack ends too.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="pneumoserve-load-") as folder, serving(Path(folder) / "state", None) as at:
        # A process of its own: locust patches the standard library, and the stack's keeper must not be patched.
        command = [sys.executable, "-m", "loadtest", "--url", at["url"], "--grpc", at["grpc"], *sys.argv[1:]]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
