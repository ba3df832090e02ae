"""One batch of an ingest: actors write shards, one transaction makes them visible. The unit that is retried."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.catalog import is_present, publish, published_frames
from tasks.clips import JudgedClip, clip_history, describe
from tasks.cluster import resources
from tasks.dead_letters import Refusal, forget_rejected, record_rejected
from tasks.errors import FootageError, GwmError, InputError
from tasks.flow_codec import MAX_FLOW_PX
from tasks.identity import Recipe
from tasks.ingest_metrics import IngestMetrics
from tasks.ingest_plan import PlannedVideo
from tasks.ingest_worker import IngestJob, IngestWorker, WorkDone, refusal_of
from tasks.pool import PoolResult, pool_session, run_pool
from tasks.publish import require_written
from tasks.settings import Settings
from tasks.snapshot import StoredVideo, WrittenShard
from tasks.storage import location

DEFAULT_PUBLISH_SECONDS = 300.0
"""Work of a batch that a kill can cost; a batch of long videos is published in several transactions."""

Status = Literal["ingested", "skipped", "rejected", "renamed", "removed"]
NearDuplicates = Literal["report", "skip"]


@dataclass(frozen=True, kw_only=True)
class VideoOutcome:
    """A line of the report: what became of one piece of footage.

    reason: why, from a closed list: a reason of the plan, or of ``tasks/errors.py`` when it was rejected.
    """

    source: str
    clip: str
    status: Status
    reason: str
    explanation: str
    video_id: str | None = None
    num_frames: int = 0
    num_bytes: int = 0
    seconds: float = 0.0
    num_clips: int = 0
    num_near_duplicates: int = 0


@dataclass(frozen=True, kw_only=True)
class IngestProgress:
    """Told after every video."""

    num_done: int
    num_total: int
    outcome: VideoOutcome


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """What a batch did. version: the newest one it published, None when it published nothing."""

    version: int | None
    outcomes: tuple[VideoOutcome, ...]


ProgressCallback = Callable[[IngestProgress], None]


def silent(progress: IngestProgress) -> None:
    """Tell nobody."""


def ingest_batch(
    videos: Sequence[PlannedVideo],
    recipe: Recipe,
    dataset_uri: str,
    settings: Settings,
    *,
    weights: str | None = None,
    publish_seconds: float = DEFAULT_PUBLISH_SECONDS,
    near_duplicates: NearDuplicates = "report",
    more_to_come: bool = False,
    on_progress: ProgressCallback = silent,
) -> BatchResult:
    """Decode ``videos`` in Ray actors and publish them, in one transaction unless it takes ``publish_seconds``.

    more_to_come: leave the actors to the next batch, inside ``pool_session``.

    Footage at fault becomes a dead letter. Raises what would meet every video: StorageError, WeightsError,
    ServiceError. near_duplicates: whether clips that look like others are only told of, or left out.
    May be repeated with the same videos: those that an earlier attempt published are left alone.
    """
    batch = _Batch(dataset_uri, recipe, len(videos), publish_seconds, on_progress, near_duplicates)
    todo = batch.leave_out_published(videos)
    if todo:
        with pool_session(settings):
            share = resources(settings)
            job = IngestJob(
                dataset_uri=dataset_uri,
                recipe=recipe,
                weights=weights,
                device=share.device,
                limits=settings.decode,
                hands_over=not location(dataset_uri).is_local,
            )
            run_pool(IngestWorker, (job,), todo, resources=share, more_to_come=more_to_come, on_result=batch.take)
        batch.publish()
    return BatchResult(version=batch.version, outcomes=tuple(batch.outcomes))


def clamped_note(num_clamped: int) -> str:
    """What the report says of optical flow that was too long to be stored; nothing where none was."""
    if not num_clamped:
        return ""
    return f"; {num_clamped} components of its optical flow were cut to {MAX_FLOW_PX:.0f} px"


class _Batch:
    """Collects results of actors and publishes them."""

    def __init__(
        self,
        dataset_uri: str,
        recipe: Recipe,
        num_total: int,
        publish_seconds: float,
        on_progress: ProgressCallback,
        near_duplicates: NearDuplicates = "report",
    ) -> None:
        self._dataset_uri, self._recipe = dataset_uri, recipe
        self._history, self._skips_duplicates = clip_history(dataset_uri), near_duplicates == "skip"
        self._num_total, self._publish_seconds = num_total, publish_seconds
        self._on_progress = on_progress
        self._shards: list[WrittenShard] = []
        self._waiting: set[str] = set()  # videos of these shards
        self._clips: list[JudgedClip] = []
        self._replaced: list[StoredVideo] = []
        self._refusals: list[Refusal] = []
        self._published_at = time.monotonic()
        self._metrics = IngestMetrics(dataset_uri)
        self.version: int | None = None
        self.outcomes: list[VideoOutcome] = []

    def leave_out_published(self, videos: Sequence[PlannedVideo]) -> list[PlannedVideo]:
        """The videos that are still to do; the others were published since the plan was made."""
        wanted = [video.wanted.video_id for video in videos]
        self._history.refresh()
        present = published_frames(self._dataset_uri, wanted, self._recipe)
        todo = []
        for video in videos:
            num_frames = present.get(video.wanted.video_id)
            if num_frames is None:
                todo.append(video)
            else:
                self._end(video, "ingested", video.reason, "published by an earlier attempt", num_frames)
        return todo

    def take(self, result: PoolResult[PlannedVideo]) -> None:
        """Note how one video ended, and publish when the last time is long ago."""
        video = result.item
        if result.status == "done":
            self._take_work(video, result.value)
        else:
            self._refuse(video, self._blame(result), 0.0)
        if time.monotonic() - self._published_at > self._publish_seconds:
            self.publish()

    def publish(self) -> None:
        """Make visible what was written since the last time, and write down what was refused."""
        self._history.record(self._clips)  # first: whoever sees frames can see what their clips are like
        if self._shards:
            require_written(self._dataset_uri, self._shards)
            self.version = publish(self._dataset_uri, self._shards, replaced=self._replaced)
            self._metrics.committed()
            forget_rejected(self._dataset_uri, sorted({shard.source for shard in self._shards}))
        record_rejected(self._dataset_uri, self._refusals)
        self._shards, self._clips, self._replaced, self._refusals = [], [], [], []
        self._waiting = set()
        self._published_at = time.monotonic()

    def _take_work(self, video: PlannedVideo, work: WorkDone) -> None:
        if work.refusal is not None:
            self._refuse(video, work.refusal, work.seconds)
            return
        clips = self._judge(video, work)
        left_out = {clip.facts.shot for clip in clips if not clip.kept}
        shards = [shard for shard in work.shards if shard.shot not in left_out]
        if not shards:
            cause = FootageError("near_duplicate", describe(clips))
            self._refuse(video, refusal_of(video, self._recipe, cause), work.seconds)
            return
        self._shards += shards
        self._waiting.add(video.wanted.video_id)
        self._replaced += video.replaces
        num_frames = sum(shard.num_rows for shard in shards)
        num_bytes = sum(shard.num_bytes for shard in shards)
        explanation = _told(video, clips) + clamped_note(work.num_clamped)
        self._end(video, "ingested", video.reason, explanation, num_frames, num_bytes, work.seconds, clips)

    def _judge(self, video: PlannedVideo, work: WorkDone) -> list[JudgedClip]:
        """Compare the clips with all that the dataset ever saw, and with those of this batch."""
        replaced = {stored.video_id for stored in video.replaces}

        def is_there(video_id: str) -> bool:
            there = video_id in self._waiting or is_present(self._dataset_uri, video_id)
            return there and video_id not in replaced

        clips = [self._history.judge(facts, is_there, skip=self._skips_duplicates) for facts in work.clips]
        self._clips += clips
        return clips

    def _refuse(self, video: PlannedVideo, refusal: Refusal, seconds: float) -> None:
        self._refusals.append(refusal)
        self._end(video, "rejected", refusal.reason, f"{refusal.reason}: {refusal.detail}", seconds=seconds)

    def _blame(self, result: PoolResult[PlannedVideo]) -> Refusal:
        """The refusal of a video whose actor failed. Raises the error when it is not about this video."""
        error = result.error
        if isinstance(error, GwmError) and not isinstance(error, InputError | FootageError):
            raise error
        if result.status == "died":
            cause = FootageError("crashed", f"the process that read it died, {result.attempts} times")
        else:
            cause = FootageError("internal", f"{type(error).__name__}: {error}")
        return refusal_of(result.item, self._recipe, cause)

    def _end(
        self,
        video: PlannedVideo,
        status: Status,
        reason: str,
        explanation: str,
        num_frames: int = 0,
        num_bytes: int = 0,
        seconds: float = 0.0,
        clips: Sequence[JudgedClip] = (),
    ) -> None:
        outcome = VideoOutcome(
            source=video.source,
            clip=video.clip,
            status=status,
            reason=reason,
            explanation=explanation,
            video_id=video.wanted.video_id,
            num_frames=num_frames,
            num_bytes=num_bytes,
            seconds=seconds,
            num_clips=len(clips),
            num_near_duplicates=sum(clip.like is not None for clip in clips),
        )
        self.outcomes.append(outcome)
        self._metrics.video_ended(
            status,
            reason,
            num_frames=num_frames,
            num_bytes=num_bytes,
            seconds=seconds,
            num_left=self._num_total - len(self.outcomes),
        )
        self._on_progress(IngestProgress(num_done=len(self.outcomes), num_total=self._num_total, outcome=outcome))


def _told(video: PlannedVideo, clips: Sequence[JudgedClip]) -> str:
    """Why the video was ingested, and what is notable about its clips."""
    separator = "; " if ":" in video.explanation else ": "
    return separator.join(filter(None, (video.explanation, describe(clips))))
