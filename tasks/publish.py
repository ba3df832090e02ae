"""How shards become visible: one transaction names those that are new and those that they replace.

What a transaction holds is decided from the newest version, by ``plan_commit``, and it makes the version after that one
or nothing: when another writer was first, the decision is made again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deltalake import Schema
from deltalake.exceptions import CommitFailedError

from tasks.delta import retry_commit
from tasks.delta_log import Action, add_action, column_actions, commit_info, create_commit, remove_action
from tasks.errors import InputError, StorageError
from tasks.ledger import Ledger, LedgerEntry, ledger_of
from tasks.log_checkpoint import sum_up_when_due
from tasks.schema import frame_schema
from tasks.snapshot import FRAMES_TABLE, StoredVideo, WrittenShard
from tasks.storage import location

METADATA_KEY = "gwm"
"""Our commits carry the totals of the version they make, so that a history is one read of the log."""


def publish(uri: str, added: Sequence[WrittenShard], *, replaced: Sequence[StoredVideo] = ()) -> int:
    """Make shards visible, and those they replace invisible, in one transaction.

    Returns the version that has them. Rows of an added video under another recipe are replaced without being
    named. A video that another writer published meanwhile under the same recipe is not added twice. Safe with
    any number of concurrent writers. Costs time by the number of shards and of commits since this process last looked,
    not by the size of the dataset.
    """
    if not added:
        raise InputError("publish(added=[]): nothing to publish; expected at least one written shard")
    ledger = ledger_of(uri)
    with ledger.lock:
        version = retry_commit(lambda: _commit(ledger, added, replaced), ledger.table.uri)
        ledger.refresh()
        sum_up_when_due(ledger)
    return version


def require_written(uri: str, added: Sequence[WrittenShard]) -> None:
    """Raise StorageError unless every shard still lies where it was written, with all its bytes."""
    frames = location(uri) / FRAMES_TABLE
    places = [(frames / shard.path).path for shard in added]
    try:
        infos = frames.filesystem.get_file_info(places)
    except OSError as error:
        raise StorageError(f"can not look at the shards in {frames.uri}: {error}; nothing was published") from error
    for shard, info in zip(added, infos, strict=True):
        size = info.size if info.is_file else None
        if size != shard.num_bytes:
            raise StorageError(
                f"{frames.uri}/{shard.path} has {size} bytes, {shard.num_bytes} were written: something removed or "
                "changed it before it was published; nothing was published, so ingest again"
            )


@dataclass(frozen=True, kw_only=True)
class CommitPlan:
    """What one transaction does to the shards of a version."""

    added: tuple[WrittenShard, ...]
    removed: tuple[LedgerEntry, ...]


def plan_commit(
    added: Sequence[WrittenShard], replaced: Sequence[StoredVideo], present: Sequence[LedgerEntry]
) -> CommitPlan:
    """Decide which of the added shards are news, and which present ones they replace.

    present: the published shards of all videos that are added or replaced. What another writer made of a replaced
    video meanwhile, under another recipe, is not ours to remove.
    """
    present_keys = {(entry.video_id, entry.recipe_hash) for entry in present}
    news = tuple(shard for shard in added if (shard.video_id, shard.recipe.hash()) not in present_keys)
    wanted = {(shard.video_id, shard.recipe.hash()) for shard in added}
    wanted_ids = {video_id for video_id, _ in wanted}
    replaced_keys = {(video.video_id, video.recipe_hash) for video in replaced}
    removed = tuple(
        entry
        for entry in present
        if (key := (entry.video_id, entry.recipe_hash)) not in wanted
        and (entry.video_id in wanted_ids or key in replaced_keys)
    )
    return CommitPlan(added=news, removed=removed)


def _commit(ledger: Ledger, added: Sequence[WrittenShard], replaced: Sequence[StoredVideo]) -> int:
    """Make the next version, and return its number; when nothing is news that of the newest."""
    ledger.refresh()
    involved = [shard.video_id for shard in added] + [video.video_id for video in replaced]
    plan = plan_commit(added, replaced, ledger.shards_of(involved))
    if not plan.added and not plan.removed:
        return ledger.next_version - 1
    operation = "CREATE TABLE" if ledger.version is None else "WRITE"
    actions = [
        commit_info(operation, {METADATA_KEY: _totals(ledger, plan)}),
        *_schema_actions(ledger, plan),
        *(remove_action(entry.path, entry.num_bytes) for entry in plan.removed),
        *map(_add_action, plan.added),
    ]
    ledger.log.makedirs()
    if not create_commit(ledger.log, ledger.next_version, actions):
        raise CommitFailedError(f"version {ledger.next_version} was made by another writer")
    return ledger.next_version


def _schema_actions(ledger: Ledger, plan: CommitPlan) -> list[Action]:
    """Make a table, or a place for the gaps and columns that it did not have; older videos read as null there."""
    wanted = json.loads(Schema.from_arrow(frame_schema(_gaps(plan.added))).to_json())["fields"]
    return column_actions(wanted, ledger.metadata, ledger.columns)


def _totals(ledger: Ledger, plan: CommitPlan) -> dict[str, int]:
    shards = [(shard, 1) for shard in plan.added] + [(shard, -1) for shard in plan.removed]
    come, gone = {shard.video_id for shard in plan.added}, {shard.video_id for shard in plan.removed}
    return {
        "num_videos": ledger.num_videos + len(come - gone) - len(gone - come),
        "num_clips": ledger.num_clips + sum(sign for shard, sign in shards if shard.first_frame == 0),
        "num_frames": ledger.num_frames + sum(sign * shard.num_rows for shard, sign in shards),
    }


def _gaps(added: Sequence[WrittenShard]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(gap for shard in added for gap in shard.recipe.gaps))


def _add_action(shard: WrittenShard) -> Action:
    constant: dict[str, Any] = {
        "video_id": shard.video_id,
        "recipe_hash": shard.recipe.hash(),
        "recipe": shard.recipe.model_dump_json(),
        "clip": shard.clip,
        "source": shard.source,
        "width": shard.width,
        "height": shard.height,
        "shot": shard.shot,
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
    return add_action(shard.path, shard.num_bytes, stats)
