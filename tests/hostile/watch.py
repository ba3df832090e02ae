"""Proof that a file was not opened and that nobody connected, for all processes of the machine."""

from __future__ import annotations

import ctypes
import os
import select
import socket
from pathlib import Path

_IN_ACCESS, _IN_OPEN = 0x1, 0x20  # linux/inotify.h
_IN_NONBLOCK = os.O_NONBLOCK


class Watch:
    """The kernel's own record: inotify on a folder, and a listening socket that nobody accepts from."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._events = libc.inotify_init1(_IN_NONBLOCK)
        watched = libc.inotify_add_watch(self._events, os.fsencode(folder), _IN_OPEN | _IN_ACCESS)
        assert self._events >= 0, "inotify is not to be had"
        assert watched >= 0, f"can not watch {folder}"
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]

    def was_opened(self) -> bool:
        """Whether anything in the folder was opened or read since the last time."""
        try:
            return bool(os.read(self._events, 1 << 16))
        except BlockingIOError:
            return False

    def was_connected(self) -> bool:
        """Whether a connection waits, as every one does that was ever made."""
        return bool(select.select([self._server], [], [], 0)[0])

    def close(self) -> None:
        os.close(self._events)
        self._server.close()
