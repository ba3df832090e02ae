"""The table ``<dataset>/clips``: a row per clip with what is only known at its end, and which clips look alike.

Rows are only ever added, each clip's once, before its frames are published: a clip that can be trained on has its
row, whatever is killed on the way. A row says nothing about presence; what a version holds is in ``frames``, and clips
of schema version 1 have no row.

``ClipHistory`` looks for copies among all clips of a dataset, whatever became of them. The first look reads the whole
table, later ones only files that were added since. Fingerprints are held in memory, about 100 bytes a clip, the rest
in a temporary database.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema, write_deltalake

from tasks.clip_facts import ClipFacts
from tasks.delta import TABLE_PROPERTIES, commit_properties, open_table, retry_commit, table_exists, table_uri
from tasks.fingerprint_index import FingerprintIndex
from tasks.snapshot import ClipKey
from tasks.storage import location, storage_options

CLIPS_TABLE = "clips"

CLIPS_SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("recipe_hash", pa.string()),
        ("shot", pa.int32()),
        ("clip", pa.string()),
        ("source", pa.string()),
        ("first_frame", pa.int32()),
        ("num_frames", pa.int32()),
        ("seconds", pa.float64()),
        ("mean_motion", pa.float64()),
        ("too_short", pa.bool_()),
        ("is_static", pa.bool_()),
        ("fingerprint", pa.binary()),
        ("kept", pa.bool_()),
        ("like_video_id", pa.string()),
        ("like_shot", pa.int32()),
        ("like_source", pa.string()),
        ("like_distance", pa.int32()),
    ]
)

_HISTORY_COLUMNS = ["video_id", "recipe_hash", "shot", "source", "fingerprint", "kept"]
_DATABASE = """
create table clip (
    video_id text not null, recipe_hash text not null, shot integer not null, source text not null,
    kept integer not null, recorded integer not null, number integer,
    primary key (video_id, recipe_hash, shot)
) without rowid;
create unique index clip_of_number on clip (number) where number is not null;
"""
_MAX_OPEN = 8  # datasets that one process has histories of


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """The clip that another one is a near-duplicate of. distance: bits in which their fingerprints differ."""

    video_id: str
    shot: int
    source: str
    distance: int


@dataclass(frozen=True, kw_only=True)
class JudgedClip:
    """A clip, what it is a near-duplicate of, and whether its frames are kept in spite of that."""

    facts: ClipFacts
    like: Likeness | None = None
    kept: bool = True


def read_clips(uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows that a dataset ever got, or some columns of them; none where nothing was recorded."""
    clips_uri = table_uri(uri, CLIPS_TABLE)
    if not table_exists(clips_uri):
        return CLIPS_SCHEMA.empty_table().select(columns or CLIPS_SCHEMA.names)
    return pa.table(open_table(clips_uri).scan(columns=list(columns) if columns else None).read_all())


