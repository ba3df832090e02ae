"""A page to look at a dataset: per clip a strip of frames, the optical flow stored with them, masks if there are any.

Written into a folder, pictures are files of their own that a browser loads as they come into view, named by their
content; written into one ``.html`` file, they are inside it. Either opens from a disk, without a server.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.errors import DatasetError
from tasks.flow_codec import decode_flow
from tasks.pages import data_uri, render
from tasks.pictures import Picture, contact_strip, flow_picture, jpeg_bytes, overlay, resized, wheel_legend
from tasks.schema import flow_column
from tasks.snapshot import DatasetSnapshot, StoredClip
from tasks.storage import Location
from tasks.stored_rows import read_rows

NUM_FRAMES = 6
"""Frames of a strip: as many as can be told apart across a page."""

TILE_HEIGHT = 112  # pixels: six of 16:9 are as wide as the page
_GAP_PX = 3
_LEGEND_SIDE = 96
_QUALITY = 78  # of thumbnails; half the bytes of 90
_THREADS = 2  # one reads while the other draws
_SCALE_PERCENTILE = 99.0
"""Of the lengths of flow vectors: the length drawn fully saturated. A few wild vectors must not pale all others."""

_PICTURES = "pictures"
_PICTURE_NAME = re.compile(r"^[0-9a-f]{20}\.jpg$")

_Publish = Callable[[bytes], str]


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One row of pictures. source: address of the picture; width and height in pixels, known before it is loaded."""

    title: str
    source: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class ClipPreview:
    """What the page shows of a clip.

    seconds: from the first frame that is shown to the last. gap, scale_px: of the flow that is shown, and its length at
    full colour. problem: why there are no pictures.
    """

    clip: StoredClip
    num_bytes: int
    seconds: float
    strips: tuple[Strip, ...] = ()
    gap: int | None = None
    scale_px: float = 0.0
    problem: str | None = None


