"""Removing what killed writers left behind: files that no version of a dataset refers to.

A shard is written before the transaction that names it, so a file that nobody refers to may be an orphan or the work of
a writer under way. Only age tells them apart: what is younger than the grace period stays. Versions that can still be
opened keep all their files, also those that the newest version no longer has. Each file is looked at again right before
it goes, since a writer that starts anew gives an orphan of equal content its name, and with it its age; and a writer
looks at its files before it publishes them (``tasks/ingest_batch.py``), so that what was removed under its hands costs
work and no data.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

import pyarrow.fs as pafs
import pyarrow.parquet as pq

from tasks.delta_log import log_of, read_commit
from tasks.errors import DatasetError, InputError, StorageError
from tasks.local_files import TEMPORARY_SUFFIX
from tasks.storage import Location, location

DEFAULT_GRACE_HOURS = 24.0
"""Longer than an ingest takes from the first shard of a video to the transaction that publishes the video."""

_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"\d{20}\.checkpoint\..*parquet")
_TEMPORARY = re.compile(rf"\..*{re.escape(TEMPORARY_SUFFIX)}|_commit_.*\.json\.tmp|.*\.parquet\.tmp")
"""Names under which this project, and deltalake, write what gets its real name by a rename."""

_MAX_NAMED = 100


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file below a dataset: path relative to the dataset, age since it was last written."""

    path: str
    num_bytes: int
    age_seconds: float


@dataclass(frozen=True, kw_only=True)
class VacuumReport:
    """What was removed, or would be. num_spared: files without reference that are too young to touch.

    paths: the first hundred that were removed, relative to the dataset.
    """

    num_removed: int
    num_bytes: int
    num_spared: int
    num_referenced: int
    paths: tuple[str, ...]


def vacuum(
    uri: str,
    *,
    older_than_hours: float = DEFAULT_GRACE_HOURS,
    dry_run: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> VacuumReport:
    """Remove files of all tables of a dataset that no retained version refers to and that are older than the grace.

    Raises DatasetError where there is no dataset, InputError for a negative age, StorageError when the place can not
    be read or written.
    """
    if older_than_hours < 0:
        raise InputError(f"older_than_hours={older_than_hours}: expected 0 or more")
    tables = [folder for folder in location(uri).list_folders() if log_of(folder).is_folder()]
    if not tables:
        raise DatasetError(f"no dataset at {uri}: give the folder that gwm ingest wrote")
    files = [file for table in tables for file in _files(table)]
    referenced = {path for table in tables for path in _referenced(table)}  # after the listing: younger than it
    orphans, num_spared = choose_orphans(files, referenced, older_than_hours * 3600.0)
    removed = []
    for number, orphan in enumerate(orphans, start=1):
        if dry_run or _remove(location(uri) / orphan.path, orphan):
            removed.append(orphan)
        on_progress(number, len(orphans))
    return VacuumReport(
        num_removed=len(removed),
        num_bytes=sum(orphan.num_bytes for orphan in removed),
        num_spared=num_spared,
        num_referenced=len(referenced),
        paths=tuple(orphan.path for orphan in removed[:_MAX_NAMED]),
    )


def choose_orphans(
    files: Iterable[StoredFile], referenced: Collection[str], grace_seconds: float
) -> tuple[list[StoredFile], int]:
    """Decide which files may go, and count those without a reference that are too young for it."""
    unreferenced = [file for file in files if file.path not in referenced]
    orphans = [file for file in unreferenced if file.age_seconds >= grace_seconds]
    return orphans, len(unreferenced) - len(orphans)


def _files(table: Location) -> Iterator[StoredFile]:
    """Data files of a table, and temporary files of it and of its log; the log itself is none of our business."""
    yield from _listing(table, table.name, lambda name: True)
    yield from _listing(log_of(table), f"{table.name}/_delta_log", lambda name: bool(_TEMPORARY.fullmatch(name)))


def _listing(folder: Location, prefix: str, wanted: Callable[[str], bool]) -> Iterator[StoredFile]:
    now = time.time()
    try:
        infos = folder.filesystem.get_file_info(pafs.FileSelector(folder.path))
    except OSError as error:
        raise StorageError(f"can not list {folder.uri}: {error}") from error
    for info in infos:
        if info.type == pafs.FileType.File and wanted(info.base_name):
            age = now - info.mtime_ns / 1e9
            yield StoredFile(path=f"{prefix}/{info.base_name}", num_bytes=info.size, age_seconds=age)


def _referenced(table: Location) -> Iterator[str]:
    """Data files, relative to the dataset, that any version refers to which the log still tells of."""
    log = log_of(table)
    for place in log.list():
        if commit := _COMMIT.fullmatch(place.name):
            for action in read_commit(log, int(commit[1])) or ():
                if "add" in action:
                    yield f"{table.name}/{action['add']['path']}"
        elif _CHECKPOINT.fullmatch(place.name):
            with place.open_input() as stream, pq.ParquetFile(stream) as parquet:
                for batch in parquet.iter_batches(columns=["add.path"]):
                    yield from (f"{table.name}/{row['path']}" for row in batch["add"].to_pylist() if row is not None)


def _remove(place: Location, seen: StoredFile) -> bool:
    """Remove a file unless somebody wrote it anew since it was listed; whether it was removed."""
    filesystem, path = place.fsspec()
    try:
        info = place.filesystem.get_file_info(place.path)
        if info.type != pafs.FileType.File or time.time() - info.mtime_ns / 1e9 < seen.age_seconds:
            return False
        filesystem.rm_file(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StorageError(f"can not remove {place.uri}: {error}; run it again to go on") from error
    return True
