"""From a run to a release: two reproducible MARs, the manifest, the model card, the signature."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from datetime import date
from importlib import resources, util
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from pneumoserve.canonical import canonical_json, digest_of
from pneumoserve.errors import PneumoserveError
from pneumoserve.release.card import model_card
from pneumoserve.release.data import LABELS_FILE, MANIFEST_FILE, PIXELS_FILE, DataError, read_data, read_labels
from pneumoserve.release.schema import ModelFacts, ReleaseManifest, RunFacts
from pneumoserve.release.verify import MANIFEST, SIGNATURE, id_of, read_manifest
from pneumoserve.signing import add_signature

_HANDLER: Final = "model_handler.py"
_CONFIG: Final = "config.properties"
# The earliest date a zip can hold: it says nothing, which is what it should say.
_ZIP_DATE: Final = (1980, 1, 1, 0, 0, 0)
_ZIP_MODE: Final = 0o644 << 16


class PackageError(PneumoserveError):
    """A run that cannot be packaged; the text says what to do."""


def package(run: Path, out: Path, key: Ed25519PrivateKey | None) -> Path:
    """Make the release of a run below `out` and return its folder, `out/<id>`; signed unless `key` is None.

    The same run, handlers and version give the same bytes. A release that is there already is replaced by itself, and
    keeps the signatures it has.

    Raises:
        PackageError: the run is unfinished, or its weights or films are not those it states.
    """
    facts = _facts(run)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".package-") as temporary:
        folder = Path(temporary) / "release"
        for model in facts.models:
            _archive(run, model, facts.preprocessing_version, folder / "model-store" / f"{model.name}.mar")
        (folder / "config").mkdir()
        settings = resources.files("pneumoserve.release").joinpath(_CONFIG).read_bytes()
        (folder / "config" / _CONFIG).write_bytes(settings)
        (folder / "MODEL_CARD.md").write_text(model_card(facts), encoding="utf-8")
        (folder / "data").mkdir()
        for name in (MANIFEST_FILE, PIXELS_FILE, *([LABELS_FILE] if facts.recalibration else [])):
            shutil.copyfile(run / name, folder / name)
        if (run / "report").is_dir():
            shutil.copytree(run / "report", folder / "report")
        manifest = canonical_json(_manifest(facts, folder))
        (folder / MANIFEST).write_bytes(manifest)
        target = out / digest_of(manifest)[:12]
        present = _signatures_at(target, manifest)
        if key is not None:
            present = add_signature(manifest, key, present)
        if present is not None:
            (folder / SIGNATURE).write_bytes(present)
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
    return target


def sign(folder: Path, key: Ed25519PrivateKey, expires: date | None = None) -> None:
    """Sign a release: the act of a person or an approving Job.

    Signatures of others stay; `expires` is the last day (UTC) on which this one lets it start.

    Raises:
        ReleaseError: the folder holds no release, or not the one that its name says.
    """
    id_of(folder)
    manifest, _ = read_manifest(folder)
    (folder / SIGNATURE).write_bytes(add_signature(manifest, key, _signatures_at(folder, manifest), expires))


def _signatures_at(folder: Path, manifest: bytes) -> bytes | None:
    """The signature file of a release, None where there is none, or a folder holds another release."""
    path = folder / SIGNATURE
    if not path.is_file() or (folder / MANIFEST).read_bytes() != manifest:
        return None
    return path.read_bytes()


def _facts(run: Path) -> RunFacts:
    try:
        facts = RunFacts.model_validate_json((run / "run.json").read_bytes())
    except OSError:
        raise PackageError(f"{run.name} holds no run.json; finish the training, `pneumoserve train` goes on.") from None
    except ValidationError:
        raise PackageError(
            f"{run.name}/run.json is not of a form this version reads; train with this version."
        ) from None
    for model in facts.models:
        for suffix, digest in (("safetensors", model.weights), ("onnx", model.graph)):
            path = run / "weights" / f"{model.name}.{suffix}"
            if not path.is_file() or digest_of(path.read_bytes()) != digest:
                raise PackageError(
                    f"weights/{path.name} is not the file that run.json states; restore it from the run."
                )
    try:
        read_data(run, facts.data.digest)
        if facts.recalibration is not None:
            read_labels(run, facts.recalibration.labels)
    except DataError as error:
        raise PackageError(f"{run.name} cannot be packaged: {error}; restore it from the run, or train anew.") from None
    return facts


def _manifest(facts: RunFacts, folder: Path) -> ReleaseManifest:
    files = {
        path.relative_to(folder).as_posix(): digest_of(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    stated = facts.model_dump(mode="json", by_alias=True, exclude={"schema_"})
    if facts.recalibration is not None:
        stated["schema"] = facts.schema_.replace(".run/", ".release/")
    return ReleaseManifest.model_validate({**stated, "files": files})


def _archive(run: Path, model: ModelFacts, preprocessing_version: str, target: Path) -> None:
    """Have torch-model-archiver lay the archive out as a folder, then zip it without dates or order of its own."""
    # The command line is in images that package nothing.
    from model_archiver.model_archiver import generate_model_archive  # noqa: PLC0415
    from model_archiver.model_archiver_config import ModelArchiverConfig  # noqa: PLC0415

    weights = run / "weights"
    with tempfile.TemporaryDirectory() as temporary:
        described = Path(temporary) / "model.json"
        described.write_bytes(
            canonical_json({**model.model_dump(mode="json"), "preprocessing_version": preprocessing_version})
        )
        extra = (described, weights / f"{model.name}.onnx", weights / f"{model.name}.safetensors")
        config = ModelArchiverConfig(
            model_name=model.name,
            version=model.version,
            handler=str(_find_handler()),
            extra_files=",".join(map(str, extra)),
            export_path=temporary,
            archive_format="no-archive",
            force=True,
        )
        logging.getLogger().setLevel(logging.WARNING)
        with _temporary_files_in(Path(temporary) / "work"):
            generate_model_archive(config)
        laid_out = Path(temporary) / model.name
        _undate(laid_out / "MAR-INF" / "MANIFEST.json")
        target.parent.mkdir(parents=True, exist_ok=True)
        _zip(laid_out, target)


def _find_handler() -> Path:
    """The handler's file. It is found and not imported: it runs in TorchServe alone."""
    found = util.find_spec("handlers")
    if found is None or found.origin is None:
        raise PackageError("The package `handlers` is missing; install pneumoserve whole.")
    return Path(found.origin).with_name(_HANDLER)


@contextlib.contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Another folder for temporary files.

    torch-model-archiver empties and fills the temporary folder's `<model name>`: another process that packages at the
    same time, or a user who made a link there, would have a part in the release.
    """
    folder.mkdir()
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _undate(manifest: Path) -> None:
    stated: dict[str, Any] = json.loads(manifest.read_text())
    stated["createdOn"] = "01/01/1980 00:00:00"
    manifest.write_bytes(canonical_json(stated))


def _zip(folder: Path, target: Path) -> None:
    """Stored, not deflated: weights do not shrink, and compressors differ between builds of zlib."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _ZIP_DATE)
            entry.external_attr = _ZIP_MODE
            entry.create_system = 3
            archive.writestr(entry, path.read_bytes())
