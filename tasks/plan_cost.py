"""What an ingest will cost, measured on a sample of it: a few videos are really decoded, estimated and encoded.

Time and bytes are counted by the pixel, and what the sample took for one pixel is expected of all. The range goes from
the cheapest to the dearest half of a sampled video, so it tells how unlike the footage is, not how unlikely the rest.
Videos of which different things are made anew are sampled and counted apart: copying rows costs next to nothing.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from tasks.cluster import PoolResources, resources
from tasks.errors import FootageError, InputError
from tasks.ingest_plan import IngestPlan, PlannedVideo
from tasks.ingest_worker import IngestJob, IngestWorker, label_of
from tasks.plan_footage import Footage
from tasks.pool import PoolResult, pool_session, run_pool
from tasks.reuse import StaleRowsError, find_reuse
from tasks.settings import Settings
from tasks.shards import FrameRow, write_video

SAMPLE_PERCENT = 1.0
FEWEST_SAMPLES, MOST_SAMPLES = 3, 8
"""Three videos tell something about how unlike they are; eight keep the plan of a million within minutes."""

SAMPLE_FRAMES = 48
"""Frames of each: two seconds of film, long enough for both halves to average over their frames."""


_NO_SAMPLE = (FootageError, InputError, StaleRowsError)  # what is wrong with one video says nothing of the others


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows of a sample in a row: their pixels, the seconds one worker took and the bytes they are stored in."""

    num_pixels: int
    seconds: float
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one video took: halves of its first SAMPLE_FRAMES rows, without the row that waits for the start."""

    source: str
    num_frames: int
    parts: tuple[Part, ...]


@dataclass(frozen=True, kw_only=True)
class Range:
    """An expected value and the lowest and highest that the sample speaks for."""

    low: float
    expected: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(low=self.low + other.low, expected=self.expected + other.expected, high=self.high + other.high)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What the ingest will take: seconds of one worker, of ``num_workers`` at once, and bytes that will be stored.

    num_untold: videos that are not counted, since their length is unknown or no sample of their kind succeeded.
    problems: samples that were refused.
    """

    worker_seconds: Range
    stored_bytes: Range
    num_workers: int
    num_samples: int
    num_sampled_frames: int
    num_videos: int
    num_untold: int
    problems: tuple[str, ...] = ()


class SampleWorker:
    """Lives in an actor of the same kind that the ingest uses, and does what that does to the start of a video."""

    def __init__(self, job: IngestJob) -> None:
        self._recipe = job.recipe
        self._worker = IngestWorker(job)

    def run(self, video: PlannedVideo) -> Sample:
        """Make and write the first rows of a video, into a folder that vanishes. Raises FootageError."""
        marks = [(time.perf_counter(), 0, 0)]

        def marked(rows: Iterable[FrameRow]) -> Iterator[FrameRow]:
            for row in rows:
                yield row  # comes back when it is written
                marks.append((time.perf_counter(), row.width * row.height, row_bytes(row)))

        with tempfile.TemporaryDirectory(prefix="gwm-plan-") as folder:
            rows = marked(islice(self._rows(video), SAMPLE_FRAMES))
            write_video(folder, label_of(video, self._recipe), rows)
        return Sample(source=video.source, num_frames=len(marks) - 1, parts=halves(marks))

    def _rows(self, video: PlannedVideo) -> Iterator[FrameRow]:
        for _, rows in self._worker.clips(video, find_reuse(video, self._recipe)):
            yield from rows


def row_bytes(row: FrameRow) -> int:
    """Bytes of a row's pictures and optical flow, which nearly all of a shard consists of."""
    return len(row.jpeg) + len(row.annotation or b"") + sum(len(flow or b"") for flow in row.flows.values())


def halves(marks: Sequence[tuple[float, int, int]]) -> tuple[Part, ...]:
    """Cut (time, pixels, bytes) after each row into two parts; the first row pays for the start and is left out."""
    rows = marks[1:]
    middle = (len(rows) + 1) // 2
    spans = [rows[:middle], rows[middle - 1 :]] if len(rows) > 2 else [rows]
    return tuple(
        Part(
            num_pixels=sum(pixels for _, pixels, _ in span[1:]),
            seconds=span[-1][0] - span[0][0],
            num_bytes=sum(num_bytes for _, _, num_bytes in span[1:]),
        )
        for span in spans
        if len(span) > 1
    )


