"""Whether a place can be committed to by several writers at once: tried, since not every server keeps the promise.

A commit to a dataset is a file that is written only if there is none of its name. Amazon, Ceph and local disks let one
of several writers at once be first. Swift looks when a write begins and not when it ends, so several may be first, and
the commit of all but the last is lost.
"""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

from tasks.errors import StorageError
from tasks.storage import Location

WRITERS = 8
ROUNDS = 5
"""Of WRITERS each: of ten on a plain Swift 2.38.3 every one had 2 to 8 first writers."""


def require_one_first_writer(place: Location) -> None:
    """Let writers race for a file in ``place``, which is left clean; raise StorageError unless one was first each time.

    Raises StorageError as well when the place can not be written.
    """
    for _ in range(ROUNDS):
        num_first = _race(place / f".gwm_race_{uuid.uuid4().hex}")
        if num_first != 1:
            raise StorageError(
                f"{num_first} of {WRITERS} writers at once were told that they are first in {place.uri}: this server "
                "loses commits; ingest into it with one command at a time, or use another server"
            )


def _race(file: Location) -> int:
    """Let writers begin at the same moment; return how many were told that they are first."""
    start = threading.Barrier(WRITERS)

    def write(number: int) -> bool:
        start.wait()
        return file.write_new(b"%d" % number)

    try:
        with ThreadPoolExecutor(WRITERS) as pool:
            return sum(pool.map(write, range(WRITERS)))
    finally:
        file.delete()
