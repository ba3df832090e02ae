"""A plan as people read it: a line per piece of footage, and the totals of each kind of line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.dead_letters import Refusal
from tasks.ingest import GONE_AND_KEPT
from tasks.ingest_plan import IngestPlan, PlannedVideo
from tasks.plan_footage import Footage
from tasks.snapshot import StoredVideo

TO_REMOVE = "to be removed"


@dataclass(frozen=True, kw_only=True)
class PlanLine:
    """What will become of one piece of footage.

    what: the kind of line, such as new or recipe changed. num_bytes: of the footage, or of the shards of what is gone.
    num_frames: rows that are stored or, by the footage's own header, will be; None where nobody can tell yet.
    seconds: length of footage that will be ingested.
    """

    what: str
    source: str
    clip: str
    why: str
    num_bytes: int = 0
    num_frames: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class PlanTotal:
    """All lines of one kind. num_untold: lines whose number of frames is not known, and not in the sums."""

    what: str
    num_videos: int
    num_bytes: int
    num_frames: int
    minutes: float
    num_untold: int


def plan_lines(plan: IngestPlan, footage: Mapping[str, Footage], stored: Sequence[StoredVideo]) -> tuple[PlanLine, ...]:
    """Lines of a plan: footage in its order, then what is gone, then what could not be reached.

    footage: what the headers of videos to be ingested tell, by source. stored: what the dataset holds now.
    """
    frames: dict[str, int] = {}
    for video in stored:
        frames[video.video_id] = frames.get(video.video_id, 0) + video.num_frames
    lines = [_line_of_footage(video, footage.get(video.source), frames) for video in plan.videos]
    gone = [_line_of_gone(video, plan.prune) for video in plan.gone]
    return (*lines, *gone, *map(_line_of_refusal, plan.refusals))


def plan_totals(lines: Sequence[PlanLine]) -> tuple[PlanTotal, ...]:
    """Sums by kind of line, in the order in which the kinds appear."""
    groups: dict[str, list[PlanLine]] = {}
    for line in lines:
        groups.setdefault(line.what, []).append(line)
    return tuple(
        PlanTotal(
            what=what,
            num_videos=len(group),
            num_bytes=sum(line.num_bytes for line in group),
            num_frames=sum(line.num_frames or 0 for line in group),
            minutes=sum(line.seconds or 0.0 for line in group) / 60,
            num_untold=sum(line.num_frames is None for line in group),
        )
        for what, group in groups.items()
    )


def _line_of_footage(video: PlannedVideo, footage: Footage | None, stored_frames: Mapping[str, int]) -> PlanLine:
    why = video.explanation
    if footage is not None and footage.problem:
        why = f"{why}; will be refused: {footage.problem}"
    return PlanLine(
        what=video.reason.replace("_", " "),
        source=video.source,
        clip=video.clip,
        why=why,
        num_bytes=video.wanted.num_bytes,
        num_frames=footage.num_frames if footage else stored_frames.get(video.wanted.video_id),
        seconds=footage.seconds if footage else None,
    )


def _line_of_gone(video: StoredVideo, prune: bool) -> PlanLine:
    return PlanLine(
        what=TO_REMOVE if prune else "gone",
        source=video.source,
        clip=video.clip,
        why="gone from source" if prune else GONE_AND_KEPT,
        num_bytes=video.num_bytes,
        num_frames=video.num_frames,
    )


def _line_of_refusal(refusal: Refusal) -> PlanLine:
    return PlanLine(
        what="out of reach", source=refusal.source, clip="", why=f"{refusal.reason}: {refusal.detail}", num_frames=0
    )
