"""What a node is made of, built once and kept outside the checkout, by version."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

MODULES: Final = Path(__file__).with_name("modules")
Say = Callable[[str], None]


class ClusterError(RuntimeError):
    """The node cannot be made or started; the text says what to do."""


def cache_folder() -> Path:
    """Where builds are kept: CLUSTER_CACHE, else below the user's cache folder."""
    if given := os.environ.get("CLUSTER_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pneumoserve-cluster"


def image_store() -> Path:
    """Where buildah keeps images and the layers of earlier builds."""
    return cache_folder() / "containers"


def go_binaries(name: str, say: Say) -> Path:
    """The folder of a Go module's tools, built from its committed folder where the cache has none.

    Raises:
        ClusterError: there is no Go, or a build failed.
    """
    source = MODULES / name
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(source.iterdir()))).hexdigest()[:12]
    target = cache_folder() / "go" / f"{name}-{key}"
    if target.is_dir():
        return target
    if shutil.which("go") is None:
        raise ClusterError("There is no Go to build the node with; install Go 1.26, or give KUBECONFIG of a cluster.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        _alone(target.with_suffix(".lock")),
        tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as temporary,
    ):
        if target.is_dir():
            return target
        folder = Path(shutil.copytree(source, Path(temporary) / "module"))
        flags = (folder / "ldflags").read_text().strip() if (folder / "ldflags").exists() else ""
        described = json.loads(run(["go", "mod", "edit", "-json"], folder=folder))
        for tool in described["Tool"]:
            say(f"building {tool['Path']} (minutes, the first time)")
            out = Path(temporary) / "bin" / tool["Path"].rpartition("/")[2]
            build = ["go", "build", "-trimpath", f"-ldflags=-s -w {flags}", "-o", str(out), tool["Path"]]
            run(build, folder=folder, CGO_ENABLED="0")
        (Path(temporary) / "bin").rename(target)
    return target


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait for other processes that build the same; ended ones, killed ones too, hold nothing."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(command: list[str], given: str | None = None, folder: Path | None = None, **environment: str) -> str:
    """What a program prints; `given` is its input, `environment` is added to this process's.

    Raises:
        ClusterError: it failed.
    """
    surroundings = {**os.environ, **environment}
    done = subprocess.run(
        command, input=given, cwd=folder, env=surroundings, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sentence = " ".join(Path(word).name for word in command[:6])
        raise ClusterError(f"`{sentence} …` failed: {(done.stderr or done.stdout).strip()[-1500:]}")
    return done.stdout
