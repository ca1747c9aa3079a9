"""Where a dataset's films come from: a folder, or a manifest in the object store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from pneumoserve.canonical import digest_of
from pneumoserve.imaging import ImageError
from pneumoserve.imaging.prepare import prepare
from pneumoserve.release.data import Item, LabelledFilm, film_key
from pneumoserve.store import S3Settings, S3Store
from training.dataset import Dataset, DatasetError, dataset_from_manifest, dataset_of, films_in, item_of
from training.progress import track

Read = Callable[[LabelledFilm], bytes]


def open_dataset(where: str) -> tuple[Dataset, Read]:
    """The dataset at `where` and how to read a film of it.

    `where` is a folder of films, or the manifest of an ingested dataset: `s3://bucket/…/<digest>.json`, or a file of a
    copy of that (films in `images/sha256/` beside it).

    Raises:
        DatasetError: where there is none, or it is not usable.
    """
    if where.startswith("s3://"):
        return _from_store(where)
    directory = Path(where)
    if directory.is_file():
        folder = directory.parent
        return _of_manifest(directory.read_bytes(), lambda key: (folder / key).read_bytes(), "")
    if not directory.is_dir():
        raise DatasetError(f"There is no folder {directory.name}; give a folder of films or an s3:// manifest.")
    paths: dict[str, Path] = {}
    items = []
    for path, origin in films_in(directory):
        digest = digest_of(path.read_bytes())
        paths.setdefault(digest, path)
        items.append(item_of(origin, digest))
    return dataset_of(items), lambda item: paths[item.sha256].read_bytes()


def bucket_and_key(url: str) -> tuple[str, str]:
    """Bucket and key of an `s3://bucket/key` address.

    Raises:
        DatasetError: where the address names no bucket.
    """
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc:
        raise DatasetError("Give an address such as s3://pneumoserve/datasets.")
    return parts.netloc, parts.path.strip("/")


def _from_store(url: str) -> tuple[Dataset, Read]:
    bucket, key = bucket_and_key(url)
    store = S3Store(S3Settings.from_env().in_bucket(bucket), patient=True)
    return _of_manifest(store.get(key), store.get, key.rpartition("/")[0])


def _of_manifest(manifest: bytes, get: Callable[[str], bytes], prefix: str) -> tuple[Dataset, Read]:
    dataset = dataset_from_manifest(manifest)

    def read(item: LabelledFilm) -> bytes:
        data = get(film_key(prefix, item.sha256))
        if digest_of(data) != item.sha256:
            raise DatasetError(f"The film {item.name} is not what the manifest says; ingest it again.")
        return data

    return dataset, read


@dataclass(frozen=True)
class Films:
    """Films and their prepared pixels, uint8 [N, 224, 224]."""

    items: Sequence[LabelledFilm]
    pixels: npt.NDArray[np.uint8]

    def of(self, items: list[Item]) -> Films:
        """Some of them."""
        places = {item.sha256: place for place, item in enumerate(self.items)}
        return Films(items, self.pixels[[places[item.sha256] for item in items]])

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each film's pixels, by that of its file."""
        return {item.sha256: digest_of(film.tobytes()) for item, film in zip(self.items, self.pixels, strict=True)}


def read_films(items: Sequence[LabelledFilm], read: Read, label: str) -> Films:
    """Films with their prepared pixels; a progress bar of that label shows how many are read.

    Raises:
        DatasetError: where a film cannot be decoded.
    """
    pixels = []
    for item in track(items, label):
        try:
            pixels.append(prepare(read(item)).pixels)
        except ImageError as error:
            raise DatasetError(f"The film {item.name} cannot be read ({error}); remove it or ingest again.") from error
    return Films(items, np.stack(pixels))
