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


def reencoded(pixels: Pixels, quality: int) -> Pixels:
    """After a JPEG of a quality from 1 to 95."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("L"))


def brightened(pixels: Pixels, factor: float) -> Pixels:
    """Every gray level times `factor`."""
    return _clipped(pixels * factor)


def contrasted(pixels: Pixels, factor: float) -> Pixels:
    """Every gray level's distance from the mean times `factor`."""
    mean = pixels.mean()
    return _clipped((pixels - mean) * factor + mean)


def gamma_corrected(pixels: Pixels, gamma: float) -> Pixels:
    """Gray levels, taken from 0 to 1, to the power of `gamma`."""
    return _clipped(255.0 * (pixels / 255.0) ** gamma)


def rotated(pixels: Pixels, degrees: float) -> Pixels:
    """Turned counter-clockwise; what comes in from outside is black."""
    return np.asarray(Image.fromarray(pixels).rotate(degrees, Image.Resampling.BILINEAR))


def resized(pixels: Pixels, share: float) -> Pixels:
    """Scaled down to a share of its side, as stored small, and up again."""
    side = pixels.shape[0]
    small = Image.fromarray(pixels).resize((round(side * share),) * 2, Image.Resampling.BILINEAR)
    return np.asarray(small.resize((side, side), Image.Resampling.BILINEAR))


def bordered(pixels: Pixels, share: float) -> Pixels:
    """Inside a black border, the film filling a share of the side."""
    side = pixels.shape[0]
    inner = round(side * share)
    film = Image.new("L", (side, side))
    film.paste(Image.fromarray(pixels).resize((inner, inner), Image.Resampling.BILINEAR), ((side - inner) // 2,) * 2)
    return np.asarray(film)


def cropped(pixels: Pixels, share: float) -> Pixels:
    """The middle, a share of the side, enlarged to the whole."""
    side = pixels.shape[0]
    edge = (1 - share) * side / 2
    film = Image.fromarray(pixels)
    return np.asarray(film.resize((side, side), Image.Resampling.BILINEAR, (edge, edge, side - edge, side - edge)))


def marked(pixels: Pixels, text: str) -> Pixels:
    """With a bright marker in the upper left corner, as a radiographer lays on the cassette."""
    film = Image.fromarray(pixels)
    ImageDraw.Draw(film).text((8, 6), text, fill=245, font=ImageFont.load_default(size=20))
    return np.asarray(film)


def blurred(pixels: Pixels, radius: float) -> Pixels:
    """After a Gaussian blur of a radius in pixels."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def _clipped(values: npt.NDArray[np.floating]) -> Pixels:
    pixels: Pixels = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    return pixels


SHIFTS: Final[dict[str, Shift]] = {
    "JPEG quality 50": partial(reencoded, quality=50),
    "JPEG quality 20": partial(reencoded, quality=20),
    "brightness -20 %": partial(brightened, factor=0.8),
    "brightness +20 %": partial(brightened, factor=1.2),
    "contrast -20 %": partial(contrasted, factor=0.8),
    "contrast +20 %": partial(contrasted, factor=1.2),
    "gamma 0.8": partial(gamma_corrected, gamma=0.8),
    "gamma 1.25": partial(gamma_corrected, gamma=1.25),
    "rotation -5°": partial(rotated, degrees=-5),
    "rotation +5°": partial(rotated, degrees=5),
    "resize 90 %": partial(resized, share=0.9),
    "resize 50 %": partial(resized, share=0.5),
    "border 5 %": partial(bordered, share=0.9),
    "crop 5 %": partial(cropped, share=0.9),
    "marker": partial(marked, text="R"),
    "blur": partial(blurred, radius=1.0),
}
