"""A Delta table of few small columns, to which rows are added batch by batch, at a cost that does not grow with it.

deltalake would open the list of all files for every batch. This follows the log (``tasks/log_follower.py``), remembers
what its subclass wants to find again, and writes a commit of its own: new files, and those that they take the place of.
Small files are merged now and then, in the commit of a change, so that whoever begins to read a table of a million rows
opens some hundred files and not one for every batch that there ever was.
"""

from __future__ import annotations

import json
import uuid
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import Schema
from deltalake.exceptions import CommitFailedError

from tasks.delta import retry_commit
from tasks.delta_log import add_action, column_actions, commit_info, create_commit, remove_action
from tasks.log_checkpoint import sum_up_when_due
from tasks.log_follower import LogFollower
from tasks.storage import Location

Row = dict[str, Any]

MERGE_AT = 16
"""Small files of which one is made, and so what a reader opens for nothing at most."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What one transaction does: rows that come, and files that go with all their rows."""

    rows: Sequence[Row]
    replaced: Iterable[str] = ()


@dataclass(frozen=True, kw_only=True)
class _File:
    num_bytes: int
    num_rows: int


class RowTable(LogFollower):
    """Rows of one schema. Subclasses take in the rows of a file in ``_add_rows``."""

    def __init__(self, table: Location, schema: pa.Schema, columns: Sequence[str], rows_a_file: int) -> None:
        """columns: those that ``_add_rows`` gets. rows_a_file: at most, what one row that changes has rewritten."""
        self._schema, self._columns_kept, self._rows_a_file = schema, list(columns), rows_a_file
        super().__init__(table)

    def change(self, decide: Callable[[], Change]) -> None:
        """Commit what ``decide`` makes of the newest version, again when another writer was first.

        A change without rows and files commits nothing. Safe with any number of concurrent writers.
        """
        with self.lock:
            if retry_commit(lambda: self._commit(decide), self.table.uri):
                self.refresh()
                sum_up_when_due(self)

    def rows_of(self, path: str) -> list[Row]:
        """All rows of a file of the newest version."""
        return self._read(path, self._schema.names)

    @abstractmethod
    def _add_rows(self, path: str, rows: Sequence[Row]) -> None:
        """Take in the rows of a file that was added."""

    @abstractmethod
    def _forget_rows(self, path: str) -> None:
        """Forget the rows of a file that was removed."""

    def _clear(self) -> None:
        super()._clear()
        self._live: dict[str, _File] = {}

    def _add(self, add: Mapping[str, Any]) -> None:
        path = str(add["path"])
        if path not in self._live:
            self._add_rows(path, self._read(path, self._columns_kept))
        num_rows = json.loads(add.get("stats") or "{}").get("numRecords", self._rows_a_file)
        self._live[path] = _File(num_bytes=int(add["size"]), num_rows=num_rows)
        self.num_files = len(self._live)

    def _remove(self, path: str) -> None:
        if self._live.pop(path, None) is not None:
            self._forget_rows(path)
        self.num_files = len(self._live)

    def _read(self, path: str, columns: list[str]) -> list[Row]:
        with (self.table / path).open_input() as stream:
            return pq.read_table(stream, columns=columns).to_pylist()

    def _commit(self, decide: Callable[[], Change]) -> bool:
        """Make the next version, if there is anything to change."""
        self.refresh()
        change = decide()
        replaced = set(change.replaced)
        if not change.rows and not replaced:
            return False
        kept = {path: file.num_rows for path, file in self._live.items() if path not in replaced}
        merged = files_to_merge(kept, self._rows_a_file)
        rows = [*(row for path in merged for row in self.rows_of(path)), *change.rows]
        files = [self._write(rows[at : at + self._rows_a_file]) for at in range(0, len(rows), self._rows_a_file)]
        fields = json.loads(Schema.from_arrow(self._schema).to_json())["fields"]
        actions = [
            commit_info("CREATE TABLE" if self.version is None else "WRITE", {}),
            *column_actions(fields, self.metadata, self.columns),
            *(remove_action(path, self._live[path].num_bytes) for path in sorted(replaced.union(merged))),
            *(add_action(file.name, file.size(), {"numRecords": num_rows}) for file, num_rows in files),
        ]
        self.log.makedirs()
        if not create_commit(self.log, self.next_version, actions):
            for file, _ in files:
                file.delete()
            raise CommitFailedError(f"version {self.next_version} was made by another writer")
        return True

    def _write(self, rows: Sequence[Row]) -> tuple[Location, int]:
        """Write a file that nobody sees yet."""
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(list(rows), schema=self._schema), sink)
        self.table.makedirs()
        file = self.table / f"part-{uuid.uuid4()}.parquet"
        file.write_bytes(sink.getvalue().to_pybytes())
        return file, len(rows)


def files_to_merge(num_rows: Mapping[str, int], rows_a_file: int) -> list[str]:
    """Files, of a table's by their numbers of rows, that are to become one: all small ones, once there are many.

    Small is what fills half of a file or less, so that no row is merged again without end.
    """
    small = sorted(path for path, number in num_rows.items() if 2 * number <= rows_a_file)
    return small if len(small) >= MERGE_AT else []
