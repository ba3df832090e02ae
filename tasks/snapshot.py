"""What a dataset holds, as values: shards, videos, one version. ``tasks/catalog.py`` reads and writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from tasks.errors import DatasetError
from tasks.identity import Recipe
from tasks.storage import Location, location

FRAMES_TABLE = "frames"
"""Folder of the Delta table below the dataset's URI; shard paths start there."""


@dataclass(frozen=True, kw_only=True)
class WrittenShard:
    """A shard file that lies in the table's folder and is not published yet.

    path: relative to the frames table.
    first_frame: index of its first row; the others follow without a hole.
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


@dataclass(frozen=True, kw_only=True)
class StoredShard:
    """A published shard: ``path`` is relative to the frames table, row i is frame ``first_frame + i``."""

    path: str
    num_bytes: int
    num_rows: int
    first_frame: int


@dataclass(frozen=True, kw_only=True)
class StoredVideo:
    """One video of a dataset version. Row i of its shards, taken together in their order, is frame i."""

    video_id: str
    recipe_hash: str
    recipe: Recipe
    clip: str
    source: str
    width: int
    height: int
    shards: tuple[StoredShard, ...]

    @property
    def num_frames(self) -> int:
        """Frames over all shards."""
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
    num_frames: int


def videos_of_actions(actions: Iterable[Mapping[str, Any]], place: str) -> tuple[StoredVideo, ...]:
    """Videos that the rows of the Delta log's add actions describe, sorted by clip name, then identity.

    Raises DatasetError when a row lacks what our writer always states, or a video's frames have a hole.
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
    rows = sorted(rows, key=lambda row: int(row["min.frame_index"]))
    shards = tuple(
        StoredShard(
            path=row["path"],
            num_bytes=row["size_bytes"],
            num_rows=row["num_records"],
            first_frame=row["min.frame_index"],
        )
        for row in rows
    )
    expected = 0
    for shard in shards:
        if shard.first_frame != expected:
            raise DatasetError(
                f"{place}: {rows[0]['min.clip']} lacks frames from {expected} to {shard.first_frame}; "
                "ingest it again into a new dataset"
            )
        expected += shard.num_rows
    return StoredVideo(
        video_id=key[0],
        recipe_hash=key[1],
        recipe=recipe,
        clip=rows[0]["min.clip"],
        source=rows[0]["min.source"],
        width=rows[0]["min.width"],
        height=rows[0]["min.height"],
        shards=shards,
    )


def _recipe(text: str, place: str) -> Recipe:
    try:
        return Recipe.model_validate_json(text)
    except ValidationError as error:
        raise DatasetError(
            f"{place} was made with a recipe that this version of the project does not know ({text}); "
            "use the version that made it, or ingest into a new dataset"
        ) from error
