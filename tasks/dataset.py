"""Reading single frames of a dataset at random: one JPEG and one optical flow per call, and nothing else.

A row is a row group of its own, so fetching a sample costs two column chunks. Footers are parsed once per shard; each
thread keeps its own few open files, since Parquet readers must not be shared between threads.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from itertools import accumulate

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.types import FramePair
from tasks.errors import DatasetError, StorageError
from tasks.flow_codec import decode_flow
from tasks.sampling import ClipIndex
from tasks.schema import flow_column
from tasks.snapshot import DatasetSnapshot
from tasks.storage import Location

_OPEN_FILES_PER_THREAD = 32


@dataclass(frozen=True, kw_only=True)
class _Footer:
    """A shard's parsed footer, and the number of its rows before the end of each row group."""

    metadata: pq.FileMetaData
    row_ends: tuple[int, ...]


class FrameReader:
    """Random access to the frames of datasets, one version of each; may be used from several threads."""

    def __init__(self, *snapshots: DatasetSnapshot) -> None:
        # By identity, so that the same versions give the same clip numbers on every machine.
        self._stored = tuple(
            (number, clip)
            for number, snapshot in enumerate(snapshots)
            for clip in sorted(snapshot.clips, key=lambda clip: clip.key)
        )
        self._snapshots = snapshots
        self._footers: dict[str, _Footer] = {}
        self._local = threading.local()

    @property
    def clips(self) -> tuple[ClipIndex, ...]:
        """The clips in the order of their numbers."""
        return tuple(
            ClipIndex(num_frames=clip.num_frames, gaps=clip.recipe.gaps, dataset=number)
            for number, clip in self._stored
        )

    def clip_name(self, clip: int) -> str:
        """Name that the clip was ingested under."""
        return self._stored[clip][1].clip

    def require_gaps(self, gaps: tuple[int, ...]) -> None:
        """Raise DatasetError unless every clip has optical flow over all of ``gaps``."""
        for snapshot in self._snapshots:
            missing = [gap for gap in gaps if gap not in snapshot.gaps]
            if missing:
                raise DatasetError(
                    f"{snapshot.uri} has optical flow over gaps {snapshot.gaps}, training wants {missing} too: "
                    f"ingest with these gaps, train with --set data.gaps={list(snapshot.gaps)}, or with --set "
                    "data.gaps_from=recipe where clips were ingested with gaps of their own"
                )

    def read_pair(self, clip: int, frame: int, gap: int) -> FramePair:
        """Return a frame and its optical flow to the frame ``gap`` later, in pixels of the stored size.

        Raises DatasetError when that frame is outside the clip, or when the stored bytes are damaged.
        """
        column = flow_column(gap)
        row = self._read_row(clip, frame, ("jpeg", column))
        stored_flow = row[column]
        if stored_flow is None:
            raise DatasetError(
                f"clip {self.clip_name(clip)!r}, frame {frame}: no optical flow over gap {gap}; "
                f"frame {frame + gap} must be one of its {self._stored[clip][1].num_frames} frames"
            )
        flow = torch.from_numpy(decode_flow(stored_flow))
        return FramePair(image=self._decoded(clip, frame, row["jpeg"]), flow=flow, gap=gap)

    def read_image(self, clip: int, frame: int) -> Tensor:
        """Return one frame, uint8 RGB [3, H, W]."""
        row = self._read_row(clip, frame, ("jpeg",))
        return self._decoded(clip, frame, row["jpeg"])

    def _decoded(self, clip: int, frame: int, jpeg: bytes | None) -> Tensor:
        pixels = None if not jpeg else cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        if pixels is None:
            raise DatasetError(
                f"clip {self.clip_name(clip)!r}, frame {frame}: the stored JPEG is damaged; ingest the video again"
            )
        return _to_tensor(pixels)

    def _read_row(self, clip: int, frame: int, columns: tuple[str, ...]) -> dict[str, bytes | None]:
        number, stored_clip = self._stored[clip]
        if not 0 <= frame < stored_clip.num_frames:
            raise DatasetError(f"clip {stored_clip.clip!r} has frames 0 to {stored_clip.num_frames - 1}, got {frame}")
        stored = stored_clip.shards[bisect_right(stored_clip.shards, frame, key=lambda shard: shard.first_frame) - 1]
        shard, row = self._snapshots[number].frames / stored.path, frame - stored.first_frame
        try:
            return self._read_shard_row(shard, row, columns)
        except (pa.ArrowException, OSError, StorageError) as error:
            raise DatasetError(
                f"{shard.uri}: row {row} of clip {stored_clip.clip!r} can not be read ({error}); was the file removed?"
            ) from error

    def _read_shard_row(self, shard: Location, row: int, columns: tuple[str, ...]) -> dict[str, bytes | None]:
        file = self._open(shard)
        ends = self._footers[shard.uri].row_ends
        group = bisect_right(ends, row)
        table = file.read_row_group(group, columns=list(columns), use_threads=False)
        at = row - (ends[group - 1] if group else 0)
        return {name: table.column(name)[at].as_py() for name in columns}

    def _open(self, shard: Location) -> pq.ParquetFile:
        files: OrderedDict[str, pq.ParquetFile] = self._local.__dict__.setdefault("files", OrderedDict())
        if shard.uri in files:
            files.move_to_end(shard.uri)
            return files[shard.uri]
        footer = self._footers.get(shard.uri)
        file = pq.ParquetFile(shard.open_input(), metadata=footer.metadata if footer else None)
        if footer is None:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
            self._footers[shard.uri] = _Footer(metadata=file.metadata, row_ends=tuple(accumulate(sizes)))
        files[shard.uri] = file
        if len(files) > _OPEN_FILES_PER_THREAD:
            files.popitem(last=False)[1].close(force=True)
        return file


def _to_tensor(bgr: NDArray[np.uint8]) -> Tensor:
    """Return uint8 RGB [3, H, W]: colours in their order and apart in one pass."""
    planes = np.empty((3, *bgr.shape[:2]), np.uint8)
    cv2.mixChannels([bgr], list(planes), [0, 2, 1, 1, 2, 0])
    return torch.from_numpy(planes)
