"""Clips to frames: one door for video files, folders of frames and single images.

``iterate_frames`` streams: nothing but the frame at hand is kept. It takes plain values and yields plain values, so the
same call can run in a child process with limits.

A folder of frames has no timestamps: its frames count as ``FOLDER_FRAME_RATE`` per second, the rate at which DAVIS was
recorded (Perazzi et al., CVPR 2016, section 3). Its masks are paired with frames by name; frames without one are fine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from tasks.errors import FootageError, InputError
from tasks.footage import FootageItem
from tasks.footage_files import base_name, list_images, open_footage
from tasks.frame_images import (
    decode_annotation,
    decode_image,
    resize_annotation,
    resize_image,
    scaled_size,
)
from tasks.resampling import resample
from tasks.video_decode import VideoHeader, iterate_video, read_header

FOLDER_FRAME_RATE = 24.0

VideoInfo = VideoHeader


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


def iterate_frames(item: FootageItem, options: DecodeOptions = _ALL) -> Iterator[Frame]:
    """Yield the frames of a clip in order, with bounded memory.

    Raises FootageError with a reason of the closed list, possibly after frames were yielded: a clip is good only when
    the iterator came to its end.
    """
    return _video_frames(item, options) if item.kind == "video" else _image_frames(item, options)


def probe(item: FootageItem) -> VideoInfo:
    """Size, length and rate of a clip without decoding it all. Raises FootageError like ``iterate_frames``."""
    if item.kind == "video":
        return read_header(item.uri)
    uris = _image_uris(item)
    first = decode_image(_read(uris[0]), base_name(uris[0]))
    return VideoInfo(
        width=first.image.shape[1],
        height=first.image.shape[0],
        num_frames=len(uris),
        frame_rate=FOLDER_FRAME_RATE,
        duration_seconds=len(uris) / FOLDER_FRAME_RATE,
        container=item.kind,
        codec=first.format,
    )


def _video_frames(item: FootageItem, options: DecodeOptions) -> Iterator[Frame]:
    name = base_name(item.uri)
    for index, (seconds, image) in enumerate(iterate_video(item.uri, options.fps)):
        shrunk = resize_image(image, scaled_size(image.shape[0], image.shape[1], options.max_side))
        yield Frame(index=index, time_seconds=seconds, image=shrunk, source_name=name)


def _image_frames(item: FootageItem, options: DecodeOptions) -> Iterator[Frame]:
    annotations = _annotation_uris(item)
    timed = [(position / FOLDER_FRAME_RATE, uri) for position, uri in enumerate(_image_uris(item))]
    chosen = timed if options.fps is None else list(resample(timed, options.fps))
    size: tuple[int, int] | None = None
    for index, (seconds, uri) in enumerate(chosen):
        name = base_name(uri)
        data = _read(uri)
        decoded = decode_image(data, name)
        height, width = decoded.image.shape[:2]
        if size is not None and (height, width) != size:
            detail = f"{name} is {width}x{height}, frames before it are {size[1]}x{size[0]}; expected equal sizes"
            raise FootageError("mixed_sizes", detail)
        size = (height, width)
        target = scaled_size(height, width, options.max_side)
        yield Frame(
            index=index,
            time_seconds=seconds,
            image=resize_image(decoded.image, target),
            jpeg=data if decoded.is_plain_jpeg and target == size else None,
            annotation=_read_annotation(annotations.get(_stem(uri)), size, target),
            source_name=name,
        )


def _image_uris(item: FootageItem) -> tuple[str, ...]:
    return list_images(item.uri) if item.kind == "frames" else (item.uri,)


def _annotation_uris(item: FootageItem) -> dict[str, str]:
    """Masks by the stem of the frame that they belong to."""
    if item.annotation_uri is None:
        return {}
    by_stem = {_stem(uri): uri for uri in list_images(item.annotation_uri)}
    frames = {_stem(uri) for uri in _image_uris(item)}
    if not frames & by_stem.keys():
        example = base_name(next(iter(by_stem.values())))
        detail = f"no mask in {item.annotation_uri} is named like a frame of {item.uri} (such as {example})"
        raise FootageError("annotation_mismatch", detail)
    return by_stem


def _read_annotation(uri: str | None, size: tuple[int, int], target: tuple[int, int]) -> NDArray[np.bool_] | None:
    if uri is None:
        return None
    mask = decode_annotation(_read(uri), base_name(uri))
    if mask.shape != size:
        got, expected = (f"{shape[1]}x{shape[0]}" for shape in (mask.shape, size))
        raise FootageError("annotation_mismatch", f"{uri} is {got}; expected {expected} like its frame")
    return resize_annotation(mask, target)


def _read(uri: str) -> bytes:
    with open_footage(uri) as stream:
        try:
            return stream.read()
        except OSError as error:
            raise FootageError("not_found", f"can not read {uri}: {error}") from error


def _stem(uri: str) -> str:
    return PurePosixPath(base_name(uri)).stem
