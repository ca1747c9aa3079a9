"""Heat maps: where covering an image changes most what its detector says. An aid to look, and no finding."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pneumoserve.console.images import load_prepared
from pneumoserve.errors import PneumoserveError
from pneumoserve.imaging import SIZE
from pneumoserve.imaging.pool import DecoderPool
from pneumoserve.local.answers import format_probability
from pneumoserve.models.engine import Pixels
from pneumoserve.models.inprocess import load_scorer
from pneumoserve.models.occlusion import PATCH, STRIDE, cover
from pneumoserve.models.scorer import Scorer
from pneumoserve.names import DETECTOR
from pneumoserve.records import Record
from pneumoserve.release import Release
from pneumoserve.release.fetch import find_or_fetch
from pneumoserve.release.verify import ReleaseError
from pneumoserve.store import Store

# One is made at a time; so many more wait, and the next one is told to come again.
_WAITING: Final = 2
_SECONDS: Final = 30.0
_LOADED: Final = 2
# The change of the log-odds, at least, that has full colour: where all are smaller, the map is faint.
_LEAST_FULL: Final = 0.5
# Each place's middle has its colour, and the square around it reaches as far as the next one's.
_EDGE: Final = (PATCH - STRIDE) / 2 / SIZE


class HeatMapError(PneumoserveError):
    """There is no heat map of an answer; the text says why."""


class HeatMapBusyError(HeatMapError):
    """A heat map was not made, and may be made in a moment."""

    def __init__(self) -> None:
        super().__init__("The console is busy with other heat maps; try again in a moment.")


@dataclass(frozen=True)
class HeatMap:
    """`falls`: how far the log-odds of pneumonia fall where a place is covered, [13, 13]; where negative, they rise.

    `probability` is that of pneumonia with nothing covered, `lowest` and `highest` with one place covered.
    """

    falls: npt.NDArray[np.float64]
    probability: float
    lowest: float
    highest: float

    def describe(self) -> str:
        """What covering does to the probability, in words."""
        at, low, high = (format_probability(each) for each in (self.probability, self.lowest, self.highest))
        return f"The model's probability of pneumonia is {at}. With one place covered it is between {low} and {high}."

    def to_json(self) -> dict[str, Any]:
        """What the viewer draws: parts from -1 to 1 of full colour, row by row, and how far the map is from the sides.

        `edge` is a part of the image's width on the left and right, of its height above and below.
        """
        full = max(float(np.abs(self.falls).max()), _LEAST_FULL)
        return {"parts": np.round(self.falls / full, 3).tolist(), "edge": _EDGE, "sentence": self.describe()}


def draw(scorer: Scorer, film: Pixels, deadline: float) -> HeatMap:
    """The heat map of a film of shape [224, 224], from 170 runs of a detector; the same film gives the same map.

    Raises:
        HeatMapBusyError: it is not done by the deadline, in seconds of the monotonic clock.
    """
    (plain,) = scorer.scores([film])
    rows = []
    for row in cover(film):
        if time.monotonic() > deadline:
            raise HeatMapBusyError
        rows.append(scorer.scores(list(row)))
    slope = scorer.facts["calibration"]["slope"]
    falls = np.array([[slope * (plain.logit - each.logit) for each in row] for row in rows])
    covered = [each.probability for row in rows for each in row]
    return HeatMap(falls, plain.probability, min(covered), max(covered))


class HeatMaps:
    """Makes heat maps in the thread that asks, one at a time, with the very models that answered.

    A release is looked for in `releases`, then in the store, and is verified each time: it may have been revoked.
    """

    def __init__(
        self, store: Store, decoders: DecoderPool, releases: Path, trust: Path, seconds: float = _SECONDS
    ) -> None:
        self._store = store
        self._decoders = decoders
        self._releases = releases
        self._trust = trust
        self._seconds = seconds
        self._places = threading.BoundedSemaphore(1 + _WAITING)
        self._turn = threading.Lock()
        self._detectors: OrderedDict[str, Scorer] = OrderedDict()

    def make(self, record: Record) -> HeatMap:
        """The heat map of a prediction.

        Raises:
            HeatMapError: no detector answered, its release cannot be used, or the image has other pixels by now.
            HeatMapBusyError: others wait already, or it takes too long.
            NotFoundError: the store no longer has the image.
            AlteredImageError, ImageError: the image is another one, or cannot be decoded.
            StoreError: the store does not answer.
        """
        image = record.image
        if image is None or DETECTOR not in {use.name for use in record.models}:
            raise HeatMapError("There is no heat map: the detector was not asked about this image.")
        with self._wait_for_turn() as deadline:
            film = load_prepared(image.stored_key, self._store, self._decoders)
            if film.pixels_sha256 != image.pixels_sha256:
                raise HeatMapError(
                    "There is no heat map: the image decodes to other pixels than those that were answered. Tell "
                    "whoever runs the archive."
                )
            return draw(self._find_detector(record), film.pixels, deadline)

    @contextlib.contextmanager
    def _wait_for_turn(self) -> Iterator[float]:
        """Be the only one at work; the moment by which it must be done."""
        deadline = time.monotonic() + self._seconds
        if not self._places.acquire(blocking=False):
            raise HeatMapBusyError
        try:
            if not self._turn.acquire(timeout=self._seconds):
                raise HeatMapBusyError
            try:
                yield deadline
            finally:
                self._turn.release()
        finally:
            self._places.release()

    def _find_detector(self, record: Record) -> Scorer:
        """The detector that answered; the last few stay loaded."""
        try:
            release = find_or_fetch(self._store, record.release, self._releases, self._trust)
        except ReleaseError as error:
            raise HeatMapError(f"There is no heat map, since its release cannot be used here. {error}") from None
        except OSError:
            raise HeatMapError(
                "There is no heat map: the console cannot write the release to its disk. Tell whoever runs the console."
            ) from None
        if release.digest != record.release_digest:
            raise HeatMapError(
                f"There is no heat map: what is here as release {record.release} is not the one that answered. Tell "
                "whoever runs the console."
            )
        detector = self._detectors.pop(release.digest, None) or _load_detector(release)
        self._detectors[release.digest] = detector
        if len(self._detectors) > _LOADED:
            self._detectors.popitem(last=False)
        return detector


def _load_detector(release: Release) -> Scorer:
    # What was mapped into memory stays when its file goes.
    with tempfile.TemporaryDirectory(prefix="pneumoserve-models-") as folder:
        return load_scorer(release, DETECTOR, Path(folder))
