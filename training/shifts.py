"""The shift suite: what the same film looks like after another scanner, export or hand has had it.

Every shift takes prepared pixels, uint8 of shape [224, 224], and gives such pixels, always the same ones. None of
them changes what a reader sees in the film, so none may change the answer.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Pixels = npt.NDArray[np.uint8]
Shift = Callable[[Pixels], Pixels]


def reencode(pixels: Pixels, quality: int) -> Pixels:
    """After a JPEG of a quality from 1 to 95."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("L"))


def brighten(pixels: Pixels, factor: float) -> Pixels:
    """Every gray level times `factor`."""
    return _clip(pixels * factor)


def change_contrast(pixels: Pixels, factor: float) -> Pixels:
    """Every gray level's distance from the mean times `factor`."""
    mean = pixels.mean()
    return _clip((pixels - mean) * factor + mean)


def correct_gamma(pixels: Pixels, gamma: float) -> Pixels:
    """Gray levels, taken from 0 to 1, to the power of `gamma`."""
    return _clip(255.0 * (pixels / 255.0) ** gamma)


def rotate(pixels: Pixels, degrees: float) -> Pixels:
    """Turned counter-clockwise; what comes in from outside is black."""
    return np.asarray(Image.fromarray(pixels).rotate(degrees, Image.Resampling.BILINEAR))


def shrink_and_enlarge(pixels: Pixels, share: float) -> Pixels:
    """Scaled down to a share of its side, as stored small, and up again."""
    side = pixels.shape[0]
    small = Image.fromarray(pixels).resize((round(side * share),) * 2, Image.Resampling.BILINEAR)
    return np.asarray(small.resize((side, side), Image.Resampling.BILINEAR))


def add_border(pixels: Pixels, share: float) -> Pixels:
    """Inside a black border, the film filling a share of the side."""
    side = pixels.shape[0]
    inner = round(side * share)
    film = Image.new("L", (side, side))
    film.paste(Image.fromarray(pixels).resize((inner, inner), Image.Resampling.BILINEAR), ((side - inner) // 2,) * 2)
    return np.asarray(film)


def crop(pixels: Pixels, share: float) -> Pixels:
    """The middle, a share of the side, enlarged to the whole."""
    side = pixels.shape[0]
    edge = (1 - share) * side / 2
    film = Image.fromarray(pixels)
    return np.asarray(film.resize((side, side), Image.Resampling.BILINEAR, (edge, edge, side - edge, side - edge)))


def add_marker(pixels: Pixels, text: str) -> Pixels:
    """With a bright marker in the upper left corner, as a radiographer lays on the cassette."""
    film = Image.fromarray(pixels)
    ImageDraw.Draw(film).text((8, 6), text, fill=245, font=ImageFont.load_default(size=20))
    return np.asarray(film)


def blur(pixels: Pixels, radius: float) -> Pixels:
    """After a Gaussian blur of a radius in pixels."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def _clip(values: npt.NDArray[np.floating]) -> Pixels:
    pixels: Pixels = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    return pixels


SHIFTS: Final[dict[str, Shift]] = {
    "JPEG quality 50": partial(reencode, quality=50),
    "JPEG quality 20": partial(reencode, quality=20),
    "brightness -20 %": partial(brighten, factor=0.8),
    "brightness +20 %": partial(brighten, factor=1.2),
    "contrast -20 %": partial(change_contrast, factor=0.8),
    "contrast +20 %": partial(change_contrast, factor=1.2),
    "gamma 0.8": partial(correct_gamma, gamma=0.8),
    "gamma 1.25": partial(correct_gamma, gamma=1.25),
    "rotation -5°": partial(rotate, degrees=-5),
    "rotation +5°": partial(rotate, degrees=5),
    "resize 90 %": partial(shrink_and_enlarge, share=0.9),
    "resize 50 %": partial(shrink_and_enlarge, share=0.5),
    "border 5 %": partial(add_border, share=0.9),
    "crop 5 %": partial(crop, share=0.9),
    "marker": partial(add_marker, text="R"),
    "blur": partial(blur, radius=1.0),
}
