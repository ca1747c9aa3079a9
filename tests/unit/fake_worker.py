"""A decode worker that does what its films tell it to: the first word is what, the rest is with what."""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any

PIXELS = bytes(range(256)) * 196
STORED = b"the stored copy"
FACTS = {"modality": "CR", "body_part": None, "view_position": None, "age_years": 3.0, "sex": "F"}
SHOWN: dict[str, Any] = {"bits": 16, "width": 3, "height": 2, "low": 0.0, "high": 9.5}
SHOWN_PIXELS = bytes(range(12))
FILM: dict[str, Any] = {"format": "jpeg", "width": 1000, "height": 1000, "facts": FACTS}


def main() -> None:
    say({"base": 1 << 30, "filtered": True})
    while head := sys.stdin.buffer.read(6):
        length, refuse_large, _ = struct.unpack("!I??", head)
        word, _, rest = sys.stdin.buffer.read(length).partition(b" ")
        if word == b"large" and not refuse_large:
            word, rest = b"film", b""
        DEEDS[word](rest)


def say(header: Any, pixels: bytes = b"", stored: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    put(struct.pack("!II", len(text), len(stored)) + text + pixels + stored)


def put(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def film(size: bytes = b"") -> None:
    """A film; its size in pixels may follow."""
    say({**FILM, "width": int(size or 1000)}, PIXELS, STORED)


def shown(header: bytes) -> None:
    """A film to be looked at; what is to be said otherwise of it may follow."""
    say({**SHOWN, **json.loads(header or b"{}")}, stored=SHOWN_PIXELS)


def kill(marker: bytes) -> None:
    """Be killed as by somebody else; with a marker, only the first time."""
    path = Path(marker.decode())
    if marker and path.exists():
        film()
    else:
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def spin(_: bytes) -> None:
    while True:
        pass


def sleep(seconds: bytes) -> None:
    time.sleep(float(seconds))
    film()


def wait(path: bytes) -> None:
    """A film, as soon as a file is there."""
    while not Path(path.decode()).exists():
        time.sleep(0.005)
    film()


def half(count: bytes) -> None:
    """The beginning of a good answer."""
    text = json.dumps(FILM).encode()
    put((struct.pack("!II", len(text), len(STORED)) + text + PIXELS + STORED)[: int(count)])
    os._exit(0)


def trickle(_: bytes) -> None:
    """One byte after the other of an answer that does not end."""
    put(struct.pack("!II", 4000, 0))
    while True:
        put(b" ")
        time.sleep(0.01)


def has(_: bytes) -> None:
    """A refusal that names this process's environment and descriptors."""
    descriptors = sorted(each.name for each in Path("/proc/self/fd").iterdir())
    say({"status": 400, "message": f"{' '.join(sorted(os.environ))}; {' '.join(descriptors)}"})


DEEDS = {
    b"film": film,
    b"shown": shown,
    b"large": lambda pixels: say({"large": int(pixels)}),
    b"memory": lambda _: say({"memory": True}),
    b"say": say,
    b"raw": lambda text: put(bytes.fromhex(text.decode())),
    b"abort": lambda _: os.abort(),
    b"exit": lambda _: os._exit(0),
    b"kill": kill,
    b"spin": spin,
    b"sleep": sleep,
    b"wait": wait,
    b"half": half,
    b"trickle": trickle,
    b"has": has,
}

if __name__ == "__main__":
    main()
