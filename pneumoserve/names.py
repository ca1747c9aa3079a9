"""The names of the models. They import nothing, so that a probe that runs every few seconds stays cheap."""

from typing import Final

# The decision, which the front makes from both models' scores.
DECISION: Final = "pneumonia"
DETECTOR: Final = "pneumonia-detector"
TYPER: Final = "pneumonia-typer"
