"""How the process that decodes and the one that asked talk: short JSON messages, and pixels in shared memory.

The two do not trust each other, so nothing is pickled, a message has a highest length, and shared memory is made,
sized and sealed by the asking side: the other can not shrink it under a reader.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import select
import socket
import struct
import tempfile
import time
from collections.abc import Mapping
from typing import Any

_HEADER = struct.Struct(">I")
MAX_MESSAGE_BYTES = 1 << 16
"""Messages hold sizes, times, names and error texts; the longest name is 4096 bytes (PATH_MAX)."""


class ChannelError(Exception):
    """The other side is gone, or sent what is no message."""


class Channel:
    """One end of a stream socket."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end

    def send(self, message: Mapping[str, Any], fd: int | None = None) -> None:
        """Send a message and, if given, a file descriptor. Raises ChannelError when nobody listens."""
        body = json.dumps(message).encode()
        data = _HEADER.pack(len(body)) + body
        try:
            sent = 0 if fd is None else socket.send_fds(self.socket, [data], [fd])
            self.socket.sendall(data[sent:])
        except OSError as error:
            raise ChannelError(f"could not be told: {error}") from error

    def receive(self, timeout: float | None = None) -> tuple[dict[str, Any], int | None]:
        """The next message, and the file descriptor that came with it; the caller closes that.

        Raises TimeoutError when it is not complete after ``timeout`` seconds, ChannelError at the end.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        header, fd = self._read_with_fd(deadline)
        (num_bytes,) = _HEADER.unpack(header)
        if num_bytes > MAX_MESSAGE_BYTES:
            raise ChannelError(f"sent a message of {num_bytes} bytes; expected at most {MAX_MESSAGE_BYTES}")
        try:
            message = json.loads(self._read(num_bytes, deadline))
        except ValueError as error:
            raise ChannelError(f"sent what is no JSON: {error}") from error
        if not isinstance(message, dict):
            raise ChannelError(f"sent a {type(message).__name__}; expected an object")
        return message, fd

    def has_message(self) -> bool:
        """Whether the other side has sent something, or hung up."""
        return bool(select.select([self.socket], [], [], 0)[0])

    def close(self) -> None:
        """Hang up; the other side reads the end."""
        self.socket.close()

    def _read_with_fd(self, deadline: float | None) -> tuple[bytes, int | None]:
        self._wait_until(deadline)
        try:
            data, fds, _, _ = socket.recv_fds(self.socket, _HEADER.size, 1)
        except TimeoutError:
            raise
        except OSError as error:
            raise ChannelError(str(error)) from error
        if not data:
            raise ChannelError("ended")
        for surplus in fds[1:]:
            os.close(surplus)
        return data + self._read(_HEADER.size - len(data), deadline), fds[0] if fds else None

    def _read(self, num_bytes: int, deadline: float | None) -> bytes:
        parts = bytearray()
        while len(parts) < num_bytes:
            self._wait_until(deadline)
            try:
                part = self.socket.recv(num_bytes - len(parts))
            except TimeoutError:
                raise
            except OSError as error:
                raise ChannelError(str(error)) from error
            if not part:
                raise ChannelError("ended inside a message")
            parts += part
        return bytes(parts)

    def _wait_until(self, deadline: float | None) -> None:
        if deadline is None:
            return  # sockets wait for ever unless told otherwise
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.socket.settimeout(left)


class SharedBlock:
    """Memory that two processes see."""

    def __init__(self, fd: int, num_bytes: int) -> None:
        self.fd, self.num_bytes = fd, num_bytes
        self.memory = mmap.mmap(fd, num_bytes)

    @classmethod
    def create(cls, num_bytes: int) -> SharedBlock:
        """New memory, all zeros; sealed where the system can (Linux), else an unlinked file."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("gwm-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(fd, num_bytes)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
            os.ftruncate(fd, num_bytes)
        return cls(fd, num_bytes)

    def close(self) -> None:
        """Give the memory back; the other side keeps its own view."""
        os.close(self.fd)
        with contextlib.suppress(BufferError):  # a view that an exception's traceback still holds
            self.memory.close()
