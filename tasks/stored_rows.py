"""Reading the stored rows of one clip in their order, some columns of some frames, one row group in memory.

Training reads single frames at random (``tasks/dataset.py``); looking at a dataset, checking and exporting it read clip
after clip, and shards that may be damaged: whatever is wrong with one is a DatasetError that names it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import DatasetError, StorageError
from tasks.snapshot import StoredClip, StoredShard
from tasks.storage import Location

StoredRow = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ShardFooter:
    """What the end of a shard file says. column_bytes: stored bytes by column, in the order of the columns."""

    num_rows: int
    column_bytes: dict[str, int]


def read_rows(
    folder: Location,
    clip: StoredClip,
    columns: Sequence[str],
    *,
    frames: Collection[int] | None = None,
) -> Iterator[StoredRow]:
    """Yield rows of a clip in frame order, as ``columns`` and their values; all of them unless ``frames`` says which.

    folder: of the frames table, where the clip's shards lie.
    A column that a shard was written without is None, as a gap that an older clip has no optical flow over. Raises
    DatasetError naming the shard when one can not be read.
    """
    wanted = None if frames is None else frozenset(frames)
    for shard in clip.shards:
        inside = None if wanted is None else {frame - shard.first_frame for frame in wanted}
        if inside is None or any(0 <= row < shard.num_rows for row in inside):
            yield from read_shard_rows(folder / shard.path, columns, inside)


def read_footer(shard: Location) -> ShardFooter:
    """Read the footer of a shard. Raises DatasetError when it can not be read."""
    with _damage_of(shard), shard.open_input() as stream:
        metadata = pq.read_metadata(stream)
        sizes: dict[str, int] = {}
        for group in range(metadata.num_row_groups):
            chunks = metadata.row_group(group)
            for number in range(chunks.num_columns):
                chunk = chunks.column(number)
                sizes[chunk.path_in_schema] = sizes.get(chunk.path_in_schema, 0) + chunk.total_compressed_size
    return ShardFooter(num_rows=metadata.num_rows, column_bytes=sizes)


def shard_of_frame(clip: StoredClip, frame: int) -> StoredShard:
    """Return the shard that holds a frame. Raises DatasetError when the clip has no such frame."""
    for shard in clip.shards:
        if 0 <= frame - shard.first_frame < shard.num_rows:
            return shard
    raise DatasetError(f"clip {clip.clip!r} has frames 0 to {clip.num_frames - 1}, got {frame}")


def read_shard_rows(
    shard: Location, columns: Sequence[str], rows: Collection[int] | None = None
) -> Iterator[StoredRow]:
    """Yield rows of one shard, all of them unless ``rows`` says which. Raises DatasetError when it can not be read."""
    with _damage_of(shard), shard.open_input() as stream, pq.ParquetFile(stream) as file:
        there = [name for name in columns if name in file.schema_arrow.names]
        absent = dict.fromkeys(name for name in columns if name not in there)
        first = 0
        for group in range(file.metadata.num_row_groups):
            num_rows = file.metadata.row_group(group).num_rows
            chosen = [row for row in range(num_rows) if rows is None or first + row in rows]
            if chosen:
                table = file.read_row_group(group, columns=there, use_threads=False)
                for row in chosen:
                    yield {**absent, **table.slice(row, 1).to_pylist()[0]}
            first += num_rows


@contextmanager
def _damage_of(shard: Location) -> Iterator[None]:
    """Turn what Parquet and storage raise about a shard inside the block into a DatasetError that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, StorageError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise DatasetError(
            f"shard {shard.uri} can not be read ({first_line}); gwm verify tells what is damaged, and ingest makes "
            "it again"
        ) from error
