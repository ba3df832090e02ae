"""What the newest version of a Delta table holds, kept up to date by reading only what was committed since.

The first look reads the log's newest checkpoint, every later one the commits after it. What a table's files mean is the
business of those who follow it; they keep it where it does not weigh, in a private database that spills to a file.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from tasks.delta_log import (
    Action,
    checkpoint_version,
    log_of,
    read_checkpoint,
    read_commit,
    require_known_protocol,
)
from tasks.storage import Location

_HALF_READ = object()  # the origin of what was read when reading failed
_CACHE_KIB = 32 << 10  # of SQLite's pages; what is more goes to a temporary file


class LogFollower(ABC):
    """One table. Hold ``lock`` from ``refresh`` to the end of what rests on it.

    version: newest version that was read, None where there is no table. metadata, columns: the table's own, as the log
    has them. num_commits_since, num_files_since: what readers must go through after the newest checkpoint.
    num_files: of the version, as ``_add`` and ``_remove`` count them.
    """

    version: int | None
    metadata: dict[str, Any] | None
    columns: list[dict[str, Any]]
    num_files: int
    num_commits_since: int
    num_files_since: int

    def __init__(self, table: Location) -> None:
        self.table = table
        self.log = log_of(table)
        self.lock = threading.RLock()
        self._origin: object = None
        self._clear()

    def refresh(self) -> int | None:
        """Read what was committed since the last time; returns the newest version.

        Raises DatasetError for a table that is not one of ours, StorageError when it can not be read.
        """
        origin = self._look_at_origin()
        if self._origin not in (None, origin):  # another table lies where one was removed, or reading failed
            self._clear()
        self._origin = None if origin is None else _HALF_READ
        if origin is None:
            return None
        if self.version is None:
            self._start_from_checkpoint()
        while (actions := read_commit(self.log, self.next_version)) is not None:
            self._apply(actions)
            self.version = self.next_version
            self.num_commits_since += 1
            self.num_files_since += sum("add" in action for action in actions)
        self._origin = origin
        return self.version

    @property
    def next_version(self) -> int:
        """The version that the next commit makes."""
        return 0 if self.version is None else self.version + 1

    @abstractmethod
    def _add(self, add: Mapping[str, Any]) -> None:
        """Take in a file, given the log's entry. One that is there already is added again: the last word counts."""

    @abstractmethod
    def _remove(self, path: str) -> None:
        """Forget a file, which may be unknown."""

    def _clear(self) -> None:
        """Forget all."""
        self.version = self.metadata = None
        self.columns = []
        self.num_files = self.num_commits_since = self.num_files_since = 0

    def _look_at_origin(self) -> object:
        """What tells this table from one that was made anew at its place; None where there is no table."""
        first = self.log / f"{0:020}.json"
        if first.exists():
            info = first.filesystem.get_file_info(first.path)
            return info.mtime_ns, info.size
        return "log was cleaned" if checkpoint_version(self.log) is not None else None

    def _start_from_checkpoint(self) -> None:
        checkpoint = checkpoint_version(self.log)
        if checkpoint is not None:
            self._apply(read_checkpoint(self.log))
            self.version = checkpoint

    def _apply(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if "add" in action:
                self._add(action["add"])
            elif "remove" in action:
                self._remove(action["remove"]["path"])
            elif "metaData" in action:
                self.metadata = action["metaData"]
                self.columns = json.loads(self.metadata["schemaString"])["fields"]
            elif "protocol" in action:
                require_known_protocol(action, self.table.uri)


def private_database(schema: str) -> sqlite3.Connection:
    """An empty database that vanishes with its connection. Nothing in it outlives a failure, so it keeps no journal.

    It is one transaction without end: at every commit SQLite would go through all pages that it did not write yet.
    """
    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # "": a temporary file
    database.execute("pragma journal_mode = off")
    database.execute(f"pragma cache_size = -{_CACHE_KIB}")
    database.executescript(schema)
    database.execute("begin")
    return database
