"""The table ``<dataset>/clips``: a row per clip with what is only known at its end, and which clips look alike.

Rows are added, each clip's once, before its frames are published: a clip that can be trained on has its row, whatever
is killed on the way. A row says nothing about presence; what a version holds is in ``frames``, and clips of schema
version 1 have no row. Renaming a video renames its rows; ``like_source`` of others stays what it was when they were
compared, ``like_video_id`` leads to the row that knows the name now.

``ClipHistory`` looks for copies among all clips of a dataset, whatever became of them. The first look reads the whole
table, later ones only what was committed since. Fingerprints are held in memory, 130 to 160 bytes a clip, the rest in a
temporary database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from tasks.clip_facts import ClipFacts
from tasks.delta import open_table, table_exists, table_uri
from tasks.fingerprint_index import FingerprintIndex
from tasks.log_follower import private_database
from tasks.row_table import Change, Row, RowTable
from tasks.snapshot import ClipKey
from tasks.storage import location

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
    kept integer not null, number integer, file text,  -- that has its row, once there is one
    primary key (video_id, recipe_hash, shot)
) without rowid;
create unique index clip_of_number on clip (number) where number is not null;
"""
_MAX_OPEN = 8  # datasets that one process has histories of

ROWS_A_FILE = 8000
"""Most clips of a file of the table: of a million, at most 250 files; a renamed clip has as many rewritten."""


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


class ClipHistory(RowTable):
    """All clips that a dataset ever described. May be used from several threads."""

    def __init__(self, uri: str) -> None:
        super().__init__(location(uri) / CLIPS_TABLE, CLIPS_SCHEMA, _HISTORY_COLUMNS, ROWS_A_FILE)

    def judge(self, facts: ClipFacts, is_present: Callable[[str], bool], *, skip: bool = False) -> JudgedClip:
        """Say what the clip is a near-duplicate of, and remember it for those that come after.

        Shots of one video, and a video and what its source held before, are never called duplicates of each other.
        is_present: whether the dataset holds a video now.
        With ``skip`` the clip is not kept when a clip that is kept and present is like it.
        """
        with self.lock:
            like, may_stand_in = self._nearest(facts, is_present)
            judged = JudgedClip(facts=facts, like=like, kept=not (skip and may_stand_in))
            self._remember([_row(judged)], file=None)
            return judged

    def record(self, clips: Sequence[JudgedClip]) -> None:
        """Write the rows of those clips that have none yet. Safe with any number of concurrent writers."""
        if clips:
            rows = [_row(clip) for clip in clips]
            self.change(lambda: Change(rows=[row for row in rows if not self._is_recorded(_key(row))]))

    def rename(self, names: Mapping[tuple[str, str], tuple[str, str]]) -> None:
        """Give all clips of some videos, by (video_id, recipe_hash), another name and source."""

        def decide() -> Change:
            query = "select distinct file from clip where video_id = ? and recipe_hash = ? and file is not null"
            files = {file for key in names for (file,) in self._database.execute(query, key)}
            rows = [(file, row, _renamed(row, names)) for file in sorted(files) for row in self.rows_of(file)]
            changed = {file for file, row, renamed in rows if row != renamed}
            return Change(rows=[renamed for file, _, renamed in rows if file in changed], replaced=changed)

        self.change(decide)

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

    def _add_rows(self, path: str, rows: Sequence[Row]) -> None:
        self._remember(rows, file=path)

    def _forget_rows(self, path: str) -> None:
        """Nothing: a file only goes when others take its rows over."""

    def _remember(self, rows: Iterable[Row], *, file: str | None) -> None:
        for row in rows:
            number = None if row["fingerprint"] is None else len(self._index)
            values = (*_key(row), row["source"], row["kept"], number, file)
            is_new = self._database.execute(_INSERT, values).rowcount
            if is_new and number is not None:
                self._index.add([row["fingerprint"]])
            elif file is not None and not is_new:
                self._database.execute(_UPDATE, (file, row["source"], *_key(row)))

    def _is_recorded(self, key: ClipKey) -> bool:
        found = self._database.execute(f"select file is not null from clip where {_WHERE_KEY}", key).fetchone()
        return bool(found and found[0])

    def _clear(self) -> None:
        super()._clear()
        self._index = FingerprintIndex()
        self._database = private_database(_DATABASE)


_INSERT = "insert or ignore into clip values (?, ?, ?, ?, ?, ?, ?)"
_WHERE_KEY = "video_id = ? and recipe_hash = ? and shot = ?"
_UPDATE = f"update clip set file = ?, source = ? where {_WHERE_KEY}"


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


def _key(row: Row) -> ClipKey:
    return row["video_id"], row["recipe_hash"], row["shot"]


def _renamed(row: Row, names: Mapping[tuple[str, str], tuple[str, str]]) -> Row:
    clip, source = names.get((row["video_id"], row["recipe_hash"]), (row["clip"], row["source"]))
    return row | {"clip": clip, "source": source}


def _row(clip: JudgedClip) -> Row:
    like = {f"like_{name}": value for name, value in vars(clip.like).items()} if clip.like else {}
    return {**dict.fromkeys(CLIPS_SCHEMA.names), **vars(clip.facts), **like, "kept": clip.kept}
