"""What a dataset holds, as values: shards, clips, videos, one version. ``tasks/catalog.py`` reads and writes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from itertools import groupby
from typing import Any

from pydantic import ValidationError

from tasks.errors import DatasetError
from tasks.identity import Recipe
from tasks.storage import Location, location

FRAMES_TABLE = "frames"
"""Folder of the Delta table below the dataset's URI; shard paths start there."""


ClipKey = tuple[str, str, int]
"""Identity of a clip: video_id, recipe_hash, shot."""


@dataclass(frozen=True, kw_only=True)
class WrittenShard:
    """A shard file that lies in the table's folder and is not published yet.

    path: relative to the frames table.
    shot: which shot of the video this is, or a part of; first_frame: index in the shot of its first row; the others
    follow without a hole.
    """

    path: str
    num_bytes: int
    num_rows: int
    first_frame: int
    first_time_seconds: float
    last_time_seconds: float
    video_id: str
    recipe: Recipe
    clip: str
    source: str
    width: int
    height: int
    shot: int = 0


@dataclass(frozen=True, kw_only=True)
class StoredShard:
    """A published shard: ``path`` is relative to the frames table, row i is frame ``first_frame + i`` of the shot."""

    path: str
    num_bytes: int
    num_rows: int
    first_frame: int
    shot: int = 0


@dataclass(frozen=True, kw_only=True)
class StoredClip:
    """One shot of a stored video, the unit of training. Row i of its shards, in their order, is frame i."""

    video_id: str
    recipe_hash: str
    recipe: Recipe
    shot: int
    clip: str
    source: str
    width: int
    height: int
    shards: tuple[StoredShard, ...]

    @property
    def key(self) -> ClipKey:
        """What tells the clip from all others."""
        return self.video_id, self.recipe_hash, self.shot

    @property
    def num_frames(self) -> int:
        """Frames over all shards."""
        return sum(shard.num_rows for shard in self.shards)


