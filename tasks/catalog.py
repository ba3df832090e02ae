"""A dataset's Delta table: its versions, what each holds, and how shards become visible.

``<dataset>/frames`` is the table over the Parquet shards; ``<dataset>/rejected``
(``tasks/dead_letters.py``) tells what was refused. Shards are immutable files that nobody sees until one
transaction names them, so a killed writer leaves nothing visible. All that is answered here comes from the
Delta log; no shard is opened.

In every version a video appears once: publishing it under a new recipe removes its rows of the old one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, Field, Schema
from deltalake.schema import PrimitiveType
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from tasks.dead_letters import DeadLetter, Refusal, read_rejected, record_rejected
from tasks.delta import (
    TABLE_PROPERTIES,
    commit_properties,
    open_table,
    retry_commit,
    table_exists,
    table_uri,
)
from tasks.errors import InputError
from tasks.schema import flow_column, frame_schema, require_frame_columns
from tasks.snapshot import (
    FRAMES_TABLE,
    DatasetSnapshot,
    DatasetVersion,
    StoredShard,
    StoredVideo,
    WrittenShard,
    videos_of_actions,
)
from tasks.storage import storage_options

_METADATA_KEY = "gwm"
"""Our commits carry the totals of the version they make, so that a history is one read of the log."""


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
    return DatasetSnapshot(uri=uri, version=table.version(), videos=_videos(table, uri), created=created)


def present_videos(uri: str) -> tuple[StoredVideo, ...]:
    """Videos of the newest version; none where there is no dataset yet."""
    return open_dataset(uri).videos if dataset_exists(uri) else ()


def list_versions(uri: str) -> list[DatasetVersion]:
    """All versions that can be opened, oldest first. Raises DatasetError when there is no dataset."""
    history = open_table(table_uri(uri, FRAMES_TABLE)).history()
    versions = []
    for entry in reversed(history):
        totals = entry.get(_METADATA_KEY) or _totals(open_dataset(uri, entry["version"]).videos)
        versions.append(
            DatasetVersion(
                version=entry["version"],
                time=datetime.fromtimestamp(entry["timestamp"] / 1000, UTC),
                operation=entry["operation"],
                num_videos=totals["num_videos"],
                num_frames=totals["num_frames"],
            )
        )
    return versions


def publish(uri: str, added: Sequence[WrittenShard], *, replaced: Sequence[StoredVideo] = ()) -> int:
    """Make shards visible, and those they replace invisible, in one transaction.

    Returns the version that has them. Rows of an added video under another recipe are replaced without being
    named. A video that another writer published meanwhile under the same recipe is not added twice. Safe with
    any number of concurrent writers.
    """
    if not added:
        raise InputError("publish(added=[]): nothing to publish; expected at least one written shard")
    frames_uri = table_uri(uri, FRAMES_TABLE)

    def commit() -> int:
        if not table_exists(frames_uri):
            return _create(frames_uri, added)
        return _append(open_table(frames_uri), uri, added, replaced)

    return retry_commit(commit, frames_uri)


@dataclass(frozen=True, kw_only=True)
class CommitPlan:
    """What one transaction does to the videos of a version."""

    added: tuple[WrittenShard, ...]
    removed: tuple[StoredVideo, ...]
    kept: tuple[StoredVideo, ...]


def plan_commit(
    added: Sequence[WrittenShard], replaced: Sequence[StoredVideo], present: Sequence[StoredVideo]
) -> CommitPlan:
    """Decide which of the added shards are news, and which present videos they replace.

    What another writer made of a replaced video meanwhile, under another recipe, is not ours to remove.
    """
    present_keys = {(video.video_id, video.recipe_hash) for video in present}
    news = tuple(shard for shard in added if (shard.video_id, shard.recipe.hash()) not in present_keys)
    wanted = {(shard.video_id, shard.recipe.hash()) for shard in added}
    wanted_ids = {video_id for video_id, _ in wanted}
    replaced_keys = {(video.video_id, video.recipe_hash) for video in replaced}
    removed = tuple(
        video
        for video in present
        if (key := (video.video_id, video.recipe_hash)) not in wanted
        and (video.video_id in wanted_ids or key in replaced_keys)
    )
    return CommitPlan(added=news, removed=removed, kept=tuple(v for v in present if v not in removed))


def _create(frames_uri: str, added: Sequence[WrittenShard]) -> int:
    create_table_with_add_actions(
        frames_uri,
        Schema.from_arrow(frame_schema(_gaps(added))),
        [_add_action(shard) for shard in added],
        mode="error",
        configuration=TABLE_PROPERTIES,
        storage_options=storage_options(frames_uri),
        commit_properties=commit_properties({_METADATA_KEY: _totals((), added)}),
    )
    return 0


def _append(table: DeltaTable, uri: str, added: Sequence[WrittenShard], replaced: Sequence[StoredVideo]) -> int:
    plan = plan_commit(added, replaced, _videos(table, uri))
    if not plan.added and not plan.removed:
        return table.version()
    _add_missing_columns(table, plan)
    table.create_write_transaction(
        [*map(_add_action, plan.added), *_remove_actions(plan)],
        "append",
        table.schema(),
        commit_properties=commit_properties({_METADATA_KEY: _totals(plan.kept, plan.added)}),
    )
    return table.version() + 1  # the handle stays at the version it read, and no other writer came between


def _add_missing_columns(table: DeltaTable, plan: CommitPlan) -> None:
    """Make a place for gaps that the dataset did not have; older videos read as null there."""
    have = {field.name for field in table.schema().fields}
    missing = [name for name in map(flow_column, _gaps(plan.added)) if name not in have]
    if missing:
        totals = _totals((*plan.kept, *plan.removed))
        table.alter.add_columns(
            [Field(name, PrimitiveType("binary")) for name in missing],
            commit_properties=commit_properties({_METADATA_KEY: totals}),
        )
        table.update_incremental()


def _gaps(added: Sequence[WrittenShard]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(gap for shard in added for gap in shard.recipe.gaps))


def _videos(table: DeltaTable, place: str) -> tuple[StoredVideo, ...]:
    return videos_of_actions(pa.table(table.get_add_actions(flatten=True)).to_pylist(), place)


def _totals(videos: Iterable[StoredVideo], added: Iterable[WrittenShard] = ()) -> dict[str, int]:
    videos, added = tuple(videos), tuple(added)
    return {
        "num_videos": len(videos) + len({shard.video_id for shard in added}),
        "num_frames": sum(video.num_frames for video in videos) + sum(shard.num_rows for shard in added),
    }


def _add_action(shard: WrittenShard) -> AddAction:
    constant: dict[str, Any] = {
        "video_id": shard.video_id,
        "recipe_hash": shard.recipe.hash(),
        "recipe": shard.recipe.model_dump_json(),
        "clip": shard.clip,
        "source": shard.source,
        "width": shard.width,
        "height": shard.height,
    }
    first = {"frame_index": shard.first_frame, "time_seconds": shard.first_time_seconds}
    last = {
        "frame_index": shard.first_frame + shard.num_rows - 1,
        "time_seconds": shard.last_time_seconds,
    }
    stats = {
        "numRecords": shard.num_rows,
        "minValues": constant | first,
        "maxValues": constant | last,
        "nullCount": dict.fromkeys(constant | first, 0),
    }
    return AddAction(
        path=shard.path,
        size=shard.num_bytes,
        partition_values={},
        modification_time=time.time_ns() // 1_000_000,
        data_change=True,
        stats=json.dumps(stats),
    )


def _remove_actions(plan: CommitPlan) -> list[RemoveAction]:
    now = time.time_ns() // 1_000_000
    return [
        RemoveAction(shard.path, True, now, shard.num_bytes, {}) for video in plan.removed for shard in video.shards
    ]


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
    "list_versions",
    "open_dataset",
    "plan_commit",
    "present_videos",
    "publish",
    "read_rejected",
    "record_rejected",
]
