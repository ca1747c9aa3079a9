"""Copying a folder of films into the object store, as a dataset whose manifest names every film by its digest.

What is stored is what the front would store of the film: its pixels, and no word about a person. File names stay behind
too; class and patient are read from them here, and from then on a patient is a digest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pneumoserve.imaging import ImageError
from pneumoserve.imaging.prepare import prepare
from pneumoserve.release.data import Item, film_key
from pneumoserve.store import S3Settings, S3Store, Store
from training.dataset import DatasetError, anonymous_item_of, dataset_of, films_in
from training.progress import track
from training.source import bucket_and_key


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did: films in the dataset, films that were new to the store, and broken files, by
    their path below the folder, with the reason.

    `manifest` is the s3:// address of the dataset, `digest` its digest.
    """

    films: int
    added: int
    broken: dict[str, str]
    digest: str
    manifest: str


def ingest(directory: Path, to: str, settings: S3Settings) -> IngestReport:
    """Copy the films of a folder to `to` (s3://bucket/prefix); what is there already is not written again.

    Raises:
        DatasetError: no film that can be read, one film in two classes, or an address without a bucket.
        StoreError: the store does not take them.
    """
    bucket, prefix = bucket_and_key(to)
    store = S3Store(settings.in_bucket(bucket), patient=True)
    store.ensure_bucket()
    items: list[Item] = []
    broken: dict[str, str] = {}
    added = 0
    for path, origin in track(films_in(directory), "ingesting"):
        try:
            film = prepare(path.read_bytes())
        except ImageError as error:
            broken[path.relative_to(directory).as_posix()] = str(error)
            continue
        items.append(anonymous_item_of(origin, film.stored_sha256))
        added += _add(store, film_key(prefix, film.stored_sha256), film.stored)
    if not items:
        # A Job's log is read by others than who knows the films' names.
        raise DatasetError(f"None of the {len(broken)} films can be read; the first one: {next(iter(broken.values()))}")
    dataset = dataset_of(items)
    key = f"{prefix}/{dataset.digest}.json".lstrip("/")
    _add(store, key, dataset.manifest)
    return IngestReport(len(dataset.items), added, broken, dataset.digest, f"s3://{bucket}/{key}")


def _add(store: Store, key: str, data: bytes) -> bool:
    if store.exists(key):
        return False
    store.put(key, data, "application/octet-stream")
    return True