def choose_samples(videos: Sequence[PlannedVideo], footage: Mapping[str, Footage]) -> tuple[PlannedVideo, ...]:
    """Choose SAMPLE_PERCENT of the videos that promise work, FEWEST_ to MOST_SAMPLES, evenly over their order."""
    willing = [video for video in videos if footage[video.source].work]
    wanted = max(FEWEST_SAMPLES, min(MOST_SAMPLES, math.ceil(len(willing) * SAMPLE_PERCENT / 100)))
    number = min(wanted, len(willing))
    return tuple(willing[(2 * index + 1) * len(willing) // (2 * number)] for index in range(number))


def by_rework(plan: IngestPlan) -> dict[str, list[PlannedVideo]]:
    """Videos to ingest, grouped by what is made anew of them."""
    groups: dict[str, list[PlannedVideo]] = {}
    for video in plan.to_ingest:
        reuse = find_reuse(video, plan.recipe)
        kind = str(reuse.rework) if reuse else "everything"
        groups.setdefault(kind, []).append(video)
    return groups


def extrapolate(work: int, samples: Sequence[Sample]) -> tuple[Range, Range] | None:
    """Seconds and bytes that ``work`` pixels take, by what the samples took; None when they say nothing."""
    parts = [part for sample in samples for part in sample.parts if part.num_pixels]
    if not parts:
        return None
    pixels = sum(part.num_pixels for part in parts)

    def spread(total: float, rates: Sequence[float]) -> Range:
        return Range(low=work * min(rates), expected=work * total / pixels, high=work * max(rates))

    seconds = spread(sum(part.seconds for part in parts), [part.seconds / part.num_pixels for part in parts])
    stored = spread(sum(part.num_bytes for part in parts), [part.num_bytes / part.num_pixels for part in parts])
    return seconds, stored


def estimate_cost(
    plan: IngestPlan,
    dataset_uri: str,
    footage: Mapping[str, Footage],
    settings: Settings,
    *,
    weights: str | None = None,
) -> Cost | None:
    """Process the sample in the workers that would do the ingest, and tell what all of it would take.

    None when there is nothing to ingest, or no sample could be processed. Starting processes and uploading shards are
    not part of it.
    """
    groups = by_rework(plan)
    chosen = [video for videos in groups.values() for video in choose_samples(videos, footage)]
    if not chosen:
        return None
    with pool_session(settings):
        share = resources(settings)
        job = IngestJob(
            dataset_uri=dataset_uri,
            recipe=plan.recipe,
            weights=weights,
            device=share.device,
            limits=settings.decode,
        )
        samples, problems = _process(job, chosen, share)
    return add_up(groups, footage, samples, share.num_actors, problems) if samples else None


def add_up(
    groups: Mapping[str, Sequence[PlannedVideo]],
    footage: Mapping[str, Footage],
    samples: Mapping[str, Sample],
    num_workers: int,
    problems: Sequence[str] = (),
) -> Cost:
    """Cost of all groups, each by its own samples (by source)."""
    seconds = stored = Range(low=0.0, expected=0.0, high=0.0)
    num_untold = 0
    for videos in groups.values():
        told = [video for video in videos if footage[video.source].work]
        work = sum(footage[video.source].work for video in told)
        found = extrapolate(work, [samples[video.source] for video in told if video.source in samples])
        num_untold += len(videos) - (len(told) if found else 0)
        if found:
            seconds, stored = seconds + found[0], stored + found[1]
    return Cost(
        worker_seconds=seconds,
        stored_bytes=stored,
        num_workers=num_workers,
        num_samples=len(samples),
        num_sampled_frames=sum(sample.num_frames for sample in samples.values()),
        num_videos=sum(len(videos) for videos in groups.values()),
        num_untold=num_untold,
        problems=tuple(problems),
    )


def _process(
    job: IngestJob, videos: Sequence[PlannedVideo], share: PoolResources
) -> tuple[dict[str, Sample], tuple[str, ...]]:
    """Samples by source, and what was wrong with those that there is none of."""
    samples: dict[str, Sample] = {}
    problems: list[str] = []

    def take(result: PoolResult[PlannedVideo]) -> None:
        if result.status == "done":
            samples[result.item.source] = result.value
        elif result.status == "died" or isinstance(result.error, _NO_SAMPLE):
            problems.append(f"{result.item.source}: {result.error}")
        elif result.error is not None:
            raise result.error

    run_pool(SampleWorker, (job,), videos, resources=share, on_result=take)
    return samples, tuple(problems)
