"""Which shards a dataset's newest version holds, kept up to date by reading only what was committed since.

The entries lie in a private SQLite database that spills to a temporary file, so that neither memory nor the time of a
look grows with the dataset: the first look reads the log's newest checkpoint, every later one the commits after it.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tasks.delta_log import (
    Action,
    checkpoint_version,
    log_of,
    read_checkpoint,
    read_commit,
    require_known_protocol,
)
from tasks.errors import DatasetError
from tasks.snapshot import FRAMES_TABLE
from tasks.storage import location

_SCHEMA = """
create table shard (
    path text primary key, video_id text not null, recipe_hash text not null,
    num_bytes integer not null, num_rows integer not null, first_frame integer not null
) without rowid;
create index shard_of_video on shard (video_id);
"""
_CACHE_KIB = 32 << 10  # of SQLite's pages; what is more goes to a temporary file
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


class Ledger:
    """The newest version of one dataset. Hold ``lock`` from ``refresh`` to the end of what rests on it.

    version: newest version that was read, None where there is no table. metadata, columns: the table's own, as the log
    has them. num_commits_since, num_shards_since: what readers must go through after the newest checkpoint.
    """

    version: int | None
    metadata: dict[str, Any] | None
    columns: list[dict[str, Any]]
    num_shards: int
    num_videos: int
    num_clips: int
    num_frames: int
    num_commits_since: int
    num_shards_since: int

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._log = log_of(location(uri) / FRAMES_TABLE)
        self._origin: object = None
        self.lock = threading.RLock()
        self._clear()

    def refresh(self) -> int | None:
        """Read what was committed since the last time; returns the newest version.

        Raises DatasetError for a table that is not one of ours, StorageError when it can not be read.
        """
        origin = self._look_at_origin()
        if origin != self._origin:  # the first look, or another table lies where one was removed
            self._clear()
        if origin is None:
            return None
        self._origin = None  # until all is read: what fails half-way starts anew
        if self.version is None:
            self._start_from_checkpoint()
        while (actions := read_commit(self._log, self.next_version)) is not None:
            self._apply(actions)
            self.version = self.next_version
            self.num_commits_since += 1
            self.num_shards_since += sum("add" in action for action in actions)
        self._origin = origin
        return self.version

    @property
    def next_version(self) -> int:
        """The version that the next commit makes."""
        return 0 if self.version is None else self.version + 1

    def shards_of(self, video_ids: Iterable[str]) -> list[LedgerEntry]:
        """All shards of these videos, whatever recipe they were made with."""
        return [entry for some in _chunks(video_ids) for entry in self._select(some)]

    def _clear(self) -> None:
        self._database = sqlite3.connect("", check_same_thread=False)  # "": a temporary file, removed when closed
        self._database.execute(f"pragma cache_size = -{_CACHE_KIB}")
        self._database.executescript(_SCHEMA)
        self.version = self.metadata = None
        self.columns = []
        self.num_shards = self.num_videos = self.num_clips = self.num_frames = 0
        self.num_commits_since = self.num_shards_since = 0

    def _look_at_origin(self) -> object:
        """What tells this table from one that was made anew at its place; None where there is no table."""
        first = self._log / f"{0:020}.json"
        if first.exists():
            info = first.filesystem.get_file_info(first.path)
            return info.mtime_ns, info.size
        return "log was cleaned" if checkpoint_version(self._log) is not None else None

    def _start_from_checkpoint(self) -> None:
        checkpoint = checkpoint_version(self._log)
        if checkpoint is not None:
            self._apply(read_checkpoint(self._log))
            self.version = checkpoint

    def _apply(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if "add" in action:
                self._add(_entry(action, self._uri))
            elif "remove" in action:
                self._remove(action["remove"]["path"])
            elif "metaData" in action:
                self.metadata = action["metaData"]
                self.columns = json.loads(self.metadata["schemaString"])["fields"]
            elif "protocol" in action:
                require_known_protocol(action, self._uri)
        self._database.commit()

    def _add(self, entry: LedgerEntry) -> None:
        self._remove(entry.path)  # a file may be added again: the last word counts
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
        self.num_shards += sign
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


def _entry(action: Action, place: str) -> LedgerEntry:
    add = action["add"]
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
