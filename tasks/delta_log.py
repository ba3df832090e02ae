"""The log of a Delta table, read and extended one commit at a time.

A ``deltalake.DeltaTable`` holds every file of its version: 4 kB each, and each look at news goes through all of them.
An ingest that publishes the millionth video needs neither, only what was committed since it last looked and a way to
commit next. Both are plain files: ``_delta_log/<version>.json`` has one action a line, is written once and never
changed, and whoever creates it first has made that version (https://github.com/delta-io/delta/blob/master/PROTOCOL.md).
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow.parquet as pq

from tasks.delta import TABLE_PROPERTIES
from tasks.errors import DatasetError
from tasks.storage import Location

Action = Mapping[str, Any]
"""One line of a commit, such as ``{"add": {"path": ..., "size": ..., "stats": ...}}``."""

NEWEST_WRITER_VERSION = 2
"""Of the protocol that commits here keep to: adding and removing files, changing the schema."""

_CHECKPOINT_COLUMNS = ["add.path", "add.size", "add.stats", "metaData", "protocol.minWriterVersion"]
_ROWS_AT_ONCE = 4096  # of a checkpoint, some megabytes


def log_of(table: Location) -> Location:
    """Folder of a table's log."""
    return table / "_delta_log"


def read_commit(log: Location, version: int) -> list[Action] | None:
    """The actions of one commit; None when that version was not made yet."""
    place = log / f"{version:020}.json"
    if not place.exists():
        return None
    return [json.loads(line) for line in place.read_bytes().splitlines() if line.strip()]


def create_commit(log: Location, version: int, actions: Iterable[Action]) -> bool:
    """Make a version of what the one before it holds and ``actions``; False when another writer made it first.

    Whole or not at all. After an error, raised as StorageError, the version may have been made: read it to know.
    """
    place = log / f"{version:020}.json"
    data = "\n".join(json.dumps(action, separators=(",", ":")) for action in actions).encode() + b"\n"
    return place.write_new(data)


def commit_info(operation: str, metadata: Mapping[str, Any]) -> Action:
    """The action that says what a commit is; ``metadata`` is for our own readers."""
    return {"commitInfo": {"timestamp": _now(), "operation": operation, "engineInfo": "gwm", **metadata}}


def column_actions(wanted: Sequence[Any], metadata: Mapping[str, Any] | None, columns: Sequence[Any]) -> list[Action]:
    """What gives a table the columns that it does not have, and makes it where ``metadata`` is None.

    wanted, columns: fields as ``schemaString`` has them. Older rows read as null in the new columns.
    """
    have = {column["name"] for column in columns}
    missing = [column for column in wanted if column["name"] not in have]
    if not missing:
        return []
    protocol: list[Action] = [{"protocol": {"minReaderVersion": 1, "minWriterVersion": NEWEST_WRITER_VERSION}}]
    known = metadata or {
        "id": str(uuid.uuid4()),
        "format": {"provider": "parquet", "options": {}},
        "partitionColumns": [],
        "configuration": TABLE_PROPERTIES,
        "createdTime": _now(),
    }
    schema = json.dumps({"type": "struct", "fields": [*columns, *missing]})
    return [*([] if metadata else protocol), {"metaData": {**known, "schemaString": schema}}]


def add_action(path: str, num_bytes: int, stats: Mapping[str, Any]) -> Action:
    """The action by which a file becomes part of the table."""
    return {
        "add": {
            "path": path,
            "partitionValues": {},
            "size": num_bytes,
            "modificationTime": _now(),
            "dataChange": True,
            "stats": json.dumps(stats),
        }
    }


def remove_action(path: str, num_bytes: int) -> Action:
    """The action by which a published file is no longer part of the table."""
    return {
        "remove": {
            "path": path,
            "deletionTimestamp": _now(),
            "dataChange": True,
            "extendedFileMetadata": True,
            "partitionValues": {},
            "size": num_bytes,
        }
    }


def checkpoint_version(log: Location) -> int | None:
    """The version that the newest checkpoint sums up; None where there is no checkpoint."""
    last = _last_checkpoint(log)
    return None if last is None else int(last["version"])


def read_checkpoint(log: Location) -> Iterator[Action]:
    """The actions that the newest checkpoint holds, a few thousand at a time; removed files are not among them."""
    last = _last_checkpoint(log)
    if last is None:
        return
    for place in _checkpoint_files(log, last):
        with place.open_input() as stream, pq.ParquetFile(stream) as parquet:
            for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=_CHECKPOINT_COLUMNS):
                rows = batch.to_pylist(maps_as_pydicts="strict")
                yield from ({name: value for name, value in row.items() if value} for row in rows)


def require_known_protocol(action: Action, place: str) -> None:
    """Raise DatasetError when a table asks more of its writers than this module does."""
    needed = int(action["protocol"]["minWriterVersion"])
    if needed > NEWEST_WRITER_VERSION:
        raise DatasetError(
            f"{place} asks for version {needed} of the Delta writer protocol; expected {NEWEST_WRITER_VERSION} at "
            "most: another program changed the table's features, so ingest into a new dataset"
        )


def _now() -> int:
    """Milliseconds, as the log counts time."""
    return time.time_ns() // 1_000_000


def _last_checkpoint(log: Location) -> dict[str, Any] | None:
    place = log / "_last_checkpoint"
    return json.loads(place.read_bytes()) if place.exists() else None


def _checkpoint_files(log: Location, last: Mapping[str, Any]) -> list[Location]:
    name = f"{int(last['version']):020}.checkpoint"
    num_parts = last.get("parts")
    if not num_parts:
        return [log / f"{name}.parquet"]
    return [log / f"{name}.{part:010}.{num_parts:010}.parquet" for part in range(1, num_parts + 1)]
