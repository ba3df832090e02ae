"""How fast an ingest is, in a line: frames and megabytes a second, what was rejected, and when it will be done."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from tasks.ingest import IngestProgress


class IngestRates:
    """Adds up what it is told from its construction on; ``str`` is the line as it is now."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._started = clock, clock()
        self._num_frames = self._num_bytes = self._num_rejected = self._num_done = self._num_left = 0

    def line(self, progress: IngestProgress) -> str:
        """Add the video that ended, and return the line."""
        outcome = progress.outcome
        self._num_frames += outcome.num_frames
        self._num_bytes += outcome.num_bytes
        self._num_rejected += outcome.status == "rejected"
        self._num_done, self._num_left = progress.num_done, progress.num_total - progress.num_done
        return f"{self}, {outcome.clip}"

    def __str__(self) -> str:
        seconds = max(self._clock() - self._started, 1e-9)
        parts = [
            f"{self._num_frames / seconds:.1f} frames/s",
            f"{self._num_bytes / seconds / 1e6:.1f} MB/s",
            f"{self._num_rejected} rejected",
        ]
        if self._num_done and self._num_left:
            parts.append(f"{timedelta(seconds=round(seconds / self._num_done * self._num_left))} left")
        return ", ".join(parts)
