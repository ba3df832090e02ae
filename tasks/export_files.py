"""The files of exported frames, the same bytes for the same rows: pictures as stored, flow as ``.flo`` and ``.npy``."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.flow_codec import decode_flow
from tasks.schema import flow_column
from tasks.snapshot import StoredClip
from tasks.stored_rows import StoredRow

_FLO_MAGIC = 202021.25  # Middlebury's .flo: "PIEH" read as a float32
EXPORTED_COLUMNS = ("frame_index", "time_seconds", "jpeg", "annotation")


def columns_of(gaps: Sequence[int]) -> tuple[str, ...]:
    """Columns that an export of ``gaps`` reads."""
    return (*EXPORTED_COLUMNS, *(flow_column(gap) for gap in gaps))


def flo_bytes(flow: NDArray[np.float32]) -> bytes:
    """Return optical flow [2, H, W] in pixels as Middlebury's ``.flo``: header, then u and v alternating, float32."""
    _, height, width = flow.shape
    return struct.pack("<fii", _FLO_MAGIC, width, height) + interleaved(flow).tobytes()


def npy_bytes(flow: NDArray[np.float32]) -> bytes:
    """Return optical flow [2, H, W] in pixels as ``.npy``: float32 [H, W, 2], horizontal first."""
    stream = io.BytesIO()
    np.save(stream, interleaved(flow), allow_pickle=False)
    return stream.getvalue()


def interleaved(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return flow [2, H, W] as little-endian [H, W, 2]."""
    return np.ascontiguousarray(flow.transpose(1, 2, 0)).astype("<f4", copy=False)


def sample_files(clip: StoredClip, row: StoredRow, gaps: Sequence[int]) -> Iterator[tuple[str, bytes]]:
    """Yield (extension, content) of a frame as WebDataset names them: jpg, png, flow_p1.npy, json.

    A frame without an annotation has no png, one whose gap leads out of the clip no flow over it.
    """
    yield "jpg", row["jpeg"]
    if row["annotation"] is not None:
        yield "png", row["annotation"]
    for gap in gaps:
        encoded = row[flow_column(gap)]
        if encoded is not None:
            yield f"{flow_column(gap)}.npy", npy_bytes(decode_flow(encoded))
    facts = {
        "clip": clip.clip,
        "frame": row["frame_index"],
        "time_seconds": row["time_seconds"],
        "video_id": clip.video_id,
        "shot": clip.shot,
        "recipe_hash": clip.recipe_hash,
        "source": clip.source,
        "width": clip.width,
        "height": clip.height,
        "flow_estimator": clip.recipe.flow_estimator,
    }
    yield "json", json.dumps(facts, sort_keys=True).encode()


def davis_files(row: StoredRow, gaps: Sequence[int]) -> Iterator[tuple[str, str, bytes]]:
    """Yield (folder, file name, content) of a frame in the layout of DAVIS, flow first and the picture last.

    A flow file bears the name of its first frame, the one that it leads from.
    """
    stem = f"{row['frame_index']:05d}"
    for gap in gaps:
        encoded = row[flow_column(gap)]
        if encoded is not None:
            yield f"Flows_gap{gap}", f"{stem}.flo", flo_bytes(decode_flow(encoded))
    if row["annotation"] is not None:
        yield "Annotations", f"{stem}.png", row["annotation"]
    yield "JPEGImages", f"{stem}.jpg", row["jpeg"]
