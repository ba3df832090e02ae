"""Writing one clip's frames to Parquet shards, one frame at a time.

A shard is a file of some hundred rows, each a row group of its own, so that a reader fetches single frames. Its name
holds the SHA-256 of its bytes: equal content has an equal name, the content of a name never changes, and a run that
was killed leaves at worst a file that nobody refers to and that the next run writes again, byte for byte.

Rows go to a temporary file first: in the dataset's own folder when that is local (then a rename publishes the name),
else on the local disk (then one upload does): see ``tasks/spool.py``. Either way memory holds one row and
Parquet's footer.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import FootageError, StorageError
from tasks.identity import Recipe
from tasks.local_files import TEMPORARY_SUFFIX
from tasks.schema import flow_column, frame_schema
from tasks.snapshot import FRAMES_TABLE, WrittenShard
from tasks.spool import MAX_SHARD_BYTES, Outbox, SpooledShard, storage_error
from tasks.storage import Location, location

MIN_FRAMES = 2
"""A shorter clip has no motion to learn from."""

_ABANDONED_SECONDS = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class VideoLabel:
    """What all rows of a clip have in common: of which video it is, and which shot."""

    video_id: str
    recipe: Recipe
    clip: str
    source: str
    shot: int = 0


@dataclass(frozen=True, kw_only=True)
class FrameRow:
    """What one frame is stored as. flows: encoded optical flow by gap, None where the gap leads out of the clip."""

    time_seconds: float
    width: int
    height: int
    jpeg: bytes
    annotation: bytes | None
    flows: Mapping[int, bytes | None]


def write_video(
    dataset_uri: str,
    label: VideoLabel,
    rows: Iterable[FrameRow],
    *,
    outbox: Outbox | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    min_frames: int = MIN_FRAMES,
) -> tuple[WrittenShard, ...]:
    """Write the rows of a clip, in frame order, to shards that ``publish`` can make visible.

    outbox: delivers the shards, sooner or later; unset, all are in their place on return. Raises
    FootageError("too_short", ...) for fewer than ``min_frames`` rows and StorageError when the place can not be
    written; whatever ``rows`` raises passes through.
    """
    if outbox is None:
        with Outbox() as outbox:
            shards = write_video(
                dataset_uri, label, rows, outbox=outbox, max_shard_bytes=max_shard_bytes, min_frames=min_frames
            )
            outbox.flush()
        return shards
    folder = location(dataset_uri) / FRAMES_TABLE
    folder.makedirs()
    written: list[WrittenShard] = []
    with closing(_ClipWriter(folder, label, max_shard_bytes)) as clip:
        for row in rows:
            if (full := clip.add(row)) is not None:
                written.append(full.shard)
                outbox.put(full)
        if clip.num_rows < min_frames:
            raise FootageError("too_short", f"{clip.num_rows} frames; expected at least {min_frames}")
        if (last := clip.finish()) is not None:
            written.append(last.shard)
            outbox.put(last)
    return tuple(written)


def remove_abandoned(dataset_uri: str, *, older_than_seconds: float = _ABANDONED_SECONDS) -> int:
    """Remove temporary files that killed writers left on this machine; return how many. Visible files stay."""
    spool = _spool(location(dataset_uri) / FRAMES_TABLE)
    if not spool.is_dir():
        return 0
    oldest = time.time() - older_than_seconds
    num_removed = 0
    for path in spool.glob(f".*.parquet{TEMPORARY_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):  # another writer named its shard, or tidies up as well
            if path.stat().st_mtime < oldest:
                path.unlink()
                num_removed += 1
    return num_removed


def _spool(frames: Location) -> Path:
    """Where shards lie until they are whole: beside the others on a disk, on the machine's own before an upload."""
    return frames.local_path if frames.is_local else Path(tempfile.gettempdir()) / f"gwm-shards-{os.getuid()}"


class _HashingFile:
    """A file that is only appended to and knows the SHA-256 of what it got."""

    closed = False

    def __init__(self, path: Path) -> None:
        self._stream = path.open("xb")
        self._digest = hashlib.sha256()
        self.num_bytes = 0

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        self.num_bytes += len(data)
        return self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        if not self.closed:
            self._stream.flush()
            os.fsync(self._stream.fileno())  # the name must not outlive a power cut that the bytes do not
            self._stream.close()
            self.closed = True

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


