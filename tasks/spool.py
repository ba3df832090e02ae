"""Finished shards on their way to their names: uploads overlap with what is made meanwhile, and the disk stays bounded.

A finished shard is a temporary file, beside the others when the dataset is on a disk, on the machine's own otherwise.
It waits until the next one comes, or not at all when it is of full size; then a thread checks it, and renames or
uploads it. The last one is delivered at the end, by ``flush`` at once, or by somebody else to whom ``hand_over`` gave
it: another process of the same machine, so that who made it can go on with the next video, and gives its GPU back when
there is none.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pyarrow.parquet as pq

from tasks.errors import StorageError
from tasks.identity import hash_file
from tasks.shard_upload import upload_shard
from tasks.snapshot import WrittenShard
from tasks.storage import Location, location

MAX_SHARD_BYTES = 512 << 20
"""A video is split into shards of about this size: larger ones read no faster and upload less evenly.

No more than this of finished shards, or one of them, waits on the local disk beside the one that is written."""


@dataclass(frozen=True, kw_only=True)
class SpooledShard:
    """A whole shard under a temporary name on this machine.

    file: where it lies; sha256: of the bytes that were written to it; folder_uri: where it belongs, named shard.path.
    """

    shard: WrittenShard
    file: Path
    sha256: str
    folder_uri: str

    def deliver(self) -> None:
        """Check the bytes, and give them their name. May be repeated by whoever does not know whether it was done.

        Raises StorageError when the file is not what was written, or its place can not be written.
        """
        target = location(self.folder_uri) / self.shard.path
        if not self.file.exists():
            self._require_delivered(target)
            return
        try:
            self._verify()
            if target.is_local:
                self.file.replace(target.local_path)
            else:
                upload_shard(self.file, self.sha256, target)
        except OSError as error:
            raise storage_error(self.folder_uri, error) from error
        finally:
            self.discard()

    def discard(self) -> None:
        """Forget the file."""
        self.file.unlink(missing_ok=True)

    def _require_delivered(self, target: Location) -> None:
        if not target.exists() or target.size() != self.shard.num_bytes:
            raise StorageError(
                f"{self.file} vanished before it was {target.uri}; expected that nobody clears the folder of temporary "
                "files while an ingest runs. Run it again"
            )

    def _verify(self) -> None:
        with self.file.open("rb") as stream:
            if hash_file(stream) != self.sha256:
                raise StorageError(f"{self.file}: other bytes are there than were written; is the disk sound?")
        metadata, num_rows = pq.read_metadata(self.file), self.shard.num_rows
        if (metadata.num_rows, metadata.num_row_groups) != (num_rows, num_rows):
            raise StorageError(
                f"{self.file}: {metadata.num_rows} rows in {metadata.num_row_groups} groups are there after writing "
                f"{num_rows} rows; is the disk sound?"
            )


@dataclass(frozen=True)
class Delivery:
    """Delivers shards when it is called, in whatever process of this machine that is."""

    spooled: tuple[SpooledShard, ...]

    def __call__(self) -> None:
        """Raise what a delivery raises."""
        for spooled in self.spooled:
            spooled.deliver()


class Outbox:
    """Takes finished shards and delivers them in their order. A context: what it has when it is left is discarded.

    max_bytes: ``put`` waits while more than this would be spooled, unless by one shard alone.
    """

    def __init__(self, max_bytes: int = MAX_SHARD_BYTES) -> None:
        self._max_bytes = max_bytes
        self._newest: SpooledShard | None = None
        self._sending: deque[tuple[SpooledShard, Future[None]]] = deque()
        self._thread = ThreadPoolExecutor(1, "deliver-shard")

    def put(self, spooled: SpooledShard) -> None:
        """Take a shard; the one before it is on its way from now on. Raises what a delivery raised."""
        self._begin_newest()
        while self._sending and self._num_bytes() + spooled.shard.num_bytes > self._max_bytes:
            self._wait_for_oldest()
        self._newest = spooled
        if spooled.shard.num_bytes >= self._max_bytes:
            self._begin_newest()  # so that it is on its way while the next one is written

    def flush(self) -> tuple[()]:
        """Deliver everything; nothing is left. Raises what a delivery raised."""
        self._begin_newest()
        while self._sending:
            self._wait_for_oldest()
        return ()

    def hand_over(self) -> tuple[SpooledShard, ...]:
        """Give what nobody delivers yet to the caller, and wait for the others. Raises what a delivery raised."""
        kept = [(spooled, future) for spooled, future in self._sending if not future.cancel()]
        rest = [spooled for spooled, future in self._sending if future.cancelled()]
        self._sending = deque(kept)
        while self._sending:
            self._wait_for_oldest()
        newest, self._newest = self._newest, None
        return tuple(rest) if newest is None else (*rest, newest)

    def __enter__(self) -> Outbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)  # waits for a delivery that has begun
        for spooled, _ in self._sending:
            spooled.discard()
        if self._newest is not None:
            self._newest.discard()

    def _begin_newest(self) -> None:
        newest, self._newest = self._newest, None
        if newest is not None:
            self._sending.append((newest, self._thread.submit(newest.deliver)))

    def _num_bytes(self) -> int:
        return sum(spooled.shard.num_bytes for spooled, _ in self._sending)

    def _wait_for_oldest(self) -> None:
        self._sending[0][1].result()  # on an error the shard stays, and is discarded with the others
        self._sending.popleft()


def storage_error(folder_uri: str, error: OSError) -> StorageError:
    """What is said when a shard can not be written."""
    return StorageError(f"can not write a shard to {folder_uri}: {error}; is there room, and permission?")
