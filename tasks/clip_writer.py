"""The second look at a clip: overlay, masks and pictures of every frame, written while the next ones are made.

::

    decode  ->  mask and overlay  ->  PNG and video          one thread each, a few frames between them
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.clip_page import ClipSummary, PageRow
from tasks.decode import DecodeOptions, Frame, iterate_frames, probe
from tasks.encode import VideoWriter
from tasks.errors import StorageError
from tasks.footage import FootageItem
from tasks.mask_provenance import MaskProvenance, with_chunk
from tasks.pages import jpeg_data_uri
from tasks.pictures import Picture, overlay, segments_picture
from tasks.prefetch import prefetched
from tasks.refine import MaskRefiner, foreground_masks
from tasks.segment_clip import ClipSegments

MASK_FOLDER = "masks"
FALLBACK_FRAME_RATE = 24.0
"""For the container only, where the footage does not tell its rate: frames are shown at their own times."""

FRAMES_AHEAD = 2
"""Frames between two stages: enough that a slow one does not stop the other, few enough for 4K footage."""

_HIGHEST_FRAME_RATE = 1000.0  # that VideoWriter takes; high-speed footage goes beyond, and keeps its times all the same
_NUM_PICTURED = 6
_PICTURE_HEIGHT = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class _Drawn:
    frame: Frame
    mask: NDArray[np.bool_]
    picture: Picture
    row: PageRow | None


def write_clip(
    item: FootageItem,
    segments: ClipSegments,
    folder: Path,
    decode: DecodeOptions,
    *,
    refiner: MaskRefiner | None = None,
    provenance: MaskProvenance | None = None,
    on_frame: Callable[[int], None] | None = None,
) -> ClipSummary:
    """Write overlay and masks of every frame into ``folder``, which holds an empty MASK_FOLDER.

    refiner: refines every mask by its frame. provenance: goes into every mask. on_frame: called with the number of
    frames written so far.
    Raises FootageError for footage that breaks, StorageError for a picture that can not be encoded.
    """
    pictured = {round(position) for position in np.linspace(0, segments.num_frames - 1, _NUM_PICTURED)}
    shares: list[float] = []
    rows: list[PageRow] = []
    size = (0, 0)
    with ExitStack() as stack:
        writer = stack.enter_context(_video_writer(item, folder, decode)) if item.kind != "image" else None
        for drawn in stack.enter_context(prefetched(_draw(item, segments, decode, pictured, refiner), FRAMES_AHEAD)):
            frame = drawn.frame
            size = (int(frame.image.shape[0]), int(frame.image.shape[1]))
            mask = encode_png(drawn.mask.astype(np.uint8) * 255)
            traceable = with_chunk(mask, provenance.of_frame(frame.index)) if provenance else mask
            (folder / MASK_FOLDER / f"{frame.index:05d}.png").write_bytes(traceable)
            if writer is None:
                (folder / "overlay.png").write_bytes(encode_png(cv2.cvtColor(drawn.picture, cv2.COLOR_RGB2BGR)))
            else:
                writer.write(drawn.picture, frame.time_seconds)
            shares.append(float(drawn.mask.mean()))
            if drawn.row:
                rows.append(drawn.row)
            if on_frame:
                on_frame(len(shares))
    return ClipSummary(
        name=item.clip,
        source=item.uri,
        kind=item.kind,
        num_frames=segments.num_frames,
        size=size,
        foreground=segments.grouping.segments,
        rule=segments.grouping.rule,
        shares=tuple(shares),
        rows=tuple(rows),
        crf=refiner.name if refiner else None,
    )


def _draw(
    item: FootageItem,
    segments: ClipSegments,
    decode: DecodeOptions,
    pictured: Collection[int],
    refiner: MaskRefiner | None,
) -> Iterator[_Drawn]:
    """Yield every frame with its mask and overlay, and a row of the clip's page for the frames ``pictured``."""
    with prefetched(iterate_frames(item, decode), FRAMES_AHEAD) as frames:
        for frame, mask in foreground_masks(segments, frames, refiner):
            picture = overlay(frame.image, mask)
            row = _page_row(frame, segments, picture) if frame.index in pictured else None
            yield _Drawn(frame=frame, mask=mask, picture=picture, row=row)


def _page_row(frame: Frame, segments: ClipSegments, picture: Picture) -> PageRow:
    soft = segments_picture(segments.probabilities(frame.index).numpy(), frame=frame.image)
    tiles = {"frame": frame.image, "segments": soft, "foreground": picture}
    return PageRow(
        frame=frame.index,
        seconds=frame.time_seconds,
        tiles={name: jpeg_data_uri(tile, height=_PICTURE_HEIGHT) for name, tile in tiles.items()},
    )


def _video_writer(item: FootageItem, folder: Path, decode: DecodeOptions) -> VideoWriter:
    fps = decode.fps or probe(item).frame_rate or FALLBACK_FRAME_RATE
    return VideoWriter(folder / "overlay.mp4", fps=min(fps, _HIGHEST_FRAME_RATE))


def encode_png(picture: NDArray[np.uint8]) -> bytes:
    """Encode grey [H, W] or BGR [H, W, 3] as PNG. Raises StorageError for a picture that can not be."""
    # Level 1: masks are flat, more effort halves the speed of the whole command to save a few percent.
    encoded, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not encoded:
        raise StorageError(f"can not encode a picture of shape {picture.shape} as PNG")
    return data.tobytes()