@dataclass(frozen=True, kw_only=True)
class StoredVideo:
    """One video of a dataset version, the unit of ingest: it appears and vanishes with all its shots.

    shards: in the order of shots, then of frames.
    num_shots: that the video has; parts of a dataset may hold fewer.
    """

    video_id: str
    recipe_hash: str
    recipe: Recipe
    clip: str
    source: str
    width: int
    height: int
    shards: tuple[StoredShard, ...]
    num_shots: int = 1

    @cached_property
    def clips(self) -> tuple[StoredClip, ...]:
        """The shots in their order; the only one is named like the video, several get their number appended."""
        return tuple(
            StoredClip(
                video_id=self.video_id,
                recipe_hash=self.recipe_hash,
                recipe=self.recipe,
                shot=shot,
                clip=self.clip if self.num_shots == 1 else f"{self.clip}_shot{shot:03d}",
                source=self.source,
                width=self.width,
                height=self.height,
                shards=tuple(shards),
            )
            for shot, shards in groupby(self.shards, key=lambda shard: shard.shot)
        )

    @property
    def num_frames(self) -> int:
        """Frames over all shots."""
        return sum(shard.num_rows for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        """Bytes over all shards."""
        return sum(shard.num_bytes for shard in self.shards)


@dataclass(frozen=True, kw_only=True)
class DatasetPin:
    """One version of a dataset by name: what a training was done on, and can be done on again."""

    uri: str
    version: int

    def __str__(self) -> str:
        return f"{self.uri} version {self.version}"


@dataclass(frozen=True, kw_only=True)
class DatasetSnapshot:
    """One version of a dataset: it never changes, whatever is ingested later. Videos are sorted by clip name.

    clips: the shots of all videos, in the same order.
    created: when the dataset, not this version of it, was made; UTC.
    """

    uri: str
    version: int
    videos: tuple[StoredVideo, ...]
    created: datetime

    @property
    def pin(self) -> DatasetPin:
        """Which dataset and version this is."""
        return DatasetPin(uri=self.uri, version=self.version)

    @property
    def frames(self) -> Location:
        """Folder that shard paths are relative to: ``snapshot.frames / shard.path``."""
        return location(self.uri) / FRAMES_TABLE

    @cached_property
    def clips(self) -> tuple[StoredClip, ...]:
        """What can be trained on. A name that two would have, such as ``a_shot000``, gets a piece of the identity."""
        clips = [clip for video in self.videos for clip in video.clips]
        count = Counter(clip.clip.casefold() for clip in clips)
        return tuple(
            replace(clip, clip=f"{clip.clip}-{clip.video_id[:8]}") if count[clip.clip.casefold()] > 1 else clip
            for clip in clips
        )

    @cached_property
    def gaps(self) -> tuple[int, ...]:
        """Frame gaps whose optical flow every video has."""
        if not self.videos:
            return ()
        common = set.intersection(*(set(video.recipe.gaps) for video in self.videos))
        return tuple(gap for gap in self.videos[0].recipe.gaps if gap in common)

    @property
    def num_frames(self) -> int:
        """Frames over all videos."""
        return sum(video.num_frames for video in self.videos)

    @property
    def num_bytes(self) -> int:
        """Bytes over all shards."""
        return sum(video.num_bytes for video in self.videos)


@dataclass(frozen=True, kw_only=True)
class DatasetVersion:
    """A line of a dataset's history; the time is UTC."""

    version: int
    time: datetime
    operation: str
    num_videos: int
    num_clips: int
    num_frames: int


def videos_of_actions(actions: Iterable[Mapping[str, Any]], place: str) -> tuple[StoredVideo, ...]:
    """Videos that the rows of the Delta log's add actions describe, sorted by clip name, then identity.

    Raises DatasetError when a row lacks what our writer always states, or a shot's frames have a hole.
    """
    by_video: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    recipes: dict[str, Recipe] = {}
    for action in actions:
        video_id, recipe_hash = action.get("min.video_id"), action.get("min.recipe_hash")
        if video_id is None or recipe_hash is None or action.get("num_records") is None:
            raise DatasetError(f"{place}: {action['path']} was not added by ingest; remove it from the table")
        if recipe_hash not in recipes:
            recipes[recipe_hash] = _recipe(action["min.recipe"], place)
        by_video.setdefault((video_id, recipe_hash), []).append(action)
    videos = [_video(key, rows, recipes[key[1]], place) for key, rows in by_video.items()]
    return tuple(sorted(videos, key=lambda video: (video.clip, video.video_id)))


def _video(key: tuple[str, str], rows: list[Mapping[str, Any]], recipe: Recipe, place: str) -> StoredVideo:
    rows = sorted(rows, key=lambda row: (_shot_of(row), int(row["min.frame_index"])))
    shards = tuple(
        StoredShard(
            path=row["path"],
            num_bytes=row["size_bytes"],
            num_rows=row["num_records"],
            first_frame=row["min.frame_index"],
            shot=_shot_of(row),
        )
        for row in rows
    )
    _require_whole_shots(shards, f"{place}: {rows[0]['min.clip']}")
    return StoredVideo(
        video_id=key[0],
        recipe_hash=key[1],
        recipe=recipe,
        clip=rows[0]["min.clip"],
        source=rows[0]["min.source"],
        width=rows[0]["min.width"],
        height=rows[0]["min.height"],
        shards=shards,
        num_shots=shards[-1].shot + 1,
    )


def _shot_of(row: Mapping[str, Any]) -> int:
    return int(row.get("min.shot") or 0)  # schema version 1 did not know shots


def _require_whole_shots(shards: Iterable[StoredShard], what: str) -> None:
    for shot, parts in groupby(shards, key=lambda shard: shard.shot):
        expected = 0
        for shard in parts:
            if shard.first_frame != expected:
                raise DatasetError(
                    f"{what}, shot {shot}, lacks frames from {expected} to {shard.first_frame}; "
                    "ingest it again into a new dataset"
                )
            expected += shard.num_rows


def _recipe(text: str, place: str) -> Recipe:
    try:
        return Recipe.model_validate_json(text)
    except ValidationError as error:
        raise DatasetError(
            f"{place} was made with a recipe that this version of the project does not know ({text}); "
            "use the version that made it, or ingest into a new dataset"
        ) from error
