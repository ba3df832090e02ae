"""Changes to a dataset that touch no frame: videos get another name, or vanish. Each is one Delta transaction.

What a version tells about a video comes from the statistics of its shards in the Delta log, and a later entry for the
same file takes the place of an earlier one. So renaming writes those entries anew, with another clip and source, and
leaves the immutable shard as it is. Its own ``clip`` and ``source`` columns go on telling what the video was called
when it was ingested; earlier versions of the dataset tell the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from tasks.catalog import videos_of_table
from tasks.clips import clip_history
from tasks.delta import open_table, retry_commit
from tasks.delta_log import Action, commit_info, create_commit, remove_action
from tasks.errors import DatasetError
from tasks.ledger import ledger_of
from tasks.log_checkpoint import sum_up_when_due
from tasks.publish import METADATA_KEY
from tasks.snapshot import StoredVideo


@dataclass(frozen=True, kw_only=True)
class Rename:
    """A stored video, and the source and clip name that it has from now on."""

    video: StoredVideo
    source: str
    clip: str


@dataclass(frozen=True, kw_only=True)
class _Revision:
    """What one transaction does, and which videos it leaves."""

    operation: str
    actions: Sequence[Action]
    left: Sequence[StoredVideo]


def rename_videos(uri: str, renames: Sequence[Rename]) -> int:
    """Give stored videos other names in one transaction; return the version that has them.

    A video that another writer renamed, replaced or removed meanwhile is left as it is. Rows of the table of clips
    get their names first: who is killed between the two finds the old names in ``frames``, and does both again.
    """
    names = {(item.video.video_id, item.video.recipe_hash): (item.clip, item.source) for item in renames}
    clip_history(uri).rename(names)

    def revise(table: DeltaTable, present: Sequence[StoredVideo]) -> _Revision:
        entries = {entry["path"]: entry for entry in pa.table(table.get_add_actions(flatten=True)).to_pylist()}
        still = {_key(video) for video in present}
        actions = [
            _renamed(entries[shard.path], rename)
            for rename in renames
            if _key(rename.video) in still
            for shard in rename.video.shards
        ]
        return _Revision(operation="RENAME", actions=actions, left=present)

    return _commit(uri, revise)


def remove_videos(uri: str, videos: Sequence[StoredVideo]) -> int:
    """Make videos vanish in one transaction; return the version without them. Earlier versions keep them.

    One that another writer renamed or replaced meanwhile stays. Raises DatasetError when nothing would be left.
    """
    unwanted = {_key(video) for video in videos}

    def revise(table: DeltaTable, present: Sequence[StoredVideo]) -> _Revision:
        left = [video for video in present if _key(video) not in unwanted]
        if not left:
            raise DatasetError(
                f"removing {len(videos)} videos would leave nothing of {uri}; delete its folder if you want that"
            )
        actions = [
            remove_action(shard.path, shard.num_bytes)
            for video in present
            if _key(video) in unwanted
            for shard in video.shards
        ]
        return _Revision(operation="REMOVE", actions=actions, left=left)

    return _commit(uri, revise)


def _key(video: StoredVideo) -> tuple[str, ...]:
    """Tells whether a video is as it was: where it came from, and its shards, whose names hold their content's hash."""
    return (video.source, *(shard.path for shard in video.shards))


def _commit(uri: str, revise: Callable[[DeltaTable, Sequence[StoredVideo]], _Revision]) -> int:
    """Commit what ``revise`` makes of the newest version; when another writer was first, of the one after it."""
    ledger = ledger_of(uri)
    frames_uri = ledger.table.uri

    def commit() -> int:
        table = open_table(frames_uri)
        version = table.version()
        revision = revise(table, videos_of_table(table, uri))
        if not revision.actions:
            return version
        totals = {
            "num_videos": len(revision.left),
            "num_clips": sum(len(video.clips) for video in revision.left),
            "num_frames": sum(video.num_frames for video in revision.left),
        }
        actions = [commit_info(revision.operation, {METADATA_KEY: totals}), *revision.actions]
        if not create_commit(ledger.log, version + 1, actions):
            raise CommitFailedError(f"version {version + 1} was made by another writer")
        return version + 1

    with ledger.lock:
        version = retry_commit(commit, frames_uri)
        ledger.refresh()
        sum_up_when_due(ledger)
    return version


def _renamed(entry: Mapping[str, Any], rename: Rename) -> Action:
    """The log's entry of a shard with another name; whatever else it states stays."""
    names = {"clip": rename.clip, "source": rename.source}
    stats = {
        "numRecords": entry["num_records"],
        "minValues": _part(entry, "min.") | names,
        "maxValues": _part(entry, "max.") | names,
        "nullCount": _part(entry, "null_count."),
    }
    return {
        "add": {
            "path": entry["path"],
            "partitionValues": {},
            "size": entry["size_bytes"],
            "modificationTime": entry["modification_time"],
            "dataChange": False,
            "stats": json.dumps(stats),
        }
    }


def _part(entry: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {
        key.removeprefix(prefix): value for key, value in entry.items() if key.startswith(prefix) and value is not None
    }
