"""A name that signed MARs import, those packaged by version 0.2.0 and before; the code is in `handlers` now.

It is looked up, not imported: nothing else in pneumoserve may depend on what runs in TorchServe alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

Handler: Final[Any] = import_module("handlers.model_handler").Handler
