"""The form of what a pool and its workers say to each other over pipes.

A request is REQUEST and the film's bytes. An answer is ANSWER, a JSON header, and, for a prepared film, its pixels and
its stored copy; for one to be looked at, its pixels at their full depth. A worker's first message is an ANSWER too: it
is ready.
"""

from __future__ import annotations

import struct
from typing import Final

# Length of the film; whether a large one is to be named instead of decoded; whether people are to look at it.
REQUEST: Final = struct.Struct("!I??")
# Length of the JSON header, and of what comes last: the stored copy, or the pixels at their full depth.
ANSWER: Final = struct.Struct("!II")
