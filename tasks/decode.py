"""Clips to frames: one door for video files, folders of frames and single images.

``iterate_frames`` streams: nothing but the frame at hand, and a few that are made ahead, is kept. Decoders run in a
process of their own per clip, with limits and without access to anything (``tasks/decode_session.py``): footage is not
to be trusted. This side lists folders, pairs masks with frames, and reads files.

A folder of frames has no timestamps: its frames count as ``FOLDER_FRAME_RATE`` per second, the rate at which DAVIS was
recorded (Perazzi et al., CVPR 2016, section 3). Its masks are paired with frames by name; frames without one are fine.
"""

from __future__ import annotations

import io
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tasks.decode_limits import DecodeLimits
from tasks.decode_session import DecodeSession
from tasks.errors import FootageError, InputError
from tasks.footage import FootageItem
from tasks.footage_files import base_name, list_images, open_footage
from tasks.resampling import resample
from tasks.settings import Settings
from tasks.video_info import VideoInfo

FOLDER_FRAME_RATE = 24.0
_COPIED_BYTES = 1 << 20  # at a time


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """How frames are chosen and scaled.

    fps: frames per second kept, the nearest by timestamp; None keeps all.
    max_side: longer side in pixels above which frames are shrunk; None keeps the size. Nothing is enlarged.
    """

    fps: float | None = None
    max_side: int | None = None

    def __post_init__(self) -> None:
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise InputError(f"DecodeOptions(fps={self.fps}): expected frames per second above 0, or none")
        if self.max_side is not None and self.max_side < 16:
            raise InputError(f"DecodeOptions(max_side={self.max_side}): expected at least 16 pixels, or none")


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One frame of a clip.

    index: 0, 1, 2, ... over the frames that come out.
    time_seconds: time of presentation since the clip's first frame.
    image: uint8 [H, W, 3], RGB, upright.
    jpeg: the source file's own bytes, when they are a JPEG of exactly ``image``; else None.
    annotation: bool [H, W], true for foreground; None when the frame has none.
    source_name: file that the frame came from.
    """

    index: int
    time_seconds: float
    image: NDArray[np.uint8]
    jpeg: bytes | None = None
    annotation: NDArray[np.bool_] | None = None
    source_name: str


_ALL = DecodeOptions()


def iterate_frames(
    item: FootageItem, options: DecodeOptions = _ALL, limits: DecodeLimits | None = None
) -> Iterator[Frame]:
    """Yield the frames of a clip in order, with bounded memory.

    limits: on the process that decodes; those of the settings of this process when None. Raises FootageError with a
    reason of the closed list, possibly after frames were yielded: a clip is good only when the iterator came to its
    end. Closing the iterator ends the process.
    """
    limits = Settings().decode if limits is None else limits
    yield from _video_frames(item, options, limits) if item.kind == "video" else _image_frames(item, options, limits)


def probe(item: FootageItem, limits: DecodeLimits | None = None) -> VideoInfo:
    """Size, length and rate of a clip without decoding it all. Raises FootageError like ``iterate_frames``."""
    limits = Settings().decode if limits is None else limits
    if item.kind == "video":
        name = base_name(item.uri)
        job = {"do": "probe", "name": name}
        with (
            _seekable(open_footage(item.uri, item.within), limits, name) as file,
            DecodeSession(job, limits, file) as session,
        ):
            return _header(session)
    uris = _image_uris(item)
    with _image_session(item, limits) as session:
        first = _ImageDecoder(session, limits, item.within).image(uris[0], None)
    return VideoInfo(
        width=first.size[1],
        height=first.size[0],
        num_frames=len(uris),
        frame_rate=FOLDER_FRAME_RATE,
        duration_seconds=len(uris) / FOLDER_FRAME_RATE,
    )


def _header(session: DecodeSession) -> VideoInfo:
    try:
        return VideoInfo(**session.answer()["header"])
    except (KeyError, TypeError) as error:
        raise session.nonsense(error) from error


def _video_frames(item: FootageItem, options: DecodeOptions, limits: DecodeLimits) -> Iterator[Frame]:
    name = base_name(item.uri)
    job = {"do": "video", "name": name, "fps": options.fps, "max_side": options.max_side}
    with (
        _seekable(open_footage(item.uri, item.within), limits, name) as file,
        DecodeSession(job, limits, file) as session,
    ):
        index = 0
        while "end" not in (message := session.answer()):
            seconds = _seconds(session, message)
            limits.check_length(index + 1, seconds, name)
            yield Frame(index=index, time_seconds=seconds, image=session.picture(message), source_name=name)
            index += 1


def _seconds(session: DecodeSession, message: dict[str, Any]) -> float:
    try:
        return float(message["seconds"])
    except (KeyError, TypeError, ValueError) as error:
        raise session.nonsense(error) from error


def _image_frames(item: FootageItem, options: DecodeOptions, limits: DecodeLimits) -> Iterator[Frame]:
    annotations = _annotation_uris(item)
    timed = [(position / FOLDER_FRAME_RATE, uri) for position, uri in enumerate(_image_uris(item))]
    limits.check_length(len(timed), timed[-1][0], base_name(item.uri))
    chosen = timed if options.fps is None else list(resample(timed, options.fps))
    size: tuple[int, int] | None = None
    with _image_session(item, limits) as session:
        decoder = _ImageDecoder(session, limits, item.within)
        for index, (seconds, uri) in enumerate(chosen):
            decoded = decoder.image(uri, options.max_side)
            height, width = decoded.size
            if size is not None and decoded.size != size:
                got, before = f"{width}x{height}", f"{size[1]}x{size[0]}"
                detail = f"{base_name(uri)} is {got}, frames before it are {before}; expected equal sizes"
                raise FootageError("mixed_sizes", detail)
            size = decoded.size
            mask_uri = annotations.get(_stem(uri))
            yield Frame(
                index=index,
                time_seconds=seconds,
                image=decoded.image,
                jpeg=decoded.jpeg,
                annotation=None if mask_uri is None else decoder.mask(mask_uri, size, options.max_side),
                source_name=base_name(uri),
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class _DecodedFile:
    """size: (height, width) before it was shrunk. jpeg: the file's own bytes where they show exactly ``image``."""

    image: NDArray[np.uint8]
    size: tuple[int, int]
    jpeg: bytes | None


