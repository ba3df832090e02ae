"""Choosing frames at a steady rate out of a stream with any timestamps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_SAME_TIME_SECONDS = 1e-6  # far below any frame period, far above the rounding of a double after hours


def resample(frames: Iterable[tuple[float, T]], fps: float) -> Iterator[tuple[float, T]]:
    """Yield the frame nearest to each of the times t0, t0 + 1/fps, t0 + 2/fps, ... up to the last frame.

    frames: (seconds, frame) with times that never fall. Of two equally near frames the earlier is taken. A frame is
    yielded once, with its own time: where the stream has fewer frames than ``fps`` asks for, all of them come and
    none is repeated, since a repeated frame would look like an object that stopped. Holds one frame at a time, and
    takes the same time for a gap of years, as a damaged timestamp leaves it, as for one of a frame.
    """
    start: float | None = None
    tick = 0
    held: tuple[float, T] | None = None
    for current in frames:
        if start is None:
            start = current[0]
        if held is not None:
            middle = (held[0] + current[0] + _SAME_TIME_SECONDS) / 2
            last_tick = math.floor((middle - start) * fps)  # of those that are nearer to the held frame
            if last_tick >= tick:
                yield held
                tick = last_tick + 1
        held = current
    if held is not None and start is not None and start + tick / fps <= held[0] + _SAME_TIME_SECONDS:
        yield held
