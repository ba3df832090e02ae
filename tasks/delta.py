"""Delta Lake tables as this project uses them: opened with clear errors, committed to with retries.

Every decision about what a commit contains rests on one version of the table. So the library's own retries,
which would rebase a commit on a version that nobody looked at, are switched off: on a conflict the caller's
function runs again on the new version.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from tasks.errors import DatasetError, StorageError
from tasks.storage import location, storage_options

Result = TypeVar("Result")

TABLE_PROPERTIES = {
    # a pinned version must stay readable, so the log is kept until somebody cleans it up on purpose
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 3650 days",
    "delta.deletedFileRetentionDuration": "interval 3650 days",
    "delta.checkpointInterval": "20",
}

_MAX_COMMIT_ATTEMPTS = 60
_LONGEST_PAUSE_SECONDS = 1.0
_jitter = random.Random()  # its own generator: pauses must not disturb seeded experiments


def table_uri(dataset_uri: str, name: str) -> str:
    """URI of one of the tables of a dataset."""
    return (location(dataset_uri) / name).uri


def table_exists(uri: str) -> bool:
    """Whether there is a Delta table; raises StorageError when the place can not be asked."""
    try:
        return DeltaTable.is_deltatable(uri, storage_options=storage_options(uri))
    except (OSError, DeltaError) as error:
        raise StorageError(f"{uri}: {error}; check the address, the credentials and the endpoint") from error


def open_table(uri: str, version: int | None = None) -> DeltaTable:
    """Open a table, at its newest version unless told.

    Raises DatasetError when there is no table or no such version, StorageError when the place can not be
    read.
    """
    try:
        return DeltaTable(uri, version=version, storage_options=storage_options(uri))
    except TableNotFoundError as error:
        raise DatasetError(f"no dataset at {uri}: create it with gwm ingest") from error
    except (OSError, DeltaError) as error:
        if version is not None and table_exists(uri):
            newest = DeltaTable(uri, storage_options=storage_options(uri)).version()
            raise DatasetError(
                f"{uri} has no version {version}: expected 0 to {newest}; leave it out for the newest"
            ) from error
        raise StorageError(f"{uri}: {error}; check the address, the credentials and the endpoint") from error


def commit_properties(metadata: dict[str, Any]) -> CommitProperties:
    """Properties of one commit that must fail, not rebase, when another writer was first."""
    return CommitProperties(custom_metadata=metadata, max_commit_retries=0)


def retry_commit(commit: Callable[[], Result], uri: str) -> Result:
    """Call ``commit``, which reads the table and writes one transaction, until no other writer was first."""
    for attempt in range(_MAX_COMMIT_ATTEMPTS):
        try:
            return commit()
        except CommitFailedError as error:
            last = error
        except DeltaError as error:
            if "already exists" not in str(error):  # two writers created the table at once
                raise StorageError(f"{uri}: commit failed: {error}") from error
            last = error
        except OSError as error:
            raise StorageError(f"{uri}: commit failed: {error}; nothing was published") from error
        time.sleep(_jitter.uniform(0, min(_LONGEST_PAUSE_SECONDS, 0.02 * 2**attempt)))
    raise StorageError(
        f"{uri}: other writers were first {_MAX_COMMIT_ATTEMPTS} times in a row ({last}); "
        "run fewer writers at once, or again later"
    )
