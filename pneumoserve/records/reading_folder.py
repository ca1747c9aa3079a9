"""A folder for a human who reads: the films that are asked to be read, and a sheet of labels to fill in."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pneumoserve.ledger import Reader
from pneumoserve.records.find import find_records
from pneumoserve.records.label import LABEL_COLUMNS
from pneumoserve.records.record import ImageDetail
from pneumoserve.store import NotFoundError

READING_SHEET: Final = "labels.csv"
_ENDINGS: Final = {"jpeg": "jpeg", "png": "png", "dicom": "dcm"}


def write_reading_folder(reader: Reader, studies: Sequence[Sequence[str]], folder: Path) -> list[str]:
    """Write a new folder of films and their sheet; returns the predictions whose films the store no longer has.

    A study is its predictions; all their films begin with the id of the first one, which the sheet has. A study of
    which any film is gone is not in the sheet.

    Raises:
        FileExistsError: the folder is there: a sheet that somebody has begun to fill in is never written over.
        StoreError: the store does not answer.
    """
    folder.mkdir(parents=True)
    records = find_records(reader, [each for study in studies for each in study])
    gone: list[str] = []
    with (folder / READING_SHEET).open("x", encoding="utf-8", newline="") as text:
        sheet = csv.DictWriter(text, LABEL_COLUMNS, restval="")
        sheet.writeheader()
        for study in studies:
            images = [records[each].image if each in records else None for each in study]
            films = [None if image is None else _get_film(reader, image) for image in images]
            missing = [each for each, film in zip(study, films, strict=True) if film is None]
            gone += missing
            if missing:
                continue
            for number, (image, film) in enumerate(zip(images, films, strict=True), 1):
                if image is not None and film is not None:
                    name = study[0] if number == 1 else f"{study[0]}-{number}"
                    (folder / f"{name}.{_ENDINGS[image.format]}").write_bytes(film)
            sheet.writerow({"prediction_id": study[0], "source": "radiologist"})
    return gone


def _get_film(reader: Reader, image: ImageDetail) -> bytes | None:
    try:
        return reader.store.get(image.stored_key)
    except NotFoundError:
        return None
