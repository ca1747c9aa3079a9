"""Copying a folder of films into the object store, as a dataset whose manifest names every film by its digest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.progress import track

from pneumoserve.archive.store import ObjectStore, S3Settings
from pneumoserve.image import ImageError, prepare
from pneumoserve.release.data import Item, film_key
from pneumoserve.release.schema import digest_of
from training.dataset import DatasetError, dataset_of, films_in, split_of
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
    store = ObjectStore(settings.in_bucket(bucket), patient=True)
    store.ensure_bucket()
    items: list[Item] = []
    broken: dict[str, str] = {}
    added = 0
    for path, cls, patient in track(films_in(directory), "ingesting", transient=True):
        data = path.read_bytes()
        try:
            prepare(data)
        except ImageError as error:
            broken[path.relative_to(directory).as_posix()] = str(error)
            continue
        digest = digest_of(data)
        items.append(Item(digest, cls, patient, split_of(patient), path.name))
        added += _added(store, film_key(prefix, digest), data)
    if not items:
        name, reason = next(iter(broken.items()))
        raise DatasetError(f"None of the {len(broken)} films can be read; {name}, for one: {reason}")
    dataset = dataset_of(items)
    key = f"{prefix}/{dataset.digest}.json".lstrip("/")
    _added(store, key, dataset.manifest)
    return IngestReport(len(dataset.items), added, broken, dataset.digest, f"s3://{bucket}/{key}")


def _added(store: ObjectStore, key: str, data: bytes) -> bool:
    if store.exists(key):
        return False
    store.put(key, data, "application/octet-stream")
    return True
