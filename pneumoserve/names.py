"""Names of the models, and of places in the store. This imports nothing: a probe that runs often stays cheap."""

from typing import Final, Literal

# The decision, which the front makes from both models' scores.
DECISION: Final = "pneumonia"
DETECTOR: Final = "pneumonia-detector"
TYPER: Final = "pneumonia-typer"
# Where the store has the first answers of calls that name an idempotency key.
FIRST_ANSWERS: Final = "idempotency/"
# The bucket of intake's spool, on one machine.
INTAKE_BUCKET: Final = "pneumoserve-intake"

# What runs the models: TorchServe, or workers of our own.
ModelServer = Literal["torchserve", "inprocess"]
