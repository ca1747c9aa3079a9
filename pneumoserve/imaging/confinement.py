"""What a process gives up for good, asked of the Linux kernel: being read by others, memory, files, system calls."""

from __future__ import annotations

import ctypes
import errno
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_PROT_EXEC: Final = 4

# All that Python and the codecs need once everything is loaded: memory, the pipes they have, clocks, their own end.
_ALLOWED: Final = (
    "brk", "munmap", "mremap", "madvise", "read", "write", "close", "futex", "sched_yield", "sched_getaffinity",
    "getrandom", "clock_gettime", "gettimeofday", "getrusage", "getpid", "gettid", "rt_sigaction", "rt_sigprocmask",
    "rt_sigreturn", "sigaltstack", "restart_syscall", "exit", "exit_group",
)  # fmt: skip


def forbid_tracing() -> None:
    """Let no other process of this user read this one's memory, and the kernel write no core of it."""
    _prctl(_PR_SET_DUMPABLE, 0)


def die_with_parent() -> None:
    """Be killed when the thread that started this process ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def confine(memory: int) -> bool:
    """Give up all but decoding: call this when all that is needed has been used once; what is not loaded stays so.

    The address space may grow by `memory` bytes; files, processes and cores cannot be made. All system calls but a
    few are refused (EPERM): none that is left opens a file, makes a socket or process, signals another one, or makes
    memory executable. False where the kernel or its library (libseccomp) has no such filter: the limits hold alone.
    """
    load = _system_call_filter()
    _limit_resources(memory)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    try:
        load()
    except OSError:
        return False
    return True


def address_space() -> int:
    """Bytes of this process's address space."""
    return int(Path("/proc/self/statm").read_bytes().split()[0]) * resource.getpagesize()


def _limit_resources(memory: int) -> None:
    limit = address_space() + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for each in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
        resource.setrlimit(each, (0, 0))
    # The next descriptor would be over the limit: no file is opened where the kernel has no seccomp either.
    descriptors = 1 + max(int(each.name) for each in Path("/proc/self/fd").iterdir() if each.exists())
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))


def _system_call_filter() -> Callable[[], None]:
    """What puts the filter in force; it raises OSError where there is none."""
    try:
        import pyseccomp as seccomp  # noqa: PLC0415 - it raises where there is no libseccomp
    except (ImportError, RuntimeError, OSError):
        return _no_filter
    calls = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    for name in _ALLOWED:
        calls.add_rule(seccomp.ALLOW, name)
    for name in ("mmap", "mprotect"):
        calls.add_rule(seccomp.ALLOW, name, seccomp.Arg(2, seccomp.MASKED_EQ, _PROT_EXEC, 0))
    return calls.load  # type: ignore[no-any-return]


def _no_filter() -> None:
    raise OSError(errno.ENOSYS, "no libseccomp")


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
