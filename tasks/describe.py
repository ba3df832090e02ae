"""What a dataset holds, for people and programs: totals, recipes, clips, bytes by column, refusals, history.

Clips, recipes and history come from the Delta log, motion from the table of clips. The bytes by column are read off the
footers of at most MAX_FOOTERS shards, evenly spread, and scaled to the whole.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from tasks.catalog import list_versions, open_dataset
from tasks.clip_filter import mean_motion
from tasks.dead_letters import DeadLetter, read_rejected
from tasks.identity import Recipe
from tasks.snapshot import DatasetSnapshot, DatasetVersion, StoredClip, StoredShard
from tasks.stored_rows import read_footer

MAX_FOOTERS = 64
"""Shards whose footers are read: the share of a column then varies little, and S3 answers all of them in seconds."""

_THREADS = 8  # requests under way: each waits for the network, none works


@dataclass(frozen=True, kw_only=True)
class RecipeLine:
    """One recipe of the version, and how much of it was made so."""

    recipe_hash: str
    recipe: Recipe
    num_clips: int
    num_frames: int


@dataclass(frozen=True, kw_only=True)
class ClipLine:
    """One clip. motion_px: mean displacement a frame, in pixels; None where it is not known, as in schema version 1."""

    clip: str
    video_id: str
    shot: int
    recipe_hash: str
    source: str
    num_frames: int
    width: int
    height: int
    num_bytes: int
    num_shards: int
    motion_px: float | None = None


@dataclass(frozen=True, kw_only=True)
class ColumnBytes:
    """Bytes of one column over all shards, scaled up from those that were looked at."""

    column: str
    num_bytes: int
    share: float


@dataclass(frozen=True, kw_only=True)
class RejectedLine:
    """Refusals for one reason. attempts: the most that any of them took."""

    reason: str
    num_sources: int
    attempts: int
    last_seen: datetime


@dataclass(frozen=True, kw_only=True)
class DatasetDescription:
    """One version of a dataset. num_measured_shards: whose footers the bytes by column come from."""

    uri: str
    version: DatasetVersion
    newest_version: int
    num_videos: int
    num_frames: int
    num_bytes: int
    num_shards: int
    num_measured_shards: int
    gaps: tuple[int, ...]
    recipes: tuple[RecipeLine, ...]
    clips: tuple[ClipLine, ...]
    columns: tuple[ColumnBytes, ...]
    rejected: tuple[RejectedLine, ...]
    history: tuple[DatasetVersion, ...]


def describe_dataset(uri: str, version: int | None = None) -> DatasetDescription:
    """Describe a version of a dataset, the newest unless told.

    Raises DatasetError when there is no dataset, no such version, or a footer that is looked at can not be read.
    """
    snapshot = open_dataset(uri, version)
    history = list_versions(uri)
    shards = [shard for video in snapshot.videos for shard in video.shards]
    measured = spread(shards, MAX_FOOTERS)
    motion = mean_motion(uri)
    return DatasetDescription(
        uri=uri,
        version=next(entry for entry in history if entry.version == snapshot.version),
        newest_version=history[-1].version,
        num_videos=len({video.video_id for video in snapshot.videos}),
        num_frames=snapshot.num_frames,
        num_bytes=snapshot.num_bytes,
        num_shards=len(shards),
        num_measured_shards=len(measured),
        gaps=snapshot.gaps,
        recipes=recipe_lines(snapshot.clips),
        clips=tuple(_clip_line(clip, motion.get(clip.key)) for clip in snapshot.clips),
        columns=_column_bytes(snapshot, measured),
        rejected=rejected_lines(read_rejected(uri)),
        history=tuple(history),
    )


def spread(shards: Sequence[StoredShard], count: int) -> list[StoredShard]:
    """Choose at most ``count`` shards, evenly spread over all of them, the first and the last among them."""
    if len(shards) <= count:
        return list(shards)
    return [shards[position * (len(shards) - 1) // (count - 1)] for position in range(count)]


def recipe_lines(stored: Sequence[StoredClip]) -> tuple[RecipeLine, ...]:
    """Add up clips and frames by recipe, the most used first."""
    clips, frames = Counter[str](), Counter[str]()
    recipes = {clip.recipe_hash: clip.recipe for clip in stored}
    for clip in stored:
        clips[clip.recipe_hash] += 1
        frames[clip.recipe_hash] += clip.num_frames
    return tuple(
        RecipeLine(recipe_hash=name, recipe=recipes[name], num_clips=number, num_frames=frames[name])
        for name, number in clips.most_common()
    )


def rejected_lines(letters: Sequence[DeadLetter]) -> tuple[RejectedLine, ...]:
    """Add up dead letters by reason, the most frequent first."""
    by_reason: dict[str, list[DeadLetter]] = {}
    for letter in letters:
        by_reason.setdefault(letter.reason, []).append(letter)
    lines = [
        RejectedLine(
            reason=reason,
            num_sources=len(those),
            attempts=max(letter.attempts for letter in those),
            last_seen=max(letter.last_seen for letter in those),
        )
        for reason, those in by_reason.items()
    ]
    return tuple(sorted(lines, key=lambda line: (-line.num_sources, line.reason)))


def _clip_line(clip: StoredClip, mean_motion: float | None) -> ClipLine:
    return ClipLine(
        clip=clip.clip,
        video_id=clip.video_id,
        shot=clip.shot,
        recipe_hash=clip.recipe_hash,
        source=clip.source,
        num_frames=clip.num_frames,
        width=clip.width,
        height=clip.height,
        num_bytes=sum(shard.num_bytes for shard in clip.shards),
        num_shards=len(clip.shards),
        motion_px=None if mean_motion is None else mean_motion * math.hypot(clip.width, clip.height),
    )


def _column_bytes(snapshot: DatasetSnapshot, measured: Sequence[StoredShard]) -> tuple[ColumnBytes, ...]:
    with ThreadPoolExecutor(_THREADS) as threads:
        footers = list(threads.map(lambda shard: read_footer(snapshot.frames / shard.path), measured))
    sizes: Counter[str] = Counter()
    for footer in footers:
        sizes.update(footer.column_bytes)
    looked_at = sum(shard.num_bytes for shard in measured)
    if looked_at > sizes.total():
        sizes["(footers)"] = looked_at - sizes.total()
    scale = snapshot.num_bytes / max(looked_at, 1)
    return tuple(
        ColumnBytes(column=column, num_bytes=round(number * scale), share=number / max(looked_at, 1))
        for column, number in sizes.most_common()
    )
