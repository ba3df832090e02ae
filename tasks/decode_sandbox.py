"""What the process that decodes gives up before it sees a byte of footage.

=====================  ==============================================  =====================================
what                   where it holds                                  what it stops
=====================  ==============================================  =====================================
rlimits                everywhere (memory: not on macOS)               runaway time and memory, core dumps,
                                                                       writing files, opening many
no credentials         everywhere                                      environment of the caller is not copied
network namespace      Linux, as root or with user namespaces          connections, also to loopback
system call filter     Linux on x86-64 and arm64                       opening files, sockets, starting programs
killed first           Linux                                           the kernel ending the caller when memory
                                                                       of the whole machine runs out
=====================  ==============================================  =====================================
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

from tasks.decode_limits import DecodeLimits
from tasks.syscall_filter import install

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4  # linux/prctl.h
_MAX_OPEN_FILES = 16  # standard streams, one channel and its shared memory
_MEBIBYTE = 1 << 20
_KILLED_FIRST = "1000"  # the highest value of proc(5), oom_score_adj


def leave_network() -> bool:
    """Move this process, which must have one thread, and its children into an empty network of their own."""
    if sys.platform != "linux":
        return False
    unshare = ctypes.CDLL(None).unshare
    return bool(unshare(_CLONE_NEWNET) == 0 or unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0)


def harden_server() -> None:
    """Limits that the server of children has itself and that they inherit."""
    _limit(resource.RLIMIT_CORE, 0)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_KILLED_FIRST)


def die_with_parent() -> None:
    """End with the parent process, however that ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def confine(limits: DecodeLimits) -> bool:
    """Confine this process for good; returns whether system calls are filtered too."""
    cpu_seconds = max(1, round(limits.cpu_seconds))
    _limit(resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1)  # SIGXCPU first, which tells why; SIGKILL if it is caught
    _limit(resource.RLIMIT_AS, _address_space() + limits.memory_mb * _MEBIBYTE)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, _MAX_OPEN_FILES)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    return install()


def _limit(kind: int, soft: int, hard: int | None = None) -> None:
    with suppress(OSError, ValueError):  # macOS refuses some; a lower hard limit that is there already holds
        resource.setrlimit(kind, (soft, soft if hard is None else hard))


def _address_space() -> int:
    """Bytes of address space that this process has: the program's own."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 1 << 30