def write_preview(
    snapshot: DatasetSnapshot,
    out: Location,
    *,
    max_clips: int,
    on_progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Location:
    """Write the page into a folder, or into the file that ``out`` names when it ends in ``.html``; return its place.

    A clip that can not be read is shown with the reason. The page is written last and names its pictures by content, so
    a page that is there is whole. Raises StorageError when ``out`` can not be written.
    """
    in_one = out.name.lower().endswith(".html")
    page = out if in_one else out / "index.html"
    publish: _Publish = data_uri if in_one else partial(_write_picture, out / _PICTURES)
    chosen = spread_clips(snapshot.clips, max_clips)
    shown = []
    for number, preview in enumerate(_previews(snapshot, chosen, publish), start=1):
        shown.append(preview)
        on_progress(number, len(chosen), preview.clip.clip)
    html = render(
        "preview.html",
        title=f"{snapshot.uri} version {snapshot.version}",
        snapshot=snapshot,
        clips=shown,
        num_videos=len(snapshot.videos),
        num_frames_shown=NUM_FRAMES,
        wheel=data_uri(jpeg_bytes(wheel_legend(_LEGEND_SIDE), quality=90)),
    )
    page.write_bytes(html.encode())
    if not in_one:
        _remove_stale(out / _PICTURES, {strip.source for preview in shown for strip in preview.strips})
    return page


def spread_clips(clips: Sequence[StoredClip], count: int) -> list[StoredClip]:
    """Choose at most ``count`` clips, evenly spread over all of them by name."""
    return [clips[position * len(clips) // min(count, len(clips))] for position in range(min(count, len(clips)))]


def spread_frames(num_frames: int, gap: int, count: int = NUM_FRAMES) -> list[int]:
    """Choose at most ``count`` frames, evenly spread over those with flow over ``gap``, or over all if none has."""
    first, last = max(0, -gap), num_frames - 1 - max(0, gap)
    if first > last:
        first, last = 0, num_frames - 1
    return sorted({round(position) for position in np.linspace(first, last, min(count, last - first + 1))})


def _previews(snapshot: DatasetSnapshot, clips: Sequence[StoredClip], publish: _Publish) -> Iterator[ClipPreview]:
    waiting = iter(clips)
    with ThreadPoolExecutor(_THREADS) as threads:
        while batch := list(islice(waiting, 4 * _THREADS)):
            yield from threads.map(lambda clip: _preview(snapshot, clip, publish), batch)


def _preview(snapshot: DatasetSnapshot, clip: StoredClip, publish: _Publish) -> ClipPreview:
    num_bytes = sum(shard.num_bytes for shard in clip.shards)
    gap = min(clip.recipe.gaps, key=lambda gap: (abs(gap), gap < 0))
    columns = ("jpeg", "annotation", "time_seconds", flow_column(gap))
    try:
        rows = list(read_rows(snapshot.frames, clip, columns, frames=spread_frames(clip.num_frames, gap)))
        frames = [_decoded(row["jpeg"]) for row in rows]
        flows = [None if row[columns[3]] is None else decode_flow(row[columns[3]]) for row in rows]
    except DatasetError as error:
        return ClipPreview(clip=clip, num_bytes=num_bytes, seconds=0.0, problem=str(error))
    scale = flow_scale(flows)
    strips = [("frames", frames), ("flow", _flow_pictures(frames, flows, scale))]
    masks = [None if row["annotation"] is None else _mask(row["annotation"]) for row in rows]
    if any(mask is not None for mask in masks):
        strips.append(("masks", [_masked(frame, mask) for frame, mask in zip(frames, masks, strict=True)]))
    return ClipPreview(
        clip=clip,
        num_bytes=num_bytes,
        seconds=rows[-1]["time_seconds"] - rows[0]["time_seconds"],
        strips=tuple(_strip(title, pictures, publish) for title, pictures in strips),
        gap=gap,
        scale_px=scale,
    )


def flow_scale(flows: Sequence[NDArray[np.float32] | None]) -> float:
    """Length in pixels that is drawn fully saturated in all flows of a clip, so that they can be compared."""
    lengths = [np.hypot(flow[0], flow[1]).ravel() for flow in flows if flow is not None]
    return float(np.percentile(np.concatenate(lengths), _SCALE_PERCENTILE)) if lengths else 0.0


def _flow_pictures(
    frames: Sequence[Picture], flows: Sequence[NDArray[np.float32] | None], scale: float
) -> list[Picture]:
    """Flow of each frame; a grey tile where the gap leads out of the clip."""
    return [
        np.full_like(frame, 128) if flow is None else flow_picture(flow, max_px=scale)
        for frame, flow in zip(frames, flows, strict=True)
    ]


def _masked(frame: Picture, mask: NDArray[np.uint8] | None) -> Picture:
    """The mask over its frame; a frame without one is dimmed, so that nobody takes it for an empty mask."""
    if mask is None or mask.shape != frame.shape[:2]:
        return frame // 3
    return overlay(frame, mask)


def _strip(title: str, pictures: Sequence[Picture], publish: _Publish) -> Strip:
    tiles = [resized(picture, height=TILE_HEIGHT) for picture in pictures]
    strip = contact_strip(tiles, height=TILE_HEIGHT, gap_px=_GAP_PX)
    source = publish(jpeg_bytes(strip, quality=_QUALITY))
    return Strip(title=title, source=source, width=strip.shape[1], height=strip.shape[0])


def _write_picture(folder: Location, jpeg: bytes) -> str:
    name = f"{hashlib.sha256(jpeg).hexdigest()[:20]}.jpg"
    if not (folder / name).exists():
        (folder / name).write_bytes(jpeg)
    return f"{_PICTURES}/{name}"


def _remove_stale(folder: Location, used: set[str]) -> None:
    """Remove pictures of an earlier page that this one does not show; what is not ours stays."""
    for place in folder.list():
        if _PICTURE_NAME.match(place.name) and f"{_PICTURES}/{place.name}" not in used:
            place.delete()


def _decoded(jpeg: bytes) -> Picture:
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise DatasetError("a stored JPEG is damaged; gwm verify tells where, and ingest makes it again")
    picture: Picture = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return picture


def _mask(png: bytes) -> NDArray[np.uint8]:
    mask = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise DatasetError("a stored annotation is damaged; gwm verify tells where, and ingest makes it again")
    picture: NDArray[np.uint8] = mask
    return picture
