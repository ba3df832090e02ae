"""Frames of video files through PyAV: upright, in order of presentation, timed by their timestamps.

Memory is bounded by the few frames that the decoder holds, however long the video is. Local files are opened by their
path with only the ``file`` protocol allowed, remote ones through fsspec file objects with none allowed.
"""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from tasks.errors import FootageError
from tasks.footage_files import base_name, open_footage
from tasks.frame_images import check_frame_size
from tasks.resampling import resample
from tasks.storage import location
from tasks.video_container import HEAD_BYTES, check_complete, sniff_container

_FALLBACK_FRAME_RATE = 25.0  # for streams that carry neither timestamps nor a rate; raw AVI at worst


@dataclass(frozen=True, kw_only=True)
class VideoHeader:
    """What a video tells before it is decoded. width and height are those of the upright frame, in pixels."""

    width: int
    height: int
    num_frames: int | None
    frame_rate: float | None
    duration_seconds: float | None
    container: str
    codec: str


def iterate_video(uri: str, fps: float | None) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Yield (seconds since the first frame, RGB uint8 [H, W, 3]) of a video; ``fps`` as in ``resample``.

    Raises FootageError: "not_found", "not_video", "no_video_stream", "too_large", "mixed_sizes", or "corrupt" as
    soon as the damage is met, which may be after frames were yielded.
    """
    with _open_video(uri) as (container, stream), _explained(uri):
        frames = _timed(container, stream)
        converter = _Converter()
        size = None
        for seconds, frame in frames if fps is None else resample(frames, fps):
            image = converter.to_upright_rgb(frame)
            if size is not None and image.shape != size:
                detail = f"{base_name(uri)} changes from {_size(size)} to {_size(image.shape)} at {seconds:.2f} s"
                raise FootageError("mixed_sizes", detail)
            size = image.shape
            yield seconds, image


def read_header(uri: str) -> VideoHeader:
    """Read a video's header and first frame, which holds the rotation. Raises FootageError like iterate_video."""
    with _open_video(uri) as (container, stream), _explained(uri):
        first = next(_timed(container, stream), None)
        if first is None:
            raise FootageError("corrupt", f"{base_name(uri)} has a video stream without a frame")
        height, width, _ = _Converter().to_upright_rgb(first[1]).shape
        duration = stream.duration * stream.time_base if stream.duration else None
        if duration is None and container.duration:
            duration = container.duration / av.time_base
        return VideoHeader(
            width=width,
            height=height,
            num_frames=stream.frames or None,
            frame_rate=float(stream.average_rate) if stream.average_rate else None,
            duration_seconds=None if duration is None else float(duration),
            container=container.format.name.split(",")[0],
            codec=stream.codec_context.name,
        )


def apply_display_matrix(image: NDArray[np.uint8], matrix: tuple[int, ...]) -> NDArray[np.uint8]:
    """Turn and mirror ``image`` [H, W, 3] as a display matrix says, to the nearest multiple of 90 degrees.

    matrix: nine numbers a b u c d v x y w (ISO/IEC 14496-12, 6.2.2): column x, row y is shown at column a x + c y,
    row b x + d y; the translation and the perspective (u v x y w) do not change what is seen.
    """
    a, b, _, c, d = matrix[:5]
    if abs(b) + abs(c) > abs(a) + abs(d):
        image = image.transpose(1, 0, 2)
        flip_columns, flip_rows = c < 0, b < 0
    else:
        flip_columns, flip_rows = a < 0, d < 0
    return np.ascontiguousarray(image[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1])


@contextmanager
def _open_video(uri: str) -> Iterator[tuple[Any, Any]]:
    """The container and its first real video stream (cover art is none)."""
    with _explained(uri), _seekable(open_footage(uri)) as file:
        demuxer = sniff_container(file.read(HEAD_BYTES))
        check_complete(file, demuxer)
        file.seek(0)
        is_local = "::" not in uri and location(uri).is_local
        source, protocols = (location(uri).path, "file") if is_local else (file, "none")
        options = {"protocol_whitelist": protocols}
        with av.open(source, format=demuxer, options=options, metadata_errors="replace") as container:
            yield container, _video_stream(container, uri)


def _video_stream(container: Any, uri: str) -> Any:
    cover_art = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover_art]
    if not streams:
        kinds = {"cover art" if stream.type == "video" else stream.type for stream in container.streams}
        others = ", ".join(sorted(kinds)) or "no streams"
        raise FootageError("no_video_stream", f"{base_name(uri)} holds {others}; expected a video stream")
    stream = streams[0]
    if stream.codec_context is None:
        raise FootageError("no_video_stream", f"{base_name(uri)} is coded in a way that ffmpeg does not know")
    check_frame_size(stream.codec_context.width, stream.codec_context.height, base_name(uri))
    return stream


def _timed(container: Any, stream: Any) -> Iterator[tuple[float, Any]]:
    """Frames with seconds since the first one, never falling; missing timestamps continue at the stream's rate."""
    rate = float(stream.average_rate) if stream.average_rate else _FALLBACK_FRAME_RATE
    start: float | None = None
    previous = -1.0 / rate
    for frame in container.decode(stream):
        if frame.is_corrupt:
            raise FootageError("corrupt", f"the picture at {previous + 1 / rate:.2f} s is damaged")
        if frame.pts is None:
            seconds = previous + 1.0 / rate
        else:
            position = float(frame.pts * stream.time_base)
            start = position if start is None else start
            seconds = position - start
        previous = max(seconds, previous, 0.0)
        yield previous, frame


class _Converter:
    """Decoded frames of one video to upright RGB, by the display matrix of its first frame."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()  # one for all frames, since each builds tables of its own
        self._is_first = True
        self._matrix: tuple[int, ...] | None = None

    def to_upright_rgb(self, frame: Any) -> NDArray[np.uint8]:
        """Uint8 [H, W, 3] of a decoded frame."""
        if self._is_first:
            # Once only: a frame and its side data hold each other, so memory would grow until Python looks for cycles.
            matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
            self._matrix = None if matrix is None else struct.unpack("=9i", bytes(matrix))
            self._is_first = False
        image = np.asarray(self._reformatter.reformat(frame, format="rgb24").to_ndarray(), dtype=np.uint8)
        return image if self._matrix is None else apply_display_matrix(image, self._matrix)


@contextmanager
def _seekable(stream: BinaryIO) -> Iterator[BinaryIO]:
    """The stream itself, or a copy in a temporary file for servers that only send a file from front to back."""
    with stream:
        if stream.seekable():
            yield stream
            return
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(stream, copy)
            copy.seek(0)
            yield copy


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as error:
        raise FootageError("corrupt", f"{base_name(uri)} can not be decoded: {error.strerror}") from error
    except (OSError, ValueError) as error:  # a remote file that stopped answering
        raise FootageError("not_found", f"{base_name(uri)} could not be read to its end: {error}") from error


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
