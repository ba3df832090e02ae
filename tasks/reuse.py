"""Rows of a new recipe out of stored ones: what the changed fields do not decide is copied byte for byte.

``tasks/recipe_changes.py`` says what that is. What is copied is first proved to be what was written: the name of a
shard holds the hash of its bytes. And rows are only merged with footage that decodes to the same frames as then, told
by size and time. When either fails, StaleRowsError sends the video to be made anew, which is always right.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.decode import Frame
from tasks.errors import StorageError
from tasks.identity import Recipe
from tasks.ingest_plan import PlannedVideo
from tasks.recipe_changes import Rework, rework
from tasks.schema import flow_column
from tasks.shards import FrameRow
from tasks.snapshot import StoredClip, StoredVideo
from tasks.storage import Location

_CHUNK_BYTES = 8 << 20


class StaleRowsError(Exception):
    """Stored rows can not be used: they are damaged or gone, or the footage decodes to other frames than it did."""


@dataclass(frozen=True, kw_only=True)
class Reuse:
    """Stored rows of the same footage, and what must be made anew of them."""

    stored: StoredVideo
    rework: Rework

    def clip(self, shot: int) -> StoredClip | None:
        """One shot; None for one after the last that is stored, which may have been left out as a near-duplicate."""
        return next((clip for clip in self.stored.clips if clip.shot == shot), None)


def find_reuse(video: PlannedVideo, recipe: Recipe) -> Reuse | None:
    """What can be copied for a planned video; None when everything is made anew.

    A video of which shots were left out is made anew, since only decoding tells where the others began.
    """
    for stored in video.replaces:
        if stored.video_id == video.wanted.video_id and len(stored.clips) == stored.num_shots:
            part = rework(stored.recipe, recipe)
            return None if part.everything else Reuse(stored=stored, rework=part)
    return None


def stored_rows(folder: Location, clip: StoredClip, gaps: Sequence[int]) -> Iterator[FrameRow]:
    """Yield a clip's rows with the optical flow of ``gaps``, one in memory. folder: of the frames table.

    Raises StaleRowsError when a shard is gone or is not what was written.
    """
    columns = ["time_seconds", "width", "height", "jpeg", "annotation", *map(flow_column, gaps)]
    for shard in clip.shards:
        try:
            with _proved(folder / shard.path) as stream, pq.ParquetFile(stream) as file:
                for group in range(file.num_row_groups):
                    for row in file.read_row_group(group, columns=columns, use_threads=False).to_pylist():
                        flows = {gap: row.pop(flow_column(gap)) for gap in gaps}
                        yield FrameRow(**row, flows=flows)
        except (pa.ArrowException, OSError, StorageError) as error:
            raise StaleRowsError(f"{shard.path} can not be read: {error}") from error


def merged_row(stored: Iterator[FrameRow], frame: Frame, jpeg: bytes | None) -> FrameRow:
    """Take the next stored row, with another JPEG if one is given. Raises StaleRowsError unless both are one frame."""
    row, (height, width) = next(stored, None), frame.image.shape[:2]
    if row is None or (row.time_seconds, row.width, row.height) != (frame.time_seconds, width, height):
        raise StaleRowsError(f"the footage has another frame {frame.index} than when it was stored")
    return row if jpeg is None else replace(row, jpeg=jpeg)


def require_end(stored: Iterator[FrameRow]) -> None:
    """Raise StaleRowsError when there are stored rows that no frame was merged with."""
    if next(stored, None) is not None:
        raise StaleRowsError("the footage has fewer frames than when it was stored")


@contextmanager
def _proved(shard: Location) -> Iterator[IO[bytes]]:
    """Open a shard that was read to its end and is what its name says; of a remote one, its copy on this machine."""
    with tempfile.TemporaryFile() if not shard.is_local else shard.local_path.open("rb") as stream:
        if not shard.is_local:
            with shard.open_input() as source:
                shutil.copyfileobj(source, stream, _CHUNK_BYTES)
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if not shard.name.endswith(f"-{digest[:24]}.parquet"):
            raise StaleRowsError(f"{shard.uri} is damaged: its bytes have SHA-256 {digest}, its name says otherwise")
        stream.seek(0)
        yield stream
