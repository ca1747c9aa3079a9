"""The names of the two models. They import nothing, so that a probe that runs every few seconds stays cheap."""

from typing import Final

DETECTOR: Final = "pneumonia-detector"
TYPER: Final = "pneumonia-typer"
