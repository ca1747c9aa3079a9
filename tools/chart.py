"""The chart as one file that any OCI registry takes; the same files give the same bytes."""

from __future__ import annotations

import argparse
import gzip
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from tools.generate.chart_values import CHART
from tools.generate.manifests import find_helm

ROOT: Final = CHART.parents[1]


def package(helm: Path, out: Path) -> Path:
    """Package the chart into a folder, which is made; returns the file.

    Raises:
        subprocess.CalledProcessError: helm does not take the chart.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        command = [str(helm), "package", str(CHART), "--destination", scratch]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (packed,) = Path(scratch).iterdir()
        target = out / packed.name
        target.write_bytes(_without_times(packed.read_bytes()))
    return target


def _without_times(packed: bytes) -> bytes:
    """The same archive, with its files in order of their names; helm writes the time of packaging into each."""
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(packed)) as source,
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as target,
    ):
        for member in sorted(source.getmembers(), key=lambda each: each.name):
            plain = tarfile.TarInfo(member.name)
            plain.size = member.size
            plain.mode = 0o644
            target.addfile(plain, source.extractfile(member))
    return buffer.getvalue()


def main() -> int:
    """Package, and push where a registry is named."""
    parser = argparse.ArgumentParser(prog="python -m tools.chart", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder to package into")
    parser.add_argument("--push", metavar="oci://HOST/PATH", help="where to push the chart; log in by helm first")
    parser.add_argument("--plain-http", action="store_true", help="for a registry without TLS")
    given = parser.parse_args()
    if given.push and not given.push.startswith("oci://"):
        parser.error(f"--push takes an address that begins with oci://, not {given.push}")
    helm = find_helm()
    packed = package(helm, given.out)
    print(packed)
    if given.push is None:
        return 0
    words = ["--plain-http"] if given.plain_http else []
    return subprocess.run([helm, "push", packed, given.push, *words], check=False, stderr=sys.stdout).returncode


if __name__ == "__main__":
    sys.exit(main())