class ClipHistory:
    """All clips that a dataset ever described. May be used from several threads."""

    _identity: str | None  # of the table that was read

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._lock = threading.RLock()
        self._forget()

    def judge(self, facts: ClipFacts, is_present: Callable[[str], bool], *, skip: bool = False) -> JudgedClip:
        """Say what the clip is a near-duplicate of, and remember it for those that come after.

        Shots of one video, and a video and what its source held before, are never called duplicates of each other.
         is_present: whether the dataset holds a video now.
        With ``skip`` the clip is not kept when a clip that is kept and present is like it.
        """
        with self._lock:
            like, may_stand_in = self._nearest(facts, is_present)
            judged = JudgedClip(facts=facts, like=like, kept=not (skip and may_stand_in))
            self._add([_row(judged)], recorded=False)
            return judged

    def record(self, clips: Sequence[JudgedClip]) -> None:
        """Write the rows of those clips that have none yet. Safe with any number of concurrent writers."""
        if clips:
            with self._lock:
                clips_uri = table_uri(self._uri, CLIPS_TABLE)
                retry_commit(lambda: self._append(clips_uri, [_row(clip) for clip in clips]), clips_uri)

    def refresh(self) -> DeltaTable | None:
        """Read what was added since the last look; returns the table as it is now, None where there is none."""
        with self._lock:
            clips_uri = table_uri(self._uri, CLIPS_TABLE)
            if not table_exists(clips_uri):
                if self._identity is not None:  # it was removed
                    self._forget()
                return None
            table = open_table(clips_uri)
            identity = str(table.metadata().id)
            if self._identity not in (None, identity):  # another table lies where one was removed
                self._forget()
            self._identity = identity
            paths = pa.table(table.get_add_actions()).column("path").to_pylist()
            for path in sorted(set(paths) - self._read):
                with (location(clips_uri) / path).open_input() as stream:
                    self._add(pq.read_table(stream, columns=_HISTORY_COLUMNS).to_pylist(), recorded=True)
                self._read.add(path)
            return table

    def _append(self, clips_uri: str, rows: list[dict[str, Any]]) -> None:
        table = self.refresh()
        if table is None:
            DeltaTable.create(
                clips_uri,
                Schema.from_arrow(CLIPS_SCHEMA),
                mode="error",
                configuration=TABLE_PROPERTIES,
                storage_options=storage_options(clips_uri),
            )
            table = open_table(clips_uri)
        news = [row for row in rows if not self._is_recorded(_key(row))]
        if news:
            data = pa.Table.from_pylist(news, schema=CLIPS_SCHEMA)
            write_deltalake(table, data, mode="append", commit_properties=commit_properties({}))

    def _nearest(self, facts: ClipFacts, is_present: Callable[[str], bool]) -> tuple[Likeness | None, bool]:
        """The nearest clip of another video, and whether it can stand in for this one; such a clip goes first."""
        nearest = None
        for number, distance in [] if facts.fingerprint is None else self._index.find(facts.fingerprint):
            query = "select video_id, shot, source, kept from clip where number = ?"
            video_id, shot, source, kept = self._database.execute(query, (number,)).fetchone()
            if video_id == facts.video_id or source == facts.source:
                continue
            like = Likeness(video_id=video_id, shot=shot, source=source, distance=distance)
            if kept and is_present(video_id):
                return like, True
            nearest = nearest or like
        return nearest, False

    def _add(self, rows: Iterable[dict[str, Any]], *, recorded: bool) -> None:
        for row in rows:
            if self._database.execute(f"select 1 from clip where {_WHERE_KEY}", _key(row)).fetchone():
                if recorded:
                    self._database.execute(f"update clip set recorded = 1 where {_WHERE_KEY}", _key(row))
                continue
            number = None
            if row["fingerprint"] is not None:
                number = len(self._index)
                self._index.add([row["fingerprint"]])
            values = (*_key(row), row["source"], row["kept"], recorded, number)
            self._database.execute("insert into clip values (?, ?, ?, ?, ?, ?, ?)", values)
        self._database.commit()

    def _is_recorded(self, key: ClipKey) -> bool:
        found = self._database.execute(f"select recorded from clip where {_WHERE_KEY}", key).fetchone()
        return bool(found and found[0])

    def _forget(self) -> None:
        self._identity = None
        self._read: set[str] = set()
        self._index = FingerprintIndex()
        self._database = sqlite3.connect("", check_same_thread=False)  # "": a temporary file, removed when closed
        self._database.executescript(_DATABASE)


_WHERE_KEY = "video_id = ? and recipe_hash = ? and shot = ?"


def describe(clips: Sequence[JudgedClip]) -> str:
    """What is to be said of the clips of a video, if anything, such as ``5 shots, 1 static, 1 like /footage/b.mp4``."""
    facts = [clip.facts for clip in clips]
    alike = sorted({clip.like.source for clip in clips if clip.like is not None})
    parts = [
        f"{len(clips)} shots" if len(clips) > 1 else "",
        _counted(sum(fact.too_short for fact in facts), "too short"),
        _counted(sum(fact.is_static for fact in facts), "static"),
        _counted(sum(clip.like is not None for clip in clips), f"like {', '.join(alike)}"),
        _counted(sum(not clip.kept for clip in clips), "left out"),
    ]
    return ", ".join(part for part in parts if part)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number else ""


@lru_cache(maxsize=_MAX_OPEN)
def clip_history(uri: str) -> ClipHistory:
    """The history that this process keeps of a dataset. ``refresh`` it before use."""
    return ClipHistory(uri)


def _key(row: dict[str, Any]) -> ClipKey:
    return row["video_id"], row["recipe_hash"], row["shot"]


def _row(clip: JudgedClip) -> dict[str, Any]:
    like = {f"like_{name}": value for name, value in asdict(clip.like).items()} if clip.like else {}
    return {**dict.fromkeys(CLIPS_SCHEMA.names), **asdict(clip.facts), **like, "kept": clip.kept}
