"""Stored rows against rows made again: what must be equal, and how unequal they are.

- the number of frames of every shot, their sizes and their times;
- pictures: bit for bit where the source's own JPEG files are stored; else the decoded pictures, to within
  MAX_MEAN_DIFFERENCE, since other builds of FFmpeg and libjpeg round colours differently;
- annotations: every pixel;
- optical flow: to within MAX_FLOW_DIFFERENCE_PX in every component of every pixel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.decode import Frame
from tasks.flow_codec import STEPS_PER_PIXEL, decode_flow
from tasks.schema import flow_column
from tasks.shards import FrameRow
from tasks.verify_shards import ProblemKind

MAX_FLOW_DIFFERENCE_PX = 1 / STEPS_PER_PIXEL
"""One step of stored flow: values that agree may still be rounded to neighbouring steps."""

MAX_MEAN_DIFFERENCE = 1.0
"""Grey levels, of 255, by which decoded pictures may differ on average: the rounding of one colour conversion."""

_SAME_TIME_SECONDS = 1e-6  # times are fractions in the container and float64 in the table

StoredRow = Mapping[str, Any]


@dataclass(kw_only=True)
class Difference:
    """Frames that differ in one way. worst: by how much the worst of them does; example: what is told of the first."""

    num_frames: int = 0
    first_frame: int = 0
    last_frame: int = -1
    worst: float = 0.0
    example: str = ""


class RowComparison:
    """Takes pairs of rows in order and keeps count; memory does not grow with their number."""

    def __init__(self) -> None:
        self.differences: dict[ProblemKind, Difference] = {}
        self.num_frames = 0
        self.num_equal = 0
        self.max_flow_px = 0.0
        self._is_file: deque[bool] = deque()  # of frames under way: whether the source's own bytes are stored

    def watched(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Pass frames on to what makes rows of them, noting which are stored as the files they are."""
        for frame in frames:
            self._is_file.append(frame.jpeg is not None)
            yield frame

    def take(self, stored: StoredRow | None, made: FrameRow | None) -> None:
        """Compare a frame. None: there is no such row."""
        number = self.num_frames
        self.num_frames += 1
        is_file = self._is_file.popleft() if made is not None else False
        if stored is None or made is None:
            self.note("frames", number, 1, "not stored" if stored is None else "stored, but not in the source")
            return
        self._compare_frames(number, stored, made)
        self._compare_pictures(number, stored["jpeg"], made.jpeg, is_file=is_file)
        self._compare_annotations(number, stored["annotation"], made.annotation)
        for gap, flow in made.flows.items():
            self._compare_flow(number, gap, stored[flow_column(gap)], flow)

    def skip(self, frames: Iterable[Frame]) -> None:
        """Pass over watched frames that no rows are made of."""
        for _ in frames:
            self._is_file.popleft()

    def note(self, kind: ProblemKind, frame: int, worst: float, example: str) -> None:
        """Count a frame that differs."""
        found = self.differences.setdefault(kind, Difference(first_frame=frame, example=example))
        found.num_frames += frame != found.last_frame  # several gaps of one frame may differ
        found.last_frame = frame
        found.worst = max(found.worst, worst)

    def _compare_frames(self, number: int, stored: StoredRow, made: FrameRow) -> None:
        difference = abs(stored["time_seconds"] - made.time_seconds)
        if difference > _SAME_TIME_SECONDS:
            self.note("frames", number, difference, f"at {stored['time_seconds']} s, now at {made.time_seconds} s")
        sizes = (stored["width"], stored["height"]), (made.width, made.height)
        if sizes[0] != sizes[1]:
            self.note("frames", number, 1, f"stored as {sizes[0][0]}x{sizes[0][1]}, now {made.width}x{made.height}")

    def _compare_pictures(self, number: int, stored: bytes, made: bytes, *, is_file: bool) -> None:
        if stored == made:
            self.num_equal += 1
            return
        if is_file:
            self.note("pictures", number, 1, "not the bytes of the source's file")
            return
        difference = _mean_difference(stored, made)
        if difference > MAX_MEAN_DIFFERENCE:
            self.note("pictures", number, difference, f"{difference:.2f} grey levels off on average")

    def _compare_annotations(self, number: int, stored: bytes | None, made: bytes | None) -> None:
        if stored == made:
            return
        if stored is None or made is None:
            self.note("annotations", number, 1, "there was none" if stored is None else "there is none now")
        elif not _same_pixels(stored, made):
            self.note("annotations", number, 1, "other pixels")

    def _compare_flow(self, number: int, gap: int, stored: bytes | None, made: bytes | None) -> None:
        if stored == made:
            return
        if stored is None or made is None:
            self.note(
                "flow", number, float("inf"), f"gap {gap}: {'not stored' if stored is None else 'stored, not made'}"
            )
            return
        before, after = decode_flow(stored), decode_flow(made)
        if before.shape != after.shape:
            self.note("flow", number, float("inf"), f"gap {gap}: of shape {before.shape}, now {after.shape}")
            return
        difference = float(np.abs(before - after).max())
        self.max_flow_px = max(self.max_flow_px, difference)
        if difference > MAX_FLOW_DIFFERENCE_PX:
            self.note("flow", number, difference, f"gap {gap}: up to {difference:.3f} px off")


def _mean_difference(first: bytes, second: bytes) -> float:
    """Mean absolute difference of two pictures in grey levels; infinite when they can not be compared."""
    before, after = _decoded(first, cv2.IMREAD_COLOR), _decoded(second, cv2.IMREAD_COLOR)
    if before is None or after is None or before.shape != after.shape:
        return float("inf")
    return float(cv2.absdiff(before, after).mean())


def _same_pixels(first: bytes, second: bytes) -> bool:
    before, after = _decoded(first, cv2.IMREAD_UNCHANGED), _decoded(second, cv2.IMREAD_UNCHANGED)
    return before is not None and after is not None and np.array_equal(before, after)


def _decoded(data: bytes, flags: int) -> NDArray[np.uint8] | None:
    picture: NDArray[np.uint8] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return picture
