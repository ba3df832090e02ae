"""Which shards a dataset's newest version holds, kept up to date by reading only what was committed since.

The entries lie in a private database that spills to a temporary file, so that neither memory nor the time of a look
grows with the dataset.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tasks.errors import DatasetError
from tasks.log_follower import LogFollower, private_database
from tasks.snapshot import FRAMES_TABLE
from tasks.storage import location

_SCHEMA = """
create table shard (
    path text primary key, video_id text not null, recipe_hash text not null,
    num_bytes integer not null, num_rows integer not null, first_frame integer not null
) without rowid;
create index shard_of_video on shard (video_id);
"""
_MAX_OPEN = 8  # datasets that one process has ledgers of
_NAMES_PER_QUERY = 500  # SQLite's parameters are limited to 999 in old releases


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerEntry:
    """One published shard; ``path`` is relative to the frames table."""

    path: str
    video_id: str
    recipe_hash: str
    num_bytes: int
    num_rows: int
    first_frame: int


class Ledger(LogFollower):
    """The shards of one dataset, and the totals of its newest version."""

    num_videos: int
    num_clips: int
    num_frames: int

    def __init__(self, uri: str) -> None:
        self._uri = uri
        super().__init__(location(uri) / FRAMES_TABLE)

    def shards_of(self, video_ids: Iterable[str]) -> list[LedgerEntry]:
        """All shards of these videos, whatever recipe they were made with."""
        return [entry for some in _chunks(video_ids) for entry in self._select(some)]

    def _clear(self) -> None:
        super()._clear()
        self._database = private_database(_SCHEMA)
        self.num_videos = self.num_clips = self.num_frames = 0

    def _add(self, add: Mapping[str, Any]) -> None:
        entry = _entry(add, self._uri)
        self._remove(entry.path)
        self.num_videos += not self._holds(entry.video_id)
        self._database.execute(
            "insert into shard values (?, ?, ?, ?, ?, ?)",
            (entry.path, entry.video_id, entry.recipe_hash, entry.num_bytes, entry.num_rows, entry.first_frame),
        )
        self._count(entry.num_rows, entry.first_frame, 1)

    def _remove(self, path: str) -> None:
        query = "select num_rows, first_frame, video_id from shard where path = ?"
        row = self._database.execute(query, (path,)).fetchone()
        if row is not None:
            self._database.execute("delete from shard where path = ?", (path,))
            num_rows, first_frame, video_id = row
            self._count(num_rows, first_frame, -1)
            self.num_videos -= not self._holds(video_id)

    def _holds(self, video_id: str) -> bool:
        query = "select 1 from shard where video_id = ? limit 1"
        return self._database.execute(query, (video_id,)).fetchone() is not None

    def _count(self, num_rows: int, first_frame: int, sign: int) -> None:
        self.num_files += sign
        self.num_frames += sign * num_rows
        self.num_clips += sign * (first_frame == 0)

    def _select(self, video_ids: Sequence[str]) -> list[LedgerEntry]:
        marks = ", ".join("?" * len(video_ids))
        names = "path, video_id, recipe_hash, num_bytes, num_rows, first_frame"
        rows = self._database.execute(f"select {names} from shard where video_id in ({marks})", video_ids)
        return [LedgerEntry(**dict(zip(names.split(", "), row, strict=True))) for row in rows]


@lru_cache(maxsize=_MAX_OPEN)
def ledger_of(uri: str) -> Ledger:
    """The ledger that this process keeps of a dataset. ``refresh`` it before use."""
    return Ledger(uri)


def _entry(add: Mapping[str, Any], place: str) -> LedgerEntry:
    stats = json.loads(add.get("stats") or "{}")
    first = stats.get("minValues", {})
    try:
        return LedgerEntry(
            path=add["path"],
            video_id=first["video_id"],
            recipe_hash=first["recipe_hash"],
            num_bytes=add["size"],
            num_rows=stats["numRecords"],
            first_frame=first["frame_index"],
        )
    except KeyError as error:
        raise DatasetError(f"{place}: {add['path']} was not added by ingest; remove it from the table") from error


def _chunks(names: Iterable[str]) -> Iterable[list[str]]:
    unique = list(dict.fromkeys(names))
    return (unique[start : start + _NAMES_PER_QUERY] for start in range(0, len(unique), _NAMES_PER_QUERY))