class _ClipWriter:
    """One shard after the other of one clip."""

    def __init__(self, folder: Location, label: VideoLabel, max_shard_bytes: int) -> None:
        self._folder, self._label, self._max_shard_bytes = folder, label, max_shard_bytes
        self._shard: _ShardWriter | None = None
        self.num_rows = 0

    def add(self, row: FrameRow) -> SpooledShard | None:
        """Write a row; return the shard that is full with it."""
        self._shard = self._shard or _ShardWriter(self._folder, self._label, self.num_rows)
        self._shard.add(row)
        self.num_rows += 1
        return self.finish() if self._shard.num_bytes >= self._max_shard_bytes else None

    def finish(self) -> SpooledShard | None:
        """Complete the shard that is under way, if there is one."""
        shard = self._shard
        if shard is None:
            return None
        spooled = shard.finish()
        self._shard = None
        return spooled

    def close(self) -> None:
        """Forget a shard that is under way."""
        if self._shard is not None:
            self._shard.discard()


class _ShardWriter:
    """One shard under way."""

    def __init__(self, folder: Location, label: VideoLabel, first_frame: int) -> None:
        self._folder, self._label, self._first_frame = folder, label, first_frame
        self._schema = frame_schema(label.recipe.gaps, recipe_json=label.recipe.model_dump_json())
        self._constant = {
            "video_id": label.video_id,
            "recipe_hash": label.recipe.hash(),
            "recipe": label.recipe.model_dump_json(),
            "clip": label.clip,
            "source": label.source,
            "shot": label.shot,
        }
        spool = _spool(folder)
        self._temporary = spool / f".{uuid.uuid4().hex}.parquet{TEMPORARY_SUFFIX}"
        self._rows: list[FrameRow] = []  # first and last only
        self._num_rows = 0
        try:
            spool.mkdir(parents=True, exist_ok=True)
            self._file = _HashingFile(self._temporary)
            self._parquet = pq.ParquetWriter(
                pa.PythonFile(self._file, mode="w"),
                self._schema,
                compression="NONE",  # JPEG, PNG and encoded flow are compressed
                use_dictionary=False,
                write_statistics=False,  # they would hold whole images; the Delta log has those that matter
            )
        except OSError as error:
            raise self._failure(error) from error

    @property
    def num_bytes(self) -> int:
        """Bytes written so far, without the footer."""
        return self._file.num_bytes

    def add(self, row: FrameRow) -> None:
        values = {
            **self._constant,
            "frame_index": self._first_frame + self._num_rows,
            "time_seconds": row.time_seconds,
            "width": row.width,
            "height": row.height,
            "jpeg": row.jpeg,
            "annotation": row.annotation,
            **{flow_column(gap): row.flows[gap] for gap in self._label.recipe.gaps},
        }
        try:
            self._parquet.write_table(pa.Table.from_pylist([values], schema=self._schema), row_group_size=1)
        except OSError as error:
            raise self._failure(error) from error
        self._rows = [*self._rows[:1], row]
        self._num_rows += 1

    def finish(self) -> SpooledShard:
        """Complete the file, which has its name in what is returned only."""
        try:
            self._parquet.close()
            self._file.close()
        except OSError as error:
            raise self._failure(error) from error
        frames = f"{self._label.shot:04d}-{self._first_frame:06d}"
        first, last = self._rows[0], self._rows[-1]
        shard = WrittenShard(
            path=f"{self._label.video_id[:16]}-{frames}-{self._file.hexdigest()[:24]}.parquet",
            num_bytes=self._file.num_bytes,
            num_rows=self._num_rows,
            first_frame=self._first_frame,
            first_time_seconds=first.time_seconds,
            last_time_seconds=last.time_seconds,
            width=first.width,
            height=first.height,
            **vars(self._label),
        )
        return SpooledShard(
            shard=shard, file=self._temporary, sha256=self._file.hexdigest(), folder_uri=self._folder.uri
        )

    def discard(self) -> None:
        """Forget the file."""
        self._temporary.unlink(missing_ok=True)
        for stream in (self._parquet, self._file):
            with contextlib.suppress(OSError):
                stream.close()

    def _failure(self, error: OSError) -> StorageError:
        return storage_error(self._folder.uri, error)
