"""Frames of video files through PyAV: upright, in order of presentation, timed by their timestamps.

Runs in the process of ``tasks/decode_child.py``. ffmpeg gets bytes from a file object and may use no protocol at all,
so nothing in a file makes it open another. Memory is bounded by the few frames that the decoder holds, however long
the video is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from tasks.decode_limits import DecodeLimits
from tasks.errors import FootageError
from tasks.resampling import resample
from tasks.video_container import HEAD_BYTES, check_complete, sniff_container
from tasks.video_info import VideoInfo

_FALLBACK_FRAME_RATE = 25.0  # for streams that carry neither timestamps nor a rate; raw AVI at worst


class VideoReader:
    """One video, opened from ``file`` for the length of a ``with`` block.

    name: for messages. Every method, and entering, raises FootageError: "not_video", "no_video_stream", "too_large",
    "mixed_sizes", or "corrupt" as soon as the damage is met, which may be after frames were yielded.
    """

    def __init__(self, file: BinaryIO, name: str, limits: DecodeLimits) -> None:
        self._file, self._name, self._limits = file, name, limits
        self._resources = ExitStack()

    def __enter__(self) -> VideoReader:
        with _explained(self._name):
            demuxer = sniff_container(self._file.read(HEAD_BYTES))
            check_complete(self._file, demuxer)
            self._file.seek(0)
            opened = av.open(
                self._file, format=demuxer, options={"protocol_whitelist": "none"}, metadata_errors="replace"
            )
            self._container = self._resources.enter_context(opened)
            self._stream = self._video_stream()
        return self

    def __exit__(self, *exception: object) -> None:
        self._resources.close()

    def frames(
        self, fps: float | None, *, on_decoded: Callable[[int, float], None] | None = None
    ) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Yield (seconds since the first frame, RGB uint8 [H, W, 3]); ``fps`` as in ``resample``.

        on_decoded: called for every frame, also those left out, with their number so far and its seconds.
        """
        with _explained(self._name):
            frames = self._timed(on_decoded)
            converter = _Converter()
            size = None
            for seconds, frame in frames if fps is None else resample(frames, fps):
                self._limits.check_frame_size(frame.width, frame.height, self._name)
                image = converter.to_upright_rgb(frame)
                if size is not None and image.shape != size:
                    detail = f"{self._name} changes from {_size(size)} to {_size(image.shape)} at {seconds:.2f} s"
                    raise FootageError("mixed_sizes", detail)
                size = image.shape
                yield seconds, image

    def header_with_first_frame(self) -> VideoInfo:
        """The header; decodes the first frame, which holds the rotation."""
        with _explained(self._name):
            first = next(self._timed(None), None)
            if first is None:
                raise FootageError("corrupt", f"{self._name} has a video stream without a frame")
            height, width, _ = _Converter().to_upright_rgb(first[1]).shape
        stream = self._stream
        return VideoInfo(
            width=width,
            height=height,
            num_frames=stream.frames or None,
            frame_rate=float(stream.average_rate) if stream.average_rate else None,
            duration_seconds=self._declared_seconds(),
        )

    def _video_stream(self) -> Any:
        """The first real video stream: cover art is none."""
        cover_art = av.stream.Disposition.attached_pic
        streams = [stream for stream in self._container.streams.video if not stream.disposition & cover_art]
        if not streams:
            kinds = {"cover art" if stream.type == "video" else stream.type for stream in self._container.streams}
            others = ", ".join(sorted(kinds)) or "no streams"
            raise FootageError("no_video_stream", f"{self._name} holds {others}; expected a video stream")
        stream = streams[0]
        if stream.codec_context is None:
            raise FootageError("no_video_stream", f"{self._name} is coded in a way that ffmpeg does not know")
        self._limits.check_frame_size(stream.codec_context.width, stream.codec_context.height, self._name)
        stream.codec_context.thread_count = self._limits.threads
        stream.codec_context.options = {"max_pixels": str(self._limits.max_frame_pixels)}  # for sizes that change
        return stream

    def _declared_seconds(self) -> float | None:
        stream = self._stream
        if stream.duration:
            return float(stream.duration * stream.time_base)
        return self._container.duration / av.time_base if self._container.duration else None

    def _timed(self, on_decoded: Callable[[int, float], None] | None) -> Iterator[tuple[float, Any]]:
        """Frames with seconds since the first one, never falling; missing timestamps continue at the stream's rate."""
        stream = self._stream
        rate = float(stream.average_rate) if stream.average_rate else _FALLBACK_FRAME_RATE
        self._limits.check_length(stream.frames, self._declared_seconds() or 0.0, self._name)
        start: float | None = None
        previous = -1.0 / rate
        for number, frame in enumerate(self._container.decode(stream), start=1):
            if frame.is_corrupt:
                raise FootageError("corrupt", f"the picture at {previous + 1 / rate:.2f} s is damaged")
            if frame.pts is None:
                seconds = previous + 1.0 / rate
            else:
                position = float(frame.pts * stream.time_base)
                start = position if start is None else start
                seconds = position - start
            previous = max(seconds, previous, 0.0)
            self._limits.check_length(number, previous, self._name)
            if on_decoded is not None:
                on_decoded(number, previous)
            yield previous, frame


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


class _Converter:
    """Decoded frames of one video to upright RGB, by the display matrix of its first frame."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()  # one for all frames, since each builds tables of its own
        self._is_first = True
        self._matrix: tuple[int, ...] | None = None

    def to_upright_rgb(self, frame: Any) -> NDArray[np.uint8]:
        """Uint8 [H, W, 3] of a decoded frame; rows may lie apart, as ffmpeg aligns them."""
        if self._is_first:
            # Once only: a frame and its side data hold each other, so memory would grow until Python looks for cycles.
            matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
            self._matrix = None if matrix is None else struct.unpack("=9i", bytes(matrix))
            self._is_first = False
        plane = self._reformatter.reformat(frame, format="rgb24").planes[0]
        # a view, not to_ndarray's copy: whoever takes the picture copies it into shared memory
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(frame.height, plane.line_size)
        image = rows[:, : 3 * frame.width].reshape(frame.height, frame.width, 3)
        return image if self._matrix is None else apply_display_matrix(image, self._matrix)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except (av.FFmpegError, OSError, OverflowError, ValueError) as error:  # sizes of 64 bits overflow seek
        said = getattr(error, "strerror", None) or error
        raise FootageError("corrupt", f"{name} can not be decoded: {said}") from error


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
