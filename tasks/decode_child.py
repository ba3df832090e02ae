"""The process that decodes one clip: bytes come from the process that asked, frames go to it, and nothing else is open.

It is forked from ``tasks/decode_server.py``, told its job and limits, confines itself, and serves until the other side
hangs up. Jobs:

``probe``    header of a video
``video``    header, then frame after frame, as far ahead as there is room in the shared memory
``images``   one image or mask per request

``confinement`` only tells whether system calls are filtered, for ``gwm doctor``.

Whatever the footage does to it, the other side sees a refusal, silence beyond a limit, or its end.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import pkgutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, BinaryIO, NoReturn, cast

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.decode_channel import Channel, ChannelError, SharedBlock
from tasks.decode_limits import DecodeLimits
from tasks.decode_sandbox import confine
from tasks.errors import FootageError
from tasks.frame_images import decode_annotation, decode_image, resize_annotation, resize_image, scaled_size
from tasks.video_decode import VideoReader

_READ_AHEAD_BYTES = 1 << 18  # of the file: one question to the other side per 256 KiB
_ALIVE_SECONDS = 1.0
"""A sign of life this often while frames are decoded that nobody wants, far below any limit on silence."""


def warm_up() -> None:
    """Load what decoders load when they are first used: a confined process can not open modules."""
    cv2.setNumThreads(1)
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    Image.init()
    picture = np.zeros((16, 16, 3), np.uint8)
    for file_format in ("PNG", "JPEG", "WEBP", "BMP", "TIFF"):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(
            buffer, file_format, **({"compression": "tiff_lzw"} if file_format == "TIFF" else {})
        )
        decode_image(buffer.getvalue(), "picture")
    cv2.resize(picture, (8, 8), interpolation=cv2.INTER_AREA)
    av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p").to_ndarray(format="rgb24")


def serve(end: socket.socket) -> NoReturn:
    """Do the one job that comes through ``end``, and end this process."""
    channel = Channel(end)
    try:
        job, window = channel.receive()
        if window is not None:
            limits = DecodeLimits(**job["limits"])
            link = _Link(channel, SharedBlock(window, int(job["window_bytes"])))
            job["filtered"] = confine(limits)
            _do(job, limits, link)
    except ChannelError:
        pass  # nobody waits for the rest
    finally:
        os._exit(0)


def _do(job: dict[str, Any], limits: DecodeLimits, link: _Link) -> None:
    try:
        _JOBS[job["do"]](job, limits, link)
    except FootageError as error:
        link.refuse(error)
    except ChannelError:
        raise
    except Exception as error:
        link.refuse(_explained(error, job["name"], limits))


def _explained(error: Exception, name: str, limits: DecodeLimits) -> FootageError:
    """The refusal for what no decoder raises about footage."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        limit = limits.expected("memory_mb", "MB of memory")
        return FootageError("too_large", f"{name} needs more memory to be decoded; {limit}")
    # a bug of ours or of a library's Python: the caller must hear of it
    return FootageError("internal", f"{name} can not be decoded: {type(error).__name__}: {error}")


class _Link:
    """The child's view of the one that asked: questions for bytes, and room for pixels that comes and goes."""

    def __init__(self, channel: Channel, window: SharedBlock) -> None:
        self.channel, self.window = channel, window
        self._room: SharedBlock | None = None
        self._slot_bytes = 0
        self._num_slots = 0
        self._free = 0
        self._next_slot = 0

    def refuse(self, error: FootageError) -> None:
        self.channel.send({"refused": error.reason, "detail": error.detail})

    def read(self, offset: int, num_bytes: int) -> memoryview:
        """Up to ``num_bytes`` of the file; valid until the next question."""
        self.channel.send({"read": offset, "bytes": min(num_bytes, self.window.num_bytes)})
        return memoryview(self.window.memory)[: int(self._wait_for("got")["got"])]

    def send_picture(self, picture: NDArray[Any], message: dict[str, Any]) -> None:
        """Hand over an array, waiting for room; with what is to be said about it."""
        self._make_room(picture.nbytes)
        while not self._free:
            self._take(self.channel.receive()[0])
        assert self._room is not None, "made above"
        start = self._next_slot * self._slot_bytes
        target = np.frombuffer(self._room.memory, np.uint8, picture.nbytes, start)
        np.copyto(target.reshape(picture.shape), picture.view(np.uint8))
        message = {**message, "shape": picture.shape, "slot": self._next_slot}
        self._next_slot, self._free = (self._next_slot + 1) % self._num_slots, self._free - 1
        self.channel.send(message)

    def _make_room(self, num_bytes: int) -> None:
        if num_bytes <= self._slot_bytes:
            return
        self.channel.send({"room": num_bytes})
        answer = self._wait_for("slots")
        self._slot_bytes, self._num_slots = int(answer["slot_bytes"]), int(answer["slots"])
        self._room = SharedBlock(answer["fd"], self._slot_bytes * self._num_slots)
        self._free, self._next_slot = self._num_slots, 0

    def _wait_for(self, key: str) -> dict[str, Any]:
        while True:
            message, fd = self.channel.receive()
            if key in message:
                return {**message, "fd": fd}
            self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        self._free += int(message["free"])


