"""Images of a few files, from nothing: a docker archive is a tar of a layer, a config and a manifest."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Image:
    """An image that holds `files` (path in the image: path here), all of them executable."""

    name: str
    files: dict[str, Path]
    entrypoint: tuple[str, ...]
    user: str = "65532:65532"

    def write(self, archive: Path) -> None:
        """Write it as a docker archive; the same files give the same image."""
        layer = self._layer()
        config = json.dumps(self._config(hashlib.sha256(layer).hexdigest())).encode()
        config_name = f"{hashlib.sha256(config).hexdigest()}.json"
        manifest = [{"Config": config_name, "RepoTags": [self.name], "Layers": ["layer.tar"]}]
        with tarfile.open(archive, "w") as tar:
            for name, data in (
                (config_name, config),
                ("layer.tar", layer),
                ("manifest.json", json.dumps(manifest).encode()),
            ):
                _add(tar, name, data)

    def _layer(self) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for folder in sorted(
                {str(parent)[1:] for path in self.files for parent in Path(path).parents} - {""} | {"tmp"}
            ):
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
                tar.addfile(entry)
            for path, source in sorted(self.files.items()):
                _add(tar, path.lstrip("/"), source.read_bytes())
        return buffer.getvalue()

    def _config(self, layer: str) -> dict[str, Any]:
        config = {"Entrypoint": list(self.entrypoint), "User": self.user, "Env": ["PATH=/usr/local/bin:/"]}
        return {
            "architecture": "amd64",
            "os": "linux",
            # Another name is another image: one that the kubelet pulled once it wants to pull under each name.
            "config": {**config, "Labels": {"org.opencontainers.image.title": self.name}},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}"]},
        }


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o755
    tar.addfile(entry, io.BytesIO(data))
