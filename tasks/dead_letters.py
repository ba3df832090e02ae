"""The dead-letter table ``<dataset>/rejected``: footage that was refused, why, and how often.

One row per source and content; being refused again raises its count. Reasons come from the closed list in
``tasks/errors.py``, so reports and retries can select on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import pyarrow as pa

from tasks.delta import open_table, table_exists, table_uri
from tasks.errors import REJECTION_REASONS, InputError, RejectionReason
from tasks.log_follower import private_database
from tasks.row_table import Change, Row, RowTable
from tasks.storage import location

REJECTED_TABLE = "rejected"

SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("recipe_hash", pa.string()),
        ("source", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("attempts", pa.int32()),
        ("first_seen", pa.timestamp("us", "UTC")),
        ("last_seen", pa.timestamp("us", "UTC")),
    ]
)
_DATABASE = """
create table letter (source text not null, video_id text, recipe_hash text, file text not null);
create index letter_of_source on letter (source);
create index letter_of_file on letter (file);
"""
_MAX_OPEN = 8  # datasets that one process follows the table of
_KEY = ("source", "video_id", "recipe_hash")  # of a row: one per source and content
_MAX_DETAIL_CHARACTERS = 2000

ROWS_A_FILE = 500
"""Most letters of a file of the table: what one that is refused again has rewritten."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """One piece of footage that was refused now.

    video_id: None when the bytes were never reached. stage: the step that refused: discover, hash or ingest.
    """

    source: str
    stage: str
    reason: RejectionReason
    detail: str
    video_id: str | None = None
    recipe_hash: str | None = None


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A row of the table: a refusal, how many times it happened, and when. Times are UTC."""

    source: str
    stage: str
    reason: RejectionReason
    detail: str
    attempts: int
    first_seen: datetime
    last_seen: datetime
    video_id: str | None = None
    recipe_hash: str | None = None


def parse_reasons(names: Iterable[str]) -> frozenset[RejectionReason]:
    """Reasons by name, ``all`` standing for every one. Raises InputError for a name that is not of the closed list."""
    names = list(names)
    known = {str(reason): reason for reason in REJECTION_REASONS}
    unknown = [name for name in names if name != "all" and name not in known]
    if unknown:
        raise InputError(f"no reason {', '.join(map(repr, unknown))} for a refusal: expected all, {', '.join(known)}")
    return frozenset(REJECTION_REASONS if "all" in names else (known[name] for name in names))


def read_rejected(uri: str) -> tuple[DeadLetter, ...]:
    """All dead letters of a dataset, newest first; none where nothing was ever refused."""
    rejected_uri = table_uri(uri, REJECTED_TABLE)
    if not table_exists(rejected_uri):
        return ()
    rows = pa.table(open_table(rejected_uri).scan().read_all()).to_pylist()
    letters = (DeadLetter(**row) for row in rows)
    return tuple(sorted(letters, key=lambda letter: (letter.last_seen, letter.source), reverse=True))


def record_rejected(uri: str, refusals: Sequence[Refusal]) -> None:
    """Add refusals to the dead letters, or raise the count of those that are there.

    Safe with any number of concurrent writers.
    """
    if refusals:
        news = [_storable(item) for item in refusals]
        table = _table_of(uri)
        table.change(lambda: table.with_refusals(news))


def forget_rejected(uri: str, sources: Sequence[str]) -> None:
    """Remove the dead letters of sources that were ingested after all."""
    if sources:
        table = _table_of(uri)
        table.change(lambda: table.without_sources(sources))


class _RejectedTable(RowTable):
    """Knows which file of the table holds whose dead letter. Files are small, so that a change rewrites few rows."""

    def __init__(self, uri: str) -> None:
        super().__init__(location(uri) / REJECTED_TABLE, SCHEMA, _KEY, ROWS_A_FILE)

    def with_refusals(self, refusals: Sequence[Refusal]) -> Change:
        """Rewrite the files that hold letters of the same footage, with the others."""
        unique = {_key(vars(item)): item for item in refusals}
        files = {file for key in unique for file in self._files("video_id is ? and recipe_hash is ?", key)}
        rows = [row for file in sorted(files) for row in self.rows_of(file)]
        return Change(rows=count_refusals(rows, list(unique.values()), datetime.now(UTC)), replaced=files)

    def without_sources(self, sources: Sequence[str]) -> Change:
        """Rewrite the files that hold letters of these sources, without them."""
        files = {file for source in sources for file in self._files("true", (source,))}
        rows = [row for file in sorted(files) for row in self.rows_of(file) if row["source"] not in set(sources)]
        return Change(rows=rows, replaced=files)

    def _files(self, condition: str, values: tuple[str | None, ...]) -> list[str]:
        query = f"select file from letter where source = ? and {condition}"
        return [file for (file,) in self._database.execute(query, values)]

    def _add_rows(self, path: str, rows: Sequence[Row]) -> None:
        self._database.executemany("insert into letter values (?, ?, ?, ?)", [(*_key(row), path) for row in rows])

    def _forget_rows(self, path: str) -> None:
        self._database.execute("delete from letter where file = ?", (path,))

    def _clear(self) -> None:
        super()._clear()
        self._database = private_database(_DATABASE)


def count_refusals(rows: Sequence[Row], refusals: Sequence[Refusal], now: datetime) -> list[Row]:
    """Rows of the table after ``refusals``, of which no two are of the same footage: known ones count one more."""
    counted = {_key(row): row for row in rows}
    for item in refusals:
        known = counted.get(_key(vars(item)), {"attempts": 0, "first_seen": now})
        attempts = {"attempts": known["attempts"] + 1, "first_seen": known["first_seen"], "last_seen": now}
        counted[_key(vars(item))] = vars(item) | attempts
    return list(counted.values())


@lru_cache(maxsize=_MAX_OPEN)
def _table_of(uri: str) -> _RejectedTable:
    return _RejectedTable(uri)


def _key(row: Mapping[str, Any]) -> tuple[str, str | None, str | None]:
    source, video_id, recipe_hash = (row[name] for name in _KEY)
    return source, video_id, recipe_hash


def _storable(refusal: Refusal) -> Refusal:
    """The refusal in Unicode: bytes of a name that are no text become backslash and number, all others stay."""
    source, detail = (text.encode(errors="backslashreplace").decode() for text in (refusal.source, refusal.detail))
    return replace(refusal, source=source, detail=detail[:_MAX_DETAIL_CHARACTERS])
