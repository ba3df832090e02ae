"""Summing up the log of a dataset, so that readers need not go through every commit since its beginning.

A checkpoint costs time and memory by the size of the table. So it is made when half of the table is news since the last
one: all of them together then cost twice the final size, however many commits there are. A large one is made in a
process of its own, whose memory is given back.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from tasks.log_follower import LogFollower
from tasks.storage import storage_options

_logger = logging.getLogger(__name__)

MIN_COMMITS = 20
"""Commits that a reader goes through anyway; delta-rs reads this many in a few milliseconds."""

GROWTH = 0.5
"""Share of a table that came since the last checkpoint at which the next is due.

Reading it from commits takes 15 us a file, from a checkpoint 6 us; writing it into one takes 34 us (deltalake 1.6,
50 000 files, ``pipelines/experiments/LOG.md``).
"""

_MAX_FILES_HERE = 20_000
"""Of a checkpoint made in this process: about 150 MB for a moment (7.5 kB a shard, measured with deltalake 1.6)."""


def is_due(num_commits: int, num_new: int, num_files: int) -> bool:
    """Whether the log should be summed up, given what came since the last time and how much there is."""
    return num_commits >= MIN_COMMITS and num_new >= GROWTH * num_files


def sum_up_when_due(table: LogFollower) -> None:
    """Write a checkpoint of the newest version if it is due. One that fails is told and does no harm."""
    if not is_due(table.num_commits_since, table.num_files_since, table.num_files):
        return
    table.num_commits_since = table.num_files_since = 0
    uri = table.table.uri
    try:
        if table.num_files <= _MAX_FILES_HERE:
            write_checkpoint(uri)
        else:
            command = [sys.executable, "-m", "tasks.log_checkpoint", uri]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            subprocess.run(command, check=True, env=environment, capture_output=True)
    except (OSError, DeltaError, subprocess.CalledProcessError) as error:
        _logger.warning("no checkpoint of %s was written, reading it stays slow: %s", uri, error)


def write_checkpoint(table: str) -> None:
    """Write a checkpoint of the newest version of a table."""
    DeltaTable(table, storage_options=storage_options(table)).create_checkpoint()


if __name__ == "__main__":
    write_checkpoint(sys.argv[1])
