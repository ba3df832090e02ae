"""The server of decoding processes that a process of ours has: started at the first clip, replaced when killed."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import cast

from tasks.decode_channel import Channel, ChannelError
from tasks.errors import ServiceError

_START_SECONDS = 120.0  # imports, on a disk that has not seen them
_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
"""glibc keeps what a picture took for the next one, instead of having the kernel take it back and give zeroed pages."""

_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")


class Server:
    """A running ``tasks/decode_server.py``; ``ready`` is what it said when it had started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tasks.decode_server", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env=_bare_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for this process
            )
        self._channel = Channel(ours)
        try:
            self.ready, _ = self._channel.receive(_START_SECONDS)
        except (ChannelError, TimeoutError) as error:
            self._process.kill()
            self.close()
            raise ServiceError(
                f"the process that decodes footage did not start ({error or 'no answer'}); run "
                f"'{sys.executable} -m tasks.decode_server' and look at what it prints"
            ) from error

    def start(self) -> tuple[int, Channel]:
        """A new child and the channel to it."""
        with self._lock:
            self._channel.send({"do": "start"})
            message, fd = self._channel.receive(_START_SECONDS)
        if fd is None:
            raise ChannelError("gave no child")
        return int(message["pid"]), Channel(socket.socket(fileno=fd))

    def end(self, pid: int) -> None:
        """Kill a child without waiting for its end."""
        with self._lock, suppress(ChannelError):
            self._channel.send({"do": "end", "pid": pid})

    def end_and_wait(self, pid: int) -> int | None:
        """How a child ended: exit status, or minus a signal; None when its server is gone too."""
        with self._lock, suppress(ChannelError, TimeoutError):
            self._channel.send({"do": "wait", "pid": pid})
            return cast(int, self._channel.receive(_START_SECONDS)[0]["status"])
        return None

    def close(self) -> None:
        """End the server and its children."""
        self._channel.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_START_SECONDS)


class _Servers:
    """One server per process of ours, also in one that was forked from another that had one."""

    def __init__(self) -> None:
        self._by_process: dict[int, Server] = {}
        self._lock = threading.Lock()

    def get(self) -> Server:
        with self._lock:
            server = self._by_process.get(os.getpid())
            if server is None:
                server = self._by_process[os.getpid()] = Server()
                atexit.register(self.close)
            return server

    def close(self) -> None:
        with self._lock:
            server = self._by_process.pop(os.getpid(), None)
        if server is not None:
            server.close()


_SERVERS = _Servers()


def start_child() -> tuple[Server, int, Channel]:
    """A new child: its server, its process id and the channel to it. A server that was killed is replaced, once.

    Raises ServiceError when that does not help.
    """
    try:
        server = _SERVERS.get()
        return server, *server.start()
    except (ChannelError, TimeoutError):
        _SERVERS.close()
    try:
        server = _SERVERS.get()
        return server, *server.start()
    except (ChannelError, TimeoutError) as error:
        raise ServiceError(f"the process that decodes footage ended twice ({error}); is memory short?") from error


def _bare_environment() -> dict[str, str]:
    """What the child needs to import us, and nothing else: no credentials."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ} | _MEMORY
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # a process with threads can not be forked
    paths = [os.path.abspath(path) for path in sys.path]  # noqa: PTH100 - '' is the current folder
    return {**kept, **one_thread, "PYTHONPATH": os.pathsep.join(paths)}
