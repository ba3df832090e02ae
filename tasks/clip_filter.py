"""Which clips of a dataset are worth training on: long enough, and with something moving in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tasks.clips import read_clips
from tasks.config import DataConfig
from tasks.errors import DatasetError
from tasks.snapshot import ClipKey, DatasetSnapshot, StoredClip


def training_clips(snapshot: DatasetSnapshot, config: DataConfig) -> DatasetSnapshot:
    """Leave out the clips that ``config`` does not want; looks their motion up only when it is asked for.

    Raises DatasetError when none is left.
    """
    motion = mean_motion(snapshot.uri) if config.min_motion > 0 else {}
    return keep_clips(snapshot, motion, min_frames=config.min_frames, min_motion=config.min_motion)


def keep_clips(
    snapshot: DatasetSnapshot, motion: Mapping[ClipKey, float | None], *, min_frames: int, min_motion: float
) -> DatasetSnapshot:
    """Keep clips of at least ``min_frames`` frames and ``min_motion`` mean motion.

    A clip whose motion is not known, as of schema version 1, is kept. Raises DatasetError when none is left.
    """

    def is_wanted(clip: StoredClip) -> bool:
        moves = motion.get(clip.key)
        return clip.num_frames >= min_frames and (moves is None or moves >= min_motion)

    wanted = {clip.key for clip in snapshot.clips if is_wanted(clip)}
    if snapshot.clips and not wanted:
        raise DatasetError(
            f"none of {len(snapshot.clips)} clips of {snapshot.uri} has {min_frames} frames and a mean motion of "
            f"{min_motion:g}: lower data.min_frames or data.min_motion"
        )
    if len(wanted) == len(snapshot.clips):
        return snapshot
    videos = [
        replace(video, shards=tuple(shard for clip in video.clips if clip.key in wanted for shard in clip.shards))
        for video in snapshot.videos
    ]
    return replace(snapshot, videos=tuple(video for video in videos if video.shards))


def mean_motion(uri: str) -> dict[ClipKey, float | None]:
    """Mean displacement a frame of every clip that was ever described, as a share of the frame's diagonal."""
    names = ["video_id", "recipe_hash", "shot", "mean_motion"]
    columns = (column.to_pylist() for column in read_clips(uri, names).select(names).columns)
    return {(video, recipe, shot): motion for video, recipe, shot, motion in zip(*columns, strict=True)}
