"""What a confined process can no longer do, tried out by one that could do all of it before."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys

import pytest

ATTEMPTS = r"""
import ctypes, json, mmap, os, resource, signal, socket, subprocess, sys
from pneumoserve.imaging import confinement

libc = ctypes.CDLL(None, use_errno=True)
PARENT = os.getppid()

def checked(outcome):
    if outcome == -1:
        raise OSError(ctypes.get_errno(), "libc")
    return outcome

def fork():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)

def read_parent():
    # Two bytes at an address of this process: which address does not matter, whether one may ask does.
    buffer = ctypes.create_string_buffer(2)
    class Span(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
    here = Span(ctypes.addressof(buffer), 2)
    checked(libc.process_vm_readv(os.getpid() if before else PARENT, ctypes.byref(here), 1, ctypes.byref(here), 1, 0))

def make_executable():
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()

def take_memory():
    bytearray(200 << 20)

DEEDS = {
    "read a file": lambda: open("/proc/self/stat").read(),
    "write a file": lambda: open("/tmp/confinement-test-%d" % os.getpid(), "w"),
    "list a folder": lambda: os.listdir("/"),
    "see a file": lambda: os.stat("/etc/passwd"),
    "remove a file": lambda: os.unlink(FILE),
    "make a socket": lambda: socket.socket().close(),
    "make a pair of sockets": lambda: [each.close() for each in socket.socketpair()],
    "make a pipe": lambda: [os.close(each) for each in os.pipe()],
    "fork": fork,
    "run a program": lambda: subprocess.run(["/bin/true"]),
    "signal the parent": lambda: os.kill(PARENT, 0),
    "read the parent's memory": read_parent,
    "make memory executable": make_executable,
    "take 200 MiB": take_memory,
    "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
    "see its parent's id": lambda: checked(libc.syscall(110)) if os.uname().machine == "x86_64" else 1 / 0,
    "change its name": lambda: checked(libc.prctl(15, b"x", 0, 0, 0)),
}
FILE = "/tmp/confinement-test-%d" % os.getpid()

def tried():
    done = []
    for name, deed in DEEDS.items():
        try:
            deed()
        except (OSError, MemoryError, ArithmeticError, ValueError):
            continue
        done.append(name)
    return done

before = True
could = tried()
before = False
if len(sys.argv) > 1:
    confinement._system_call_filter = lambda: confinement._no_filter
filtered = confinement.confine(100 << 20)
can = tried()
bytearray(50 << 20)
print(json.dumps({"could": could, "filtered": filtered, "can": can}), flush=True)
os._exit(0)
"""


def attempt(*arguments: str) -> dict[str, list[str] | bool]:
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPTS, *arguments], stdout=subprocess.PIPE, check=True, timeout=60
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_a_confined_process_can_do_nothing_but_compute_and_use_its_pipes() -> None:
    found = attempt()
    assert len(found["could"]) >= 16  # type: ignore[arg-type]
    assert (found["filtered"], found["can"]) == (True, [])


def test_without_a_filter_the_limits_hold_and_it_says_so() -> None:
    found = attempt("no filter")
    assert found["filtered"] is False
    assert not {
        "read a file", "write a file", "list a folder", "make a socket", "make a pair of sockets", "make a pipe",
        "run a program", "take 200 MiB",
    }.intersection(found["can"])  # type: ignore[arg-type]  # fmt: skip


def test_a_process_that_forbids_tracing_has_no_core_and_no_readers() -> None:
    program = (
        "import ctypes; from pneumoserve.imaging.confinement import forbid_tracing\n"
        "libc = ctypes.CDLL(None); assert libc.prctl(3, 0, 0, 0, 0) == 1\n"
        "forbid_tracing(); assert libc.prctl(3, 0, 0, 0, 0) == 0"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_library_of_the_filter_is_here() -> None:
    assert ctypes.CDLL("libseccomp.so.2")


@pytest.mark.parametrize("name", ["open", "openat", "socket", "connect", "clone", "execve", "kill", "tgkill", "ptrace"])
def test_no_call_that_reaches_out_is_allowed(name: str) -> None:
    from pneumoserve.imaging.confinement import _ALLOWED  # noqa: PLC0415

    assert name not in _ALLOWED
