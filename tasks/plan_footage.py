"""What footage tells of itself before it is decoded: how many frames of which size an ingest would store of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tasks.decode import probe
from tasks.errors import FootageError
from tasks.frame_images import scaled_size
from tasks.identity import Recipe
from tasks.ingest_plan import PlannedVideo
from tasks.video_info import VideoInfo

_THREADS = 4  # opening a file is mostly waiting


@dataclass(frozen=True, kw_only=True)
class Footage:
    """What a header promises about the rows of a video.

    num_frames: rows after the recipe's choice of frames; None when the header does not tell.
    num_pixels: of one row. seconds: length of the footage.
    problem: why it can not even be opened; the rest is zero or None then.
    """

    num_frames: int | None = None
    num_pixels: int = 0
    seconds: float | None = None
    problem: str | None = None

    @property
    def work(self) -> int:
        """Pixels over all rows; decoding, optical flow and storage grow with them."""
        return (self.num_frames or 0) * self.num_pixels


def read_headers(
    videos: Sequence[PlannedVideo], recipe: Recipe, on_progress: Callable[[int, int], None] | None = None
) -> dict[str, Footage]:
    """Open every video, and tell by source what it promises. on_progress: called with the number done and of all."""
    footage = {}
    with ThreadPoolExecutor(_THREADS) as threads:
        for video, found in zip(videos, threads.map(lambda video: _read(video, recipe), videos), strict=True):
            footage[video.source] = found
            if on_progress:
                on_progress(len(footage), len(videos))
    return footage


def _read(video: PlannedVideo, recipe: Recipe) -> Footage:
    try:
        return promised(probe(video.wanted.item), recipe)
    except FootageError as error:
        return Footage(problem=str(error))


def promised(info: VideoInfo, recipe: Recipe) -> Footage:
    """What a header promises, given how the recipe chooses and scales frames."""
    height, width = scaled_size(info.height, info.width, recipe.max_side)
    seconds, num_frames = info.duration_seconds, info.num_frames
    if seconds is None and num_frames is not None and info.frame_rate:
        seconds = num_frames / info.frame_rate
    if num_frames is None and seconds is not None and info.frame_rate:
        num_frames = round(seconds * info.frame_rate)
    if recipe.fps is not None and seconds is not None:
        kept = math.ceil(seconds * recipe.fps)
        num_frames = kept if num_frames is None else min(num_frames, kept)
    return Footage(num_frames=num_frames, num_pixels=height * width, seconds=seconds)
