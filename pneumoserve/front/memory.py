"""What memory this process may use, has in use, and gives back: on Linux with glibc, and elsewhere nothing."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path, PurePosixPath
from typing import Final

_ROOT: Final = Path("/sys/fs/cgroup")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")
# mallopt(3): from this size on, a block is a mapping of its own, which goes back to the system when it is freed.
_M_MMAP_THRESHOLD: Final = -3
_OWN_MAPPING_BYTES: Final = 1024 * 1024
_M_ARENA_MAX: Final = -8
_ARENAS: Final = 2

_libc: Final = ctypes.CDLL(None)


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def memory_limit(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> int | None:
    """The memory limit, in bytes, of the cgroups (v1 or v2) that this process is in; None without one."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    limits = [_bytes_in(file) for line in lines for file in _limit_files(root, line)]
    below = [limit for limit in limits if limit is not None and limit < _machine_bytes()]
    return min(below, default=None)


def _limit_files(root: Path, line: str) -> list[Path]:
    """Where one line of /proc/self/cgroup says that limits stand: in the group itself and in those around it."""
    _, controllers, path = line.split(":", 2)
    if controllers == "":
        folder, name = root, "memory.max"
    elif "memory" in controllers.split(","):
        folder, name = root / "memory", "memory.limit_in_bytes"
    else:
        return []
    group = PurePosixPath(path.lstrip("/"))
    return [folder / each / name for each in (group, *group.parents)]


def _bytes_in(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def tune_allocator() -> None:
    """Let malloc give large blocks back when they are freed, and keep few arenas. glibc would learn to keep them."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)
        _libc.mallopt(_M_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Return free memory inside of malloc's heaps to the system; takes milliseconds, and may run in a thread."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)


def bytes_in_use() -> int:
    """What malloc has handed out, of any thread or library; 0 where that is not known."""
    if not hasattr(_libc, "mallinfo2"):
        return 0
    _libc.mallinfo2.restype = _Mallinfo2
    info = _libc.mallinfo2()
    return int(info.uordblks + info.hblkhd)
