"""What is known of a clip before it is decoded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """Size of the upright frame in pixels, and what the header says of rate and length; None where it says nothing."""

    width: int
    height: int
    num_frames: int | None
    frame_rate: float | None
    duration_seconds: float | None
