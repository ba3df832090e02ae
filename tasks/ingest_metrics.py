"""What an ingest tells Prometheus, through Ray: every node of the cluster serves it beside Ray's own metrics.

=================================  =========  ===================================================================
name, as Prometheus has it         kind       what
=================================  =========  ===================================================================
ray_gwm_ingest_videos_total        counter    videos that ended; labels ``status``, and ``reason`` when rejected
ray_gwm_ingest_frames_total        counter    frames written; published within the batch
ray_gwm_ingest_bytes_total         counter    bytes of the shards written
ray_gwm_ingest_video_seconds       histogram  time an actor worked on a video
ray_gwm_ingest_commits_total       counter    transactions that made shards visible
ray_gwm_ingest_videos_left         gauge      videos of the running batch that did not end yet
=================================  =========  ===================================================================

All carry the label ``dataset``. Where no Ray runs, as with ``GWM_INGEST_ACTORS=0``, nobody is told.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import ray
from ray.util.metrics import Counter, Gauge, Histogram

_SECONDS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0]
"""Bounds of the histogram: from a few small frames to an hour of video on a CPU."""


class IngestMetrics:
    """Tells of one dataset."""

    def __init__(self, dataset: str) -> None:
        self._dataset = {"dataset": dataset}

    def video_ended(
        self, status: str, reason: str, *, num_frames: int, num_bytes: int, seconds: float, num_left: int
    ) -> None:
        """Count a video and what was written of it."""
        if not ray.is_initialized():
            return
        names = _metrics()
        why = reason if status == "rejected" else ""
        names["videos"].inc(1, tags={**self._dataset, "status": status, "reason": why})
        for name, amount in (("frames", num_frames), ("bytes", num_bytes)):
            if amount:
                names[name].inc(amount, tags=self._dataset)
        names["video_seconds"].observe(seconds, tags=self._dataset)
        names["videos_left"].set(num_left, tags=self._dataset)

    def committed(self) -> None:
        """Count a transaction."""
        if ray.is_initialized():
            _metrics()["commits"].inc(1, tags=self._dataset)


@lru_cache(maxsize=1)
def _metrics() -> dict[str, Any]:
    """One of each in a process; Ray keeps them by name."""
    of_dataset = ("dataset",)
    return {
        "videos": Counter(
            "gwm_ingest_videos", description="Videos that ended.", tag_keys=("dataset", "status", "reason")
        ),
        "frames": Counter("gwm_ingest_frames", description="Frames written.", tag_keys=of_dataset),
        "bytes": Counter("gwm_ingest_bytes", description="Bytes of shards written.", tag_keys=of_dataset),
        "commits": Counter("gwm_ingest_commits", description="Transactions.", tag_keys=of_dataset),
        "video_seconds": Histogram(
            "gwm_ingest_video_seconds",
            description="Seconds of work on a video.",
            boundaries=_SECONDS,
            tag_keys=of_dataset,
        ),
        "videos_left": Gauge("gwm_ingest_videos_left", description="Videos of the batch to do.", tag_keys=of_dataset),
    }
