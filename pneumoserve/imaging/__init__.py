"""Films: from bytes to model input. `prepare.prepare` decodes; what stands here needs no decoder."""

from pneumoserve.imaging.metadata import (
    MAX_BYTES,
    MAX_PIXELS,
    PREPROCESSING_VERSION,
    SIZE,
    TEXT,
    DisplayImage,
    Facts,
    ImageError,
    LargeFilm,
    PreparedImage,
    looks_like_image,
    name_form,
)

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "PREPROCESSING_VERSION",
    "SIZE",
    "TEXT",
    "DisplayImage",
    "Facts",
    "ImageError",
    "LargeFilm",
    "PreparedImage",
    "looks_like_image",
    "name_form",
]
