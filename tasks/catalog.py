"""A dataset's Delta table: its versions, what each holds, and how shards become visible.

``<dataset>/frames`` is the table over the Parquet shards; ``<dataset>/rejected``
(``tasks/dead_letters.py``) tells what was refused. Shards are immutable files that nobody sees until one
transaction names them, so a killed writer leaves nothing visible. All that is answered here comes from the
Delta log; no shard is opened. ``tasks/publish.py`` adds videos, ``tasks/revisions.py`` renames and removes them.

In every version a video appears once, with all its shots: publishing it under a new recipe removes its rows
of the old one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
from deltalake import DeltaTable

from tasks.dead_letters import DeadLetter, Refusal, read_rejected, record_rejected
from tasks.delta import open_table, table_exists, table_uri
from tasks.identity import Recipe
from tasks.ledger import ledger_of
from tasks.publish import METADATA_KEY, CommitPlan, plan_commit, publish
from tasks.schema import require_frame_columns
from tasks.snapshot import (
    FRAMES_TABLE,
    DatasetSnapshot,
    DatasetVersion,
    StoredShard,
    StoredVideo,
    WrittenShard,
    videos_of_actions,
)


def dataset_exists(uri: str) -> bool:
    """Whether anything was ever published at ``uri``."""
    return table_exists(table_uri(uri, FRAMES_TABLE))


def open_dataset(uri: str, version: int | None = None) -> DatasetSnapshot:
    """Read what a version of the dataset holds, the newest unless told.

    Raises DatasetError when there is no dataset, no such version, or the table is not one of ours.
    """
    table = open_table(table_uri(uri, FRAMES_TABLE), version)
    require_frame_columns((field.name for field in table.schema().fields), uri)
    created = datetime.fromtimestamp(table.metadata().created_time / 1000, UTC)
    return DatasetSnapshot(uri=uri, version=table.version(), videos=videos_of_table(table, uri), created=created)


def present_videos(uri: str) -> tuple[StoredVideo, ...]:
    """Videos of the newest version; none where there is no dataset yet."""
    return open_dataset(uri).videos if dataset_exists(uri) else ()


def list_versions(uri: str) -> list[DatasetVersion]:
    """All versions that can be opened, oldest first. Raises DatasetError when there is no dataset."""
    history = open_table(table_uri(uri, FRAMES_TABLE)).history()
    versions = []
    for entry in reversed(history):
        totals = entry.get(METADATA_KEY) or _totals(open_dataset(uri, entry["version"]).videos)
        versions.append(
            DatasetVersion(
                version=entry["version"],
                time=datetime.fromtimestamp(entry["timestamp"] / 1000, UTC),
                operation=entry["operation"],
                num_videos=totals["num_videos"],
                num_clips=totals.get("num_clips", totals["num_videos"]),  # alike before there were shots
                num_frames=totals["num_frames"],
            )
        )
    return versions


def newest_version(uri: str) -> int | None:
    """Number of the newest version, without reading what it holds; None where there is no dataset yet."""
    ledger = ledger_of(uri)
    with ledger.lock:
        return ledger.refresh()


def published_frames(uri: str, video_ids: Sequence[str], recipe: Recipe) -> dict[str, int]:
    """Frames of those of ``video_ids`` that the newest version has under ``recipe``; the others are left out."""
    ledger, recipe_hash = ledger_of(uri), recipe.hash()
    with ledger.lock:
        ledger.refresh()
        found = ledger.shards_of(video_ids)
    frames: Counter[str] = Counter()
    for entry in found:
        if entry.recipe_hash == recipe_hash:
            frames[entry.video_id] += entry.num_rows
    return dict(frames)


def is_present(uri: str, video_id: str) -> bool:
    """Whether the newest version that this process has seen holds the video, under any recipe."""
    ledger = ledger_of(uri)
    with ledger.lock:
        return bool(ledger.shards_of([video_id]))


def videos_of_table(table: DeltaTable, place: str) -> tuple[StoredVideo, ...]:
    """Videos of the version that an open frames table is at."""
    return videos_of_actions(pa.table(table.get_add_actions(flatten=True)).to_pylist(), place)


def _totals(videos: Sequence[StoredVideo]) -> dict[str, int]:
    """What our commits carry, for versions that another program made."""
    return {
        "num_videos": len(videos),
        "num_clips": sum(len(video.clips) for video in videos),
        "num_frames": sum(video.num_frames for video in videos),
    }


__all__ = [
    "FRAMES_TABLE",
    "CommitPlan",
    "DatasetSnapshot",
    "DatasetVersion",
    "DeadLetter",
    "Refusal",
    "StoredShard",
    "StoredVideo",
    "WrittenShard",
    "dataset_exists",
    "is_present",
    "list_versions",
    "newest_version",
    "open_dataset",
    "plan_commit",
    "present_videos",
    "publish",
    "published_frames",
    "read_rejected",
    "record_rejected",
]
