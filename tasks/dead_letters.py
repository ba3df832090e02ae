"""The dead-letter table ``<dataset>/rejected``: footage that was refused, why, and how often.

One row per source and content; being refused again raises its count. Reasons come from the closed list in
``tasks/errors.py``, so reports and retries can select on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pyarrow as pa
from deltalake import DeltaTable, Schema

from tasks.delta import TABLE_PROPERTIES, commit_properties, open_table, retry_commit, table_exists, table_uri
from tasks.errors import REJECTION_REASONS, InputError, RejectionReason
from tasks.storage import storage_options

REJECTED_TABLE = "rejected"

_SCHEMA = pa.schema(
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
_SAME_FOOTAGE = (
    "old.source = new.source and coalesce(old.video_id, '') = coalesce(new.video_id, '') "
    "and coalesce(old.recipe_hash, '') = coalesce(new.recipe_hash, '')"
)
_MAX_DETAIL_CHARACTERS = 2000


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
    if not refusals:
        return
    rejected_uri = table_uri(uri, REJECTED_TABLE)
    refusals = [_storable(item) for item in refusals]
    unique = {(item.source, item.video_id, item.recipe_hash): item for item in refusals}
    rows = _rows(list(unique.values()))
    retry_commit(lambda: _merge(rejected_uri, rows), rejected_uri)


def forget_rejected(uri: str, sources: Sequence[str]) -> None:
    """Remove the dead letters of sources that were ingested after all."""
    rejected_uri = table_uri(uri, REJECTED_TABLE)
    if not sources or not table_exists(rejected_uri):
        return
    quoted = ", ".join("'" + source.replace("'", "''") + "'" for source in sources)
    retry_commit(
        lambda: open_table(rejected_uri).delete(f"source in ({quoted})", commit_properties=commit_properties({})),
        rejected_uri,
    )


def _storable(refusal: Refusal) -> Refusal:
    """The refusal in Unicode: bytes of a name that are no text become backslash and number, all others stay."""
    source, detail = (text.encode(errors="backslashreplace").decode() for text in (refusal.source, refusal.detail))
    return replace(refusal, source=source, detail=detail[:_MAX_DETAIL_CHARACTERS])


def _rows(refusals: Sequence[Refusal]) -> pa.Table:
    now = datetime.now(UTC)
    return pa.Table.from_pylist(
        [
            {
                "video_id": item.video_id,
                "recipe_hash": item.recipe_hash,
                "source": item.source,
                "stage": item.stage,
                "reason": item.reason,
                "detail": item.detail,
                "attempts": 1,
                "first_seen": now,
                "last_seen": now,
            }
            for item in refusals
        ],
        schema=_SCHEMA,
    )


def _merge(rejected_uri: str, rows: pa.Table) -> None:
    if not table_exists(rejected_uri):
        DeltaTable.create(
            rejected_uri,
            Schema.from_arrow(_SCHEMA),
            mode="error",
            configuration=TABLE_PROPERTIES,
            storage_options=storage_options(rejected_uri),
        )
    merger = open_table(rejected_uri).merge(
        rows, _SAME_FOOTAGE, source_alias="new", target_alias="old", commit_properties=commit_properties({})
    )
    repeated = {name: f"new.{name}" for name in ("stage", "reason", "detail", "last_seen")}
    merger.when_matched_update(
        {**repeated, "attempts": "old.attempts + new.attempts"}
    ).when_not_matched_insert_all().execute()
