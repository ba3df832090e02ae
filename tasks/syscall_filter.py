"""A seccomp filter for the process that decodes: it may compute, and talk through what it has open; nothing else.

An allow-list: whatever is not on it (open, socket, connect, execve, fork, ptrace, kill, setrlimit, ...) fails with
EPERM, so that a decoder which was taken over reaches neither files nor network. Threads of the process itself are
allowed. Linux on x86-64 and arm64; elsewhere ``install`` says that it did nothing.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import sys

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2  # linux/prctl.h, linux/seccomp.h
_LOAD, _JUMP_EQUAL, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06  # linux/bpf_common.h: LD|W|ABS, JMP|JEQ|K, ...
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000  # linux/seccomp.h: SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO
_NR_OFFSET, _ARCH_OFFSET, _FIRST_ARGUMENT_OFFSET = 0, 4, 16  # struct seccomp_data, little endian
_CLONE_THREAD = 0x00010000  # linux/sched.h

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column of the table below, and AUDIT_ARCH of linux/audit.h."""

_ALLOWED: dict[str, tuple[int | None, int | None]] = {  # arch/x86/entry/syscalls/syscall_64.tbl, asm-generic/unistd.h
    # what is open already
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "close": (3, 57),
    "lseek": (8, 62),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "dup": (32, 23),
    "fcntl": (72, 25),
    "poll": (7, None),
    "ppoll": (271, 73),
    "recvmsg": (47, 212),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "sendto": (44, 206),
    # memory
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    # threads and signals of its own
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "exit": (60, 93),
    "exit_group": (231, 94),
    # clocks and the like
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "getrandom": (318, 278),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "uname": (63, 160),
}
_CLONE = (56, 220)
_CLONE3 = 435  # everywhere; its flags lie in memory, so it counts as unknown and the C library takes clone instead


def install() -> bool:
    """Confine this process for good; returns whether it is. Costs 0.1 ms."""
    machine = _MACHINES.get(platform.machine()) if sys.platform == "linux" else None
    if machine is None:
        return False
    instructions = _program(*machine)
    code = ctypes.create_string_buffer(b"".join(instructions))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(instructions), ctypes.addressof(code)))  # sock_fprog
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0) == 0)


def _program(column: int, audit_arch: int) -> list[bytes]:
    """The filter as instructions for the kernel's BPF machine; a jump counts from the next instruction."""
    numbers = [pair[column] for pair in _ALLOWED.values()]
    allowed = [number for number in numbers if number is not None]
    refuse = [_instruction(_RETURN, _FAIL | errno.EPERM)]
    return [
        _instruction(_LOAD, _ARCH_OFFSET),
        _instruction(_JUMP_EQUAL, audit_arch, if_true=1),
        *refuse,  # system calls of another architecture have other numbers
        _instruction(_LOAD, _NR_OFFSET),
        _instruction(_JUMP_EQUAL, _CLONE3, if_false=1),
        _instruction(_RETURN, _FAIL | errno.ENOSYS),
        *(_instruction(_JUMP_EQUAL, nr, if_true=len(allowed) - at + 3) for at, nr in enumerate(allowed)),
        _instruction(_JUMP_EQUAL, _CLONE[column], if_false=2),
        _instruction(_LOAD, _FIRST_ARGUMENT_OFFSET),
        _instruction(_JUMP_ANY_BIT, _CLONE_THREAD, if_true=1),
        *refuse,
        _instruction(_RETURN, _ALLOW),
    ]


def _instruction(code: int, value: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("@HBBI", code, if_true, if_false, value)  # struct sock_filter of linux/filter.h