class _ImageDecoder:
    """Image files of one clip, decoded in one process."""

    def __init__(self, session: DecodeSession, limits: DecodeLimits, within: str | None) -> None:
        self._session, self._limits, self._within = session, limits, within

    def image(self, uri: str, max_side: int | None) -> _DecodedFile:
        data, message, image, size = self._decode(uri, max_side, is_image=True)
        is_same = bool(message.get("is_plain_jpeg")) and image.shape[:2] == size
        return _DecodedFile(image=image, size=size, jpeg=data if is_same else None)

    def mask(self, uri: str, expected: tuple[int, int], max_side: int | None) -> NDArray[np.bool_]:
        _, _, mask, size = self._decode(uri, max_side, is_image=False)
        if size != expected:
            got, wanted = (f"{shape[1]}x{shape[0]}" for shape in (size, expected))
            raise FootageError("annotation_mismatch", f"{uri} is {got}; expected {wanted} like its frame")
        return mask.astype(np.bool_)

    def _decode(
        self, uri: str, max_side: int | None, *, is_image: bool
    ) -> tuple[bytes, dict[str, Any], NDArray[np.uint8], tuple[int, int]]:
        data = self._read(uri)
        request = {"image": is_image, "name": base_name(uri), "max_side": max_side}
        message = self._session.ask(request, io.BytesIO(data), len(data))
        picture = self._session.picture(message)
        try:
            height, width = message["size"]
            size = (int(height), int(width))
        except (KeyError, TypeError, ValueError) as error:
            raise self._session.nonsense(error) from error
        if picture.ndim != (3 if is_image else 2):
            raise self._session.nonsense(ValueError(f"a picture of shape {picture.shape}"))
        return data, message, picture, size

    def _read(self, uri: str) -> bytes:
        """The whole file, of which no more than the limit is ever held."""
        with open_footage(uri, self._within) as stream:
            try:
                data = stream.read(self._limits.max_image_bytes + 1)
            except OSError as error:
                raise FootageError("not_found", f"can not read {uri}: {error}") from error
        self._limits.check_bytes(len(data), base_name(uri), is_image=True)
        return data


def _image_uris(item: FootageItem) -> tuple[str, ...]:
    return list_images(item.uri, item.within) if item.kind == "frames" else (item.uri,)


def _annotation_uris(item: FootageItem) -> dict[str, str]:
    """Masks by the stem of the frame that they belong to."""
    if item.annotation_uri is None:
        return {}
    by_stem = {_stem(uri): uri for uri in list_images(item.annotation_uri, item.within)}
    frames = {_stem(uri) for uri in _image_uris(item)}
    if not frames & by_stem.keys():
        example = base_name(next(iter(by_stem.values())))
        detail = f"no mask in {item.annotation_uri} is named like a frame of {item.uri} (such as {example})"
        raise FootageError("annotation_mismatch", detail)
    return by_stem


def _image_session(item: FootageItem, limits: DecodeLimits) -> DecodeSession:
    return DecodeSession({"do": "images", "name": base_name(item.uri)}, limits)


@contextmanager
def _seekable(stream: BinaryIO, limits: DecodeLimits, name: str) -> Iterator[BinaryIO]:
    """The stream itself, or a copy in a temporary file for servers that only send a file from front to back."""
    with stream:
        if _can_seek(stream):
            yield stream
            return
        with tempfile.TemporaryFile() as copy:
            _copy(stream, copy, limits, name)
            copy.seek(0)
            yield copy


def _can_seek(stream: BinaryIO) -> bool:
    """Whether it really can: fsspec's streams from web servers say so, and raise ValueError when they are asked to."""
    try:
        stream.seek(0, os.SEEK_END)
        stream.seek(0)
    except (OSError, ValueError):
        return False
    return True


def _copy(stream: BinaryIO, copy: BinaryIO, limits: DecodeLimits, name: str) -> None:
    """Copy no more than the limit, since a server need not end, and a disk does."""
    num_bytes = 0
    try:
        while chunk := stream.read(_COPIED_BYTES):
            num_bytes += len(chunk)
            limits.check_bytes(num_bytes, f"{name}, of which more may follow,")
            copy.write(chunk)
    except OSError as error:
        raise FootageError("not_found", f"{name} could not be read to its end: {error}") from error


def _stem(uri: str) -> str:
    return PurePosixPath(base_name(uri)).stem
