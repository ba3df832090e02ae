"""Pictures to an H.264 file, one at a time: nothing of a video is held but the frame at hand."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from tasks.errors import InputError
from tasks.pictures import Picture

_TIME_BASE = Fraction(1, 90_000)  # MPEG's clock: whole ticks at 24, 25, 30, 50 and 60 frames a second


class VideoWriter:
    """Writes uint8 RGB frames of one size as H.264 in yuv420p, which every browser and player shows.

    Odd sizes lose nothing: the last row or column is repeated to make them even, as 4:2:0 colour needs. A context
    manager; the file is complete after ``close`` only, so write to a temporary name and rename.
    """

    def __init__(self, path: Path, *, fps: float, crf: int = 20) -> None:
        """``crf``: x264's quality, 18 is visually lossless, each 6 more halve the size."""
        if not 0 < fps <= 1000:
            raise InputError(f"VideoWriter(fps={fps}): expected frames a second between 0 and 1000")
        self._container = av.open(str(path), mode="w", format="mp4", options={"movflags": "+faststart"})
        self._rate = Fraction(fps).limit_denominator(1001)
        self._crf = crf
        self._stream: av.VideoStream | None = None
        self._size: tuple[int, int] | None = None
        self._last_tick = -1
        self.num_frames = 0

    def write(self, picture: Picture, time_seconds: float | None = None) -> None:
        """Append a frame, shown from ``time_seconds`` on; None: one frame interval after the one before."""
        if self._size not in (None, picture.shape[:2]):
            raise InputError(f"frame {self.num_frames} is {picture.shape[:2]}, expected {self._size}")
        self._size = picture.shape[:2]
        even = np.pad(picture, ((0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)), mode="edge")
        stream = self._stream or self._open(even.shape[1], even.shape[0])
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        seconds = Fraction(self.num_frames) / self._rate if time_seconds is None else Fraction(time_seconds)
        # Players refuse frames that go back or stand still in time.
        self._last_tick = max(self._last_tick + 1, round(seconds / _TIME_BASE))
        frame.pts, frame.time_base = self._last_tick, _TIME_BASE
        self._container.mux(stream.encode(frame))
        self.num_frames += 1

    def close(self) -> None:
        """Write what the encoder still holds and finish the file."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def _open(self, width: int, height: int) -> av.VideoStream:
        stream = self._container.add_stream("libx264", rate=self._rate)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = _TIME_BASE
        # "veryfast" looks 10 frames ahead instead of 40: less memory, a third of the time, 10 % larger files.
        stream.options = {"crf": str(self._crf), "preset": "veryfast"}
        self._stream = stream
        return stream

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._container.close()
