"""Images from Dockerfiles, built by buildah without a daemon and pushed to the node's registry."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.cluster.cache import image_store, run
from tests.support.cluster.node import REGISTRY, Node

_SUITE: Final = "bookworm"
_PACKAGES: Final = ("python3", "python3-venv", "ca-certificates")
# What no image of ours reads; it would be half of the base.
_LEFT_OUT: Final = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/i18n/*")
# This machine's authorities: its way to the package index may end in a proxy that has its own.
_AUTHORITIES: Final = "/etc/ssl/certs:/etc/ssl/certs:ro"


@dataclass(frozen=True)
class Builder:
    """Builds into a store of its own in the cache folder, whose layers are reused by the next build."""

    node: Node

    def image(self, name: str, context: Path, target: str | None = None) -> str:
        """Build an image and push it; returns its reference by digest, as pods name it.

        Raises:
            ClusterError: a step of the Dockerfile failed.
        """
        base = self._base()
        with self.node.timed(f"image {name}"):
            self._buildah(
                *("bud", "--quiet", "--layers", "--isolation", "chroot", "--network", "host"),
                *("--volume", _AUTHORITIES, "--build-arg", f"BASE={base}", "--tag", f"localhost/{name}"),
                *(("--target", target) if target else ()),
                str(context),
            )
            return f"{REGISTRY}/{name}@{self._push(name)}"

    def size(self, name: str) -> str:
        """How large a built image is, uncompressed, as people write it."""
        (image,) = json.loads(self._buildah("images", "--json", "--filter", f"reference=localhost/{name}:latest"))
        return str(image["size"])

    def _push(self, name: str) -> str:
        with tempfile.NamedTemporaryFile(mode="r") as digest:
            target = f"docker://{REGISTRY}/{name}:latest"
            self._buildah(
                *("push", "--quiet", "--tls-verify=false", "--digestfile", digest.name, f"localhost/{name}", target)
            )
            return digest.read().strip()

    def _base(self) -> str:
        """A Debian with Python and little else: what `python:3.11-slim` is where a registry of images is in reach."""
        key = hashlib.sha256(repr((_SUITE, _PACKAGES, _LEFT_OUT)).encode()).hexdigest()[:12]
        name = f"localhost/base:{key}"
        if self._buildah("images", "--quiet", "--filter", f"reference={name}"):
            return name
        with self.node.timed("base image"), tempfile.TemporaryDirectory() as temporary:
            archive = Path(temporary) / "base.tar"
            without = [f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT]
            packages = f"--include={','.join(_PACKAGES)}"
            run(["mmdebstrap", "--quiet", "--variant=minbase", packages, *without, _SUITE, str(archive)])
            container = self._buildah("from", "scratch")
            self._buildah("add", "--quiet", container, str(archive), "/")
            self._buildah("config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin", container)
            self._buildah("commit", "--quiet", "--rm", container, name)
        return name

    def _buildah(self, *words: str) -> str:
        image_store().mkdir(parents=True, exist_ok=True)
        places = ["--root", str(image_store()), "--runroot", str(self.node.folder / "run" / "buildah")]
        # Inside the node's network for the registry; what a Dockerfile downloads needs the machine's own.
        network = self.node.inside if words[0] == "push" else []
        return run([*network, "buildah", *places, *words]).strip()
