"""Files the tests need that no sample holds: made here, from a real film where it matters."""

from __future__ import annotations

import io
from pathlib import Path

import piexif
import pydicom
from PIL import Image, ImageOps, PngImagePlugin
from pydicom.dataset import Dataset

SAMPLE = Path(__file__).parents[1] / "data" / "xray-sample"
CHEST_DICOM = SAMPLE / "dicom" / "RG1_J2KI.dcm"
LEG_DICOM = SAMPLE / "dicom" / "RG3_J2KI.dcm"

# Words that stand for a patient; no output of the product may hold one.
PLANTED = ("Mustermann", "19991231-PID", "ACC-77-4711", "Dr. Planted", "1.2.826.0.1.3680043.9.9999.42")


def sample_films() -> list[Path]:
    """The sample's 224 px films, in a fixed order."""
    return sorted(path for folder in ("normal", "bacteria", "virus") for path in (SAMPLE / folder).iterdir())


def truth(path: Path) -> str:
    """What the sample's label says of a film: normal, bacterial or viral."""
    return {"normal": "normal", "bacteria": "bacterial", "virus": "viral"}[path.parent.name]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """An image as a file of some kind."""
    out = io.BytesIO()
    image.save(out, kind, **options)  # type: ignore[arg-type]
    return out.getvalue()


def film_image() -> Image.Image:
    """One of the sample's films, decoded."""
    with Image.open(sample_films()[0]) as image:
        return image.convert("L")


def jpeg_of(width: int, height: int) -> bytes:
    """A plain gray JPEG of any size."""
    return encoded(Image.new("L", (width, height), 90), "JPEG")


def jpeg_with_texts(orientation: int = 1) -> bytes:
    """A film whose EXIF, comment, XMP and thumbnail name a patient."""
    exif = piexif.dump(
        {
            "0th": {
                piexif.ImageIFD.Artist: PLANTED[0].encode(),
                piexif.ImageIFD.ImageDescription: PLANTED[1].encode(),
                piexif.ImageIFD.Orientation: orientation,
            },
            "Exif": {piexif.ExifIFD.UserComment: PLANTED[2].encode()},
        }
    )
    xmp = f"<x:xmpmeta>{PLANTED[3]}</x:xmpmeta>".encode()
    return encoded(film_image(), "JPEG", exif=exif, comment=PLANTED[4].encode(), xmp=xmp) + PLANTED[0].encode()


def png_with_texts() -> bytes:
    """A film as PNG whose text chunks name a patient."""
    texts = PngImagePlugin.PngInfo()
    for index, word in enumerate(PLANTED):
        texts.add_text(f"k{index}", word, zip=False)
    return encoded(film_image(), "PNG", pnginfo=texts)


def dicom_with_texts() -> bytes:
    """The chest film with every planted word in some attribute, private and nested ones included."""
    dataset = pydicom.dcmread(CHEST_DICOM)
    dataset.PatientName = PLANTED[0]
    dataset.PatientID = PLANTED[1]
    dataset.AccessionNumber = PLANTED[2]
    dataset.ReferringPhysicianName = PLANTED[3]
    dataset.StudyInstanceUID = PLANTED[4]
    dataset.SOPInstanceUID = PLANTED[4]
    dataset.file_meta.MediaStorageSOPInstanceUID = PLANTED[4]
    dataset.BodyPartExamined = "CHEST"
    dataset.ImageComments = " ".join(PLANTED)
    dataset.WindowCenterWidthExplanation = PLANTED[0]
    nested = Dataset()
    nested.PatientName = PLANTED[0]
    dataset.OtherPatientIDsSequence = [nested]
    block = dataset.private_block(0x0099, "PLANTED", create=True)
    block.add_new(0x01, "LO", PLANTED[1])
    return written(dataset)


def written(dataset: pydicom.Dataset) -> bytes:
    """A DICOM object as a file."""
    out = io.BytesIO()
    pydicom.dcmwrite(out, dataset)
    return out.getvalue()


def mirrored(path: Path) -> Image.Image:
    """A film seen from behind."""
    with Image.open(path) as image:
        return ImageOps.mirror(image.convert("L"))
