"""The asking side: one process per clip decodes it, and this side reads the file, waits, and keeps the limits.

A process of ours has one server of such processes (``tasks/decode_process.py``), started at the first clip. The child
gets bytes only as it asks for them, and this side is where all limits that a broken child would not keep are kept:
time, number and length of frames, bytes.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tasks.decode_channel import ChannelError, SharedBlock
from tasks.decode_limits import DecodeLimits
from tasks.decode_process import start_child
from tasks.errors import REJECTION_REASONS, FootageError

_WINDOW_BYTES = 1 << 20  # of the file at a time
_AHEAD_BYTES = 32 << 20
"""Pictures that a child may make ahead, at least 2 and at most 8: a slow reader does not stop it, nor fill memory."""
_MIN_SLOTS, _MAX_SLOTS = 2, 8
_BYTES_PER_PIXEL = 3


@dataclass(frozen=True, kw_only=True)
class Confinement:
    """What holds on this machine: see ``tasks/decode_sandbox.py``."""

    has_no_network: bool
    has_filtered_calls: bool


def confinement() -> Confinement:
    """Start a child and ask. Raises FootageError or ServiceError where footage could not be decoded either."""
    with DecodeSession({"do": "confinement", "name": "no footage"}, DecodeLimits()) as session:
        answer = session.answer()
        return Confinement(
            has_no_network=bool(session.server.ready.get("no_network")),
            has_filtered_calls=bool(answer.get("filtered")),
        )


class DecodeSession:
    """A child process that does one job of ``tasks/decode_child.py``. Use it as a context, which ends it."""

    def __init__(self, job: dict[str, Any], limits: DecodeLimits, source: BinaryIO | None = None) -> None:
        """Start the job on the file ``source``, which the caller closes. Raises FootageError, ServiceError."""
        self._limits, self._name = limits, str(job["name"])
        self._source, self._num_bytes = source, 0
        self._waited = self._silent = 0.0
        self._rooms: SharedBlock | None = None
        self._slot_bytes = 0
        if source is not None:
            self._num_bytes = self._length_of(source)
            limits.check_bytes(self._num_bytes, self._name)
        self.server, self._pid, self._channel = start_child()
        self._window = SharedBlock.create(_WINDOW_BYTES)
        told = {**job, "limits": asdict(limits), "window_bytes": _WINDOW_BYTES, "num_bytes": self._num_bytes}
        self._tell(told, self._window.fd)

    def __enter__(self) -> DecodeSession:
        return self

    def __exit__(self, *exception: object) -> None:
        """End the child, whatever it is doing."""
        if self._pid:
            self.server.end(self._pid)
        self._pid = 0
        self._channel.close()
        self._window.close()
        if self._rooms is not None:
            self._rooms.close()

    def ask(self, request: dict[str, Any], source: BinaryIO, num_bytes: int) -> dict[str, Any]:
        """Send a request about another file, and wait for its answer."""
        self._source, self._num_bytes = source, num_bytes
        self._tell({**request, "num_bytes": num_bytes})
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next message that is not about bytes or room. Raises FootageError for a refusal, or a broken limit."""
        while True:
            message = self._receive()
            try:
                if "read" in message:
                    self._read(int(message["read"]), int(message["bytes"]))
                elif "room" in message:
                    self._make_room(int(message["room"]))
                elif "alive" in message:
                    self._limits.check_length(int(message["alive"]), float(message["at"]), self._name)
                elif "refused" in message:
                    raise _refusal(message)
                else:
                    return message
            except (KeyError, TypeError, ValueError) as error:
                raise self.nonsense(error) from error

    def picture(self, message: dict[str, Any]) -> NDArray[np.uint8]:
        """The picture that ``message`` is about: uint8 [H, W] or [H, W, 3], a copy. Gives its room back."""
        try:
            shape, slot = tuple(int(side) for side in message["shape"]), int(message["slot"])
            num_bytes = int(np.prod(shape))
            is_picture = len(shape) in (2, 3) and min(shape) > 0 and shape[2:] in ((), (_BYTES_PER_PIXEL,))
            if self._rooms is None or not is_picture or num_bytes > self._slot_bytes:
                raise ValueError(f"a picture of shape {shape}")
            pixels = np.frombuffer(self._rooms.memory, np.uint8, num_bytes, slot * self._slot_bytes)
            picture = pixels.reshape(shape).copy()
        except (KeyError, TypeError, ValueError) as error:
            raise self.nonsense(error) from error
        self._tell({"free": 1})
        return picture

    def nonsense(self, error: Exception) -> FootageError:
        """The refusal of footage whose decoder sends what makes no sense: it was taken over, or is broken."""
        return FootageError("crashed", f"the process that decoded {self._name} sent nonsense: {error}")

    def _length_of(self, source: BinaryIO) -> int:
        try:
            return source.seek(0, os.SEEK_END)
        except Exception as error:  # each file system raises kinds of its own: botocore's, aiohttp's
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> FootageError:
        return FootageError("not_found", f"{self._name} could not be read to its end: {error}")

    def _receive(self) -> dict[str, Any]:
        patience = min(self._limits.stall_seconds - self._silent, self._limits.wall_seconds - self._waited)
        started = time.monotonic()
        try:
            message, fd = self._channel.receive(max(0.0, patience))
        except TimeoutError as error:
            raise self._out_of_patience() from error
        except ChannelError as error:
            raise self._death(str(error)) from error
        waited = time.monotonic() - started
        self._waited += waited
        self._silent = self._silent + waited if "read" in message else 0.0
        if fd is not None:
            os.close(fd)
        return message

    def _out_of_patience(self) -> FootageError:
        limits = self._limits
        if limits.stall_seconds - self._silent < limits.wall_seconds - self._waited:
            return FootageError("timeout", f"no frame of {self._name} in time; {limits.expected('stall_seconds', 's')}")
        return FootageError("timeout", f"{self._name} took too long in all; {limits.expected('wall_seconds', 's')}")

    def _death(self, said: str) -> FootageError:
        pid, self._pid = self._pid, 0
        status = self.server.end_and_wait(pid)
        if status == -signal.SIGXCPU:
            return FootageError("timeout", f"{self._name}: {self._limits.expected('cpu_seconds', 's of CPU time')}")
        how = f"was killed by {signal.Signals(-status).name}" if status is not None and status < 0 else said
        return FootageError("crashed", f"the process that decoded {self._name} {how}")

    def _read(self, offset: int, num_bytes: int) -> None:
        """Put bytes of the file, as it was long when it was opened, into the window."""
        if self._source is None or not 0 <= offset <= self._num_bytes or not 0 <= num_bytes <= _WINDOW_BYTES:
            raise ValueError(f"asked for {num_bytes} bytes from {offset}")
        try:
            self._source.seek(offset)
            data = self._source.read(min(num_bytes, self._num_bytes - offset))
        except Exception as error:  # as above
            raise self._unreadable(error) from error
        self._window.memory[: len(data)] = data
        self._tell({"got": len(data)})

    def _make_room(self, num_bytes: int) -> None:
        """Give the child shared memory for pictures of ``num_bytes``, in place of what it had."""
        if not 0 < num_bytes <= self._limits.max_frame_pixels * _BYTES_PER_PIXEL:
            raise ValueError(f"wanted room for a picture of {num_bytes} bytes")
        if self._rooms is not None:
            self._rooms.close()
        num_slots = min(_MAX_SLOTS, max(_MIN_SLOTS, _AHEAD_BYTES // num_bytes))
        self._slot_bytes = num_bytes
        self._rooms = SharedBlock.create(num_bytes * num_slots)
        self._tell({"slots": num_slots, "slot_bytes": num_bytes}, self._rooms.fd)

    def _tell(self, message: dict[str, Any], fd: int | None = None) -> None:
        with suppress(ChannelError):  # of a child that died the end is read, and how it died
            self._channel.send(message, fd)


def _refusal(message: dict[str, Any]) -> FootageError:
    if message["refused"] not in REJECTION_REASONS:
        raise ValueError(f"a refusal for {message['refused']!r}")
    return FootageError(message["refused"], str(message["detail"]))