class _AskedFile(io.RawIOBase):
    """A file of which the other side reads what is asked for."""

    def __init__(self, link: _Link, num_bytes: int) -> None:
        self._link, self._num_bytes, self._position = link, num_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._num_bytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, target: Any) -> int:
        if self._position >= self._num_bytes:
            return 0
        data = self._link.read(self._position, len(target))
        target[: len(data)] = data
        self._position += len(data)
        return len(data)


def _opened(job: dict[str, Any], link: _Link) -> BinaryIO:
    num_bytes = int(job["num_bytes"])
    file = io.BufferedReader(_AskedFile(link, num_bytes), _READ_AHEAD_BYTES)
    # demuxers jump about, and each jump beyond what was read ahead is a question
    return io.BytesIO(file.read()) if num_bytes <= link.window.num_bytes else cast(BinaryIO, file)


def _probe(job: dict[str, Any], limits: DecodeLimits, link: _Link) -> None:
    with VideoReader(_opened(job, link), job["name"], limits) as video:
        link.channel.send({"header": asdict(video.header_with_first_frame())})


def _video(job: dict[str, Any], limits: DecodeLimits, link: _Link) -> None:
    with VideoReader(_opened(job, link), job["name"], limits) as video:
        for seconds, image in video.frames(job["fps"], on_decoded=_signs_of_life(link.channel)):
            shrunk = resize_image(image, scaled_size(image.shape[0], image.shape[1], job["max_side"]))
            link.send_picture(shrunk, {"seconds": seconds})
    link.channel.send({"end": True})


def _signs_of_life(channel: Channel) -> Callable[[int, float], None]:
    told = time.monotonic()

    def tell(num_frames: int, seconds: float) -> None:
        nonlocal told
        if time.monotonic() - told > _ALIVE_SECONDS:
            channel.send({"alive": num_frames, "at": seconds})
            told = time.monotonic()

    return tell


def _images(job: dict[str, Any], limits: DecodeLimits, link: _Link) -> None:
    for request in _requests(link):
        data = _opened(request, link).read()
        if request["image"]:
            decoded = decode_image(data, request["name"], limits)
            height, width = decoded.image.shape[:2]
            shrunk = resize_image(decoded.image, scaled_size(height, width, request["max_side"]))
            told = {"size": (height, width), "is_plain_jpeg": decoded.is_plain_jpeg}
            link.send_picture(shrunk, told)
        else:
            mask = decode_annotation(data, request["name"], limits)
            told = {"size": mask.shape}
            height, width = mask.shape
            link.send_picture(resize_annotation(mask, scaled_size(height, width, request["max_side"])), told)


def _requests(link: _Link) -> Iterator[dict[str, Any]]:
    while True:
        yield link._wait_for("image")


def _tell_confinement(job: dict[str, Any], limits: DecodeLimits, link: _Link) -> None:
    link.channel.send({"filtered": job["filtered"]})


_JOBS: dict[str, Callable[[dict[str, Any], DecodeLimits, _Link], None]] = {
    "probe": _probe,
    "video": _video,
    "images": _images,
    "confinement": _tell_confinement,
}
