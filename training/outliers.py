"""What is no upright chest film, to teach and to measure the gate that refers it (outlier exposure, Hendrycks 2019).

Kinds made of films: inverted, upside down, on its side, in pieces, a small part enlarged. Kinds made of nothing:
noise, blank sheets, dead leaves (Lee, Mumford & Huang 2001: shapes that hide each other, with the statistics of
photographs), limbs (bright tapering rods on dark), text. No photograph and no other organ's film is among them, so
that real ones measure what the gate has not seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Pixels = npt.NDArray[np.uint8]
Maker = Callable[[Pixels, Generator], Pixels]
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz 0123456789"


def invert(film: Pixels, _: Generator) -> Pixels:
    """Black for white, as of a MONOCHROME1 film whose reader forgot."""
    return 255 - film


def turn_upside_down(film: Pixels, draw: Generator) -> Pixels:
    """Turned by half a turn, or mirrored from top to bottom."""
    return film[::-1] if draw.random() < 0.5 else film[::-1, ::-1]


def turn_sideways(film: Pixels, draw: Generator) -> Pixels:
    """Turned by a quarter, to either side."""
    return np.rot90(film, 1 if draw.random() < 0.5 else 3)


def shuffle_pieces(film: Pixels, draw: Generator) -> Pixels:
    """Cut into 4x4 parts that are put together anew, so that only its texture is a film's."""
    parts = 4
    side = film.shape[0] // parts
    tiles = film.reshape(parts, side, parts, side).swapaxes(1, 2).reshape(-1, side, side)
    mixed = tiles[draw.permutation(len(tiles))]
    return mixed.reshape(parts, parts, side, side).swapaxes(1, 2).reshape(film.shape)


def enlarge(film: Pixels, draw: Generator) -> Pixels:
    """A part of a fifth to two fifths of the side, as of a close-up."""
    side = film.shape[0]
    edge = int(side * draw.uniform(0.2, 0.4))
    top, left = draw.integers(0, side - edge, 2)
    part = Image.fromarray(film[top : top + edge, left : left + edge])
    return np.asarray(part.resize((side, side), Image.Resampling.BILINEAR))


def draw_noise(film: Pixels, draw: Generator) -> Pixels:
    """Noise whose power falls with frequency to a power from 0 (white) to 2 (clouds)."""
    side = film.shape[0]
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    frequency[0, 0] = 1 / side
    spectrum = np.fft.fft2(draw.standard_normal((side, side))) / frequency ** draw.uniform(0, 2)
    return _stretch(np.fft.ifft2(spectrum).real, draw)


def draw_blank(film: Pixels, draw: Generator) -> Pixels:
    """An empty sheet, even or shaded from one side to the other."""
    side = film.shape[0]
    ramp = np.linspace(-1, 1, side) * draw.uniform(0, 90)
    sheet = draw.uniform(0, 255) + (ramp[:, None] if draw.random() < 0.5 else ramp[None])
    return _gray(np.broadcast_to(sheet, (side, side)) + draw.standard_normal((side, side)) * draw.uniform(0, 6))


def draw_dead_leaves(film: Pixels, draw: Generator) -> Pixels:
    """Ellipses and polygons of every size that hide each other, shaded, as things in a photograph do."""
    side = film.shape[0]
    scene = Image.new("L", (side, side), int(draw.integers(0, 256)))
    pen = ImageDraw.Draw(scene)
    for radius in np.sort(side * 0.5 / draw.uniform(1, 12, int(draw.integers(10, 120))))[::-1]:
        x, y = draw.uniform(0, side, 2)
        gray = int(draw.integers(0, 256))
        if draw.random() < 0.5:
            squeeze = draw.uniform(0.3, 1)
            pen.ellipse((x - radius, y - radius * squeeze, x + radius, y + radius * squeeze), fill=gray)
        else:
            turns = np.sort(draw.uniform(0, 2 * np.pi, int(draw.integers(3, 8))))
            pen.polygon([(x + radius * np.cos(a), y + radius * np.sin(a)) for a in turns], fill=gray)
    soft = np.asarray(scene.filter(ImageFilter.GaussianBlur(draw.uniform(0, 3))), dtype=np.float64)
    return _gray(soft * _shade(side, draw) + draw.standard_normal((side, side)) * draw.uniform(0, 12))


def draw_limb(film: Pixels, draw: Generator) -> Pixels:
    """One to three tapering rods, brighter at their edges as bones are, within softer tissue, on dark."""
    side = film.shape[0]
    down, across = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j] - 0.5
    angle = draw.uniform(-0.6, 0.6) + (np.pi / 2 if draw.random() < 0.3 else 0)
    along, off_axis = (down * np.cos(angle) + across * np.sin(angle), across * np.cos(angle) - down * np.sin(angle))
    tissue_width = draw.uniform(0.12, 0.35) * (1 + draw.uniform(-1, 1) * along)
    picture = draw.uniform(40, 120) * np.sqrt(np.clip(1 - (off_axis / tissue_width) ** 2, 0, None))
    for _ in range(int(draw.integers(1, 4))):
        width = draw.uniform(0.02, 0.12) * (1 + draw.uniform(0, 8) * along**2)
        place = (off_axis - draw.uniform(-0.12, 0.12) - draw.uniform(-0.3, 0.3) * along) / width
        inside = np.abs(place) < 1
        picture += inside * draw.uniform(40, 120) * (0.5 + 0.5 * place**4)
    soft = np.asarray(Image.fromarray(_gray(picture)).filter(ImageFilter.GaussianBlur(draw.uniform(0.5, 2.5))))
    return _gray(soft + draw.standard_normal((side, side)) * draw.uniform(0, 8))


def draw_text(film: Pixels, draw: Generator) -> Pixels:
    """A page of letters, dark on light or light on dark."""
    side = film.shape[0]
    page = Image.new("L", (side, side), 255)
    pen, size = ImageDraw.Draw(page), int(draw.integers(9, 30))
    font = ImageFont.load_default(size=size)
    for line in range(int(draw.integers(0, 20)), side, round(size * 1.3)):
        words = "".join(draw.choice(list(_LETTERS), 40))
        pen.text((int(draw.integers(2, 30)), line), words, fill=int(draw.integers(0, 120)), font=font)
    drawn = np.asarray(page)
    return 255 - drawn if draw.random() < 0.5 else drawn


OF_FILMS: Final[dict[str, Maker]] = {
    "inverted": invert,
    "upside down": turn_upside_down,
    "sideways": turn_sideways,
    "in pieces": shuffle_pieces,
    "enlarged part": enlarge,
}
OF_NOTHING: Final[dict[str, Maker]] = {
    "noise": draw_noise,
    "blank": draw_blank,
    "dead leaves": draw_dead_leaves,
    "limb": draw_limb,
    "text": draw_text,
}


def _shade(side: int, draw: Generator) -> npt.NDArray[np.float64]:
    slope = draw.uniform(-0.6, 0.6, 2)
    down, across = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    shade: npt.NDArray[np.float64] = np.clip(1 + slope[0] * down + slope[1] * across, 0.2, 2)
    return shade


def _stretch(values: npt.NDArray[np.float64], draw: Generator) -> Pixels:
    level = (values - values.mean()) / max(float(values.std()), 1e-9)
    return _gray(draw.uniform(70, 180) + level * draw.uniform(15, 70))


def _gray(values: npt.NDArray[np.floating]) -> Pixels:
    pixels: Pixels = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    return pixels
