"""Whether the shards of a dataset are what the log says: there, the very bytes they are named by, the right rows.

A shard's name holds the SHA-256 of its bytes, and the writer read it back before it was published. So equal bytes are
an equal shard, and what is read besides them is small: the footer, and the columns that say whose rows these are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from tasks.errors import DatasetError, StorageError
from tasks.snapshot import StoredShard, StoredVideo
from tasks.storage import Location
from tasks.stored_rows import read_shard_rows

ProblemKind = Literal[
    "shard_missing",  # the log names a file that is not there
    "shard_bytes",  # its bytes are not those that it is named by
    "shard_unreadable",  # it can not be read, or is no Parquet
    "shard_rows",  # its rows are not those that the log counts
    "source_gone",  # the footage is no longer where it came from: nothing to compare with
    "source_changed",  # other bytes lie there now
    "source_refused",  # the same bytes, but they can not be decoded any more
    "frames",  # decoding again gives another number of frames, other times or sizes
    "pictures",  # a frame's picture is another one
    "annotations",  # a frame's mask is another one
    "flow",  # optical flow differs by more than the tolerance
]
"""What can be wrong; the list is closed."""

_NAME = re.compile(r"-(?P<digest>[0-9a-f]{24})\.parquet$")
_CHUNK_BYTES = 8 << 20
_THREADS = 8  # mostly waiting for storage; hashing runs outside the interpreter's lock
_IDENTITY = ("video_id", "recipe_hash", "frame_index")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that is not as it should be. place: shard or source."""

    kind: ProblemKind
    clip: str
    place: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class ShardToCheck:
    """A shard, and the video it belongs to."""

    video: StoredVideo
    shard: StoredShard


def check_shards(folder: Location, shards: Sequence[ShardToCheck]) -> Iterator[tuple[ShardToCheck, Problem | None]]:
    """Check shards of the frames table in ``folder``, several at a time; yield each with what is wrong with it."""
    waiting = iter(shards)
    with ThreadPoolExecutor(_THREADS) as threads:
        while batch := list(islice(waiting, 4 * _THREADS)):  # not all at once: a dataset may have a million
            yield from zip(batch, threads.map(lambda each: check_shard(folder, each), batch), strict=True)


def check_shard(folder: Location, checked: ShardToCheck) -> Problem | None:
    """Read one shard to its end; return the first thing that is wrong with it."""
    place = folder / checked.shard.path
    try:
        return (
            _missing(place, checked)
            or _wrong_bytes(place, checked)
            or _wrong_rows(place, checked)  # only of the right bytes
        )
    except (StorageError, DatasetError) as error:
        return problem_of(checked, "shard_unreadable", place, str(error))


def problem_of(checked: ShardToCheck, kind: ProblemKind, place: Location, detail: str) -> Problem:
    """A problem of a shard."""
    return Problem(kind=kind, clip=checked.video.clip, place=place.uri, detail=detail)


def _missing(place: Location, checked: ShardToCheck) -> Problem | None:
    return None if place.exists() else problem_of(checked, "shard_missing", place, "the log names it, no file is there")


def _wrong_bytes(place: Location, checked: ShardToCheck) -> Problem | None:
    num_bytes, digest = _digest(place)
    if num_bytes != checked.shard.num_bytes:
        detail = f"{num_bytes} bytes, the log says {checked.shard.num_bytes}"
        return problem_of(checked, "shard_bytes", place, detail)
    named = _NAME.search(place.name)
    if named is None or not digest.startswith(named["digest"]):
        return problem_of(
            checked, "shard_bytes", place, f"its bytes have SHA-256 {digest}, which its name does not say"
        )
    return None


def _digest(place: Location) -> tuple[int, str]:
    digest, num_bytes = hashlib.sha256(), 0
    try:
        with place.open_input() as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                num_bytes += len(chunk)
    except OSError as error:
        raise StorageError(f"can not read {place.uri} to its end: {error}") from error
    return num_bytes, digest.hexdigest()


def _wrong_rows(place: Location, checked: ShardToCheck) -> Problem | None:
    video, shard = checked.video, checked.shard
    rows = list(read_shard_rows(place, _IDENTITY))
    if len(rows) != shard.num_rows:
        return problem_of(checked, "shard_rows", place, f"{len(rows)} rows, the log says {shard.num_rows}")
    for number, row in enumerate(rows):
        expected = (video.video_id, video.recipe_hash, shard.first_frame + number)
        if (row["video_id"], row["recipe_hash"], row["frame_index"]) != expected:
            got = f"frame {row['frame_index']} of video {row['video_id']}, recipe {row['recipe_hash']}"
            return problem_of(
                checked,
                "shard_rows",
                place,
                f"row {number} is {got}; the log says frame {expected[2]} of {expected[0]}",
            )
    return None
