"""What an export will write, decided from the log before anything is read: which clips, which gaps, which files.

The plan is stored in the target before the first file of it, so that an export which was cut short goes on, and one of
another dataset, version or shape is not mixed into it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tasks.errors import DatasetError, InputError, StorageError
from tasks.identity import hash_bytes
from tasks.snapshot import DatasetSnapshot, StoredClip
from tasks.storage import Location

ExportFormat = Literal["webdataset", "frames"]
FORMATS: tuple[ExportFormat, ...] = ("webdataset", "frames")

PLAN_FILE = "gwm_export_plan.json"
MANIFEST_FILE = "gwm_export.json"
"""Written last: an export that has it is whole."""

_FLOAT32_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class ClipSpan:
    """Frames ``start`` to ``stop`` (exclusive) of a clip."""

    clip: StoredClip
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class ExportPart:
    """What is written in one go, and done again as a whole when it is cut short: a tar file, or a clip."""

    name: str
    spans: tuple[ClipSpan, ...]

    @property
    def num_frames(self) -> int:
        """Frames over all spans."""
        return sum(span.stop - span.start for span in self.spans)


@dataclass(frozen=True, kw_only=True)
class ExportPlan:
    """An export: what it says of itself, and its parts."""

    description: dict[str, Any]
    gaps: tuple[int, ...]
    parts: tuple[ExportPart, ...]


def plan_export(
    snapshot: DatasetSnapshot, output: str, gaps: Sequence[int] | None, *, max_tar_bytes: int
) -> ExportPlan:
    """Plan an export. gaps: those whose flow is written; None takes those that every clip has, () none.

    Raises InputError for an unknown format, DatasetError for gaps that a clip has no flow over.
    """
    if output not in FORMATS:
        raise InputError(f"format {output!r}: expected one of {', '.join(FORMATS)}")
    taken = snapshot.gaps if gaps is None else tuple(gaps)
    missing = [gap for gap in taken if gap not in snapshot.gaps]
    if missing:
        raise DatasetError(
            f"{snapshot.pin} has optical flow over gaps {snapshot.gaps} in all its clips, asked for {missing} too: "
            "export fewer gaps, or ingest with these"
        )
    if output == "frames":
        parts = tuple(ExportPart(name=clip.clip, spans=(_whole(clip),)) for clip in snapshot.clips)
    else:
        parts = tar_parts(snapshot.clips, taken, max_tar_bytes)
    clips = [[clip.clip, *clip.key, clip.num_frames] for clip in snapshot.clips]
    description = {
        "format": output,
        "dataset": snapshot.uri,
        "version": snapshot.version,
        "gaps": list(taken),
        "clips_sha256": hash_bytes(json.dumps(clips).encode()),
        "num_clips": len(clips),
        "num_frames": snapshot.num_frames,
        "num_parts": len(parts),
    }
    return ExportPlan(description=description, gaps=taken, parts=parts)


def tar_parts(clips: Sequence[StoredClip], gaps: Sequence[int], max_bytes: int) -> tuple[ExportPart, ...]:
    """Pack clips, in their order, into tars of about ``max_bytes``; a clip that is larger goes over several.

    Sizes are estimated: pictures as large as the stored shards, flow as float32. So the parts follow from the log alone
    and are the same on every machine.
    """
    parts: list[ExportPart] = []
    spans: list[ClipSpan] = []
    room = float(max_bytes)
    for clip in clips:
        per_frame = _bytes_per_frame(clip, gaps)
        start = 0
        while start < clip.num_frames:
            fits = int(room // per_frame)
            if fits < 1 and spans:
                parts.append(_tar(len(parts), spans))
                spans, room = [], float(max_bytes)
                continue
            stop = min(clip.num_frames, start + max(fits, 1))
            spans.append(ClipSpan(clip=clip, start=start, stop=stop))
            room -= (stop - start) * per_frame
            start = stop
    if spans:
        parts.append(_tar(len(parts), spans))
    return tuple(parts)


def agree_on_plan(target: Location, plan: ExportPlan) -> None:
    """Store the plan in ``target``, or find it there. Raises StorageError when something else is there."""
    file = target / PLAN_FILE
    if file.exists():
        there = json.loads(file.read_bytes())
        if there != plan.description:
            differing = [key for key in plan.description if there.get(key) != plan.description[key]]
            raise StorageError(
                f"{target.uri} holds another export, with another {', '.join(differing)}: choose another place, or "
                "remove that one"
            )
        return
    if target.list() or target.list_folders():
        raise StorageError(f"{target.uri} is not empty and holds no {PLAN_FILE}: choose an empty place to export to")
    file.write_bytes(json.dumps(plan.description, indent=1).encode())


def _whole(clip: StoredClip) -> ClipSpan:
    return ClipSpan(clip=clip, start=0, stop=clip.num_frames)


def _tar(number: int, spans: Sequence[ClipSpan]) -> ExportPart:
    return ExportPart(name=f"gwm-{number:06d}.tar", spans=tuple(spans))


def _bytes_per_frame(clip: StoredClip, gaps: Sequence[int]) -> float:
    stored = sum(shard.num_bytes for shard in clip.shards) / clip.num_frames
    return stored + len(gaps) * 2 * _FLOAT32_BYTES * clip.width * clip.height
