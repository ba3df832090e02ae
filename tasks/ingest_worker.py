"""What an ingest actor does with one video: decode, find shots, estimate optical flow, encode, write, frame by frame.

The estimator is built once per process. Memory is bounded by the frames between the furthest gaps, however long the
video is; what leaves the process is the list of written shards, or why there are none.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.errors import WeightsError
from model.optical_flow import OpticalFlowEstimator, clip_flows
from tasks.clip_facts import ClipFacts, ClipObserver
from tasks.dead_letters import Refusal
from tasks.decode import DecodeOptions, Frame, iterate_frames
from tasks.decode_limits import DecodeLimits
from tasks.errors import FootageError, InputError
from tasks.flow_codec import encode_flow, num_clamped_components
from tasks.footage_stamp import require_unchanged
from tasks.identity import Recipe
from tasks.ingest_plan import PlannedVideo
from tasks.optical_flow import build_estimator
from tasks.pool import Unfinished
from tasks.prefetch import prefetched
from tasks.recipe_changes import Rework
from tasks.reuse import Reuse, StaleRowsError, find_reuse, merged_row, require_end, stored_rows
from tasks.shards import MIN_FRAMES, FrameRow, VideoLabel, remove_abandoned, write_video
from tasks.shots import split_into_shots, splits_shots
from tasks.snapshot import FRAMES_TABLE, StoredClip, WrittenShard
from tasks.spool import Delivery, Outbox, SpooledShard
from tasks.storage import location

_logger = logging.getLogger(__name__)

FLOWS_AHEAD = 2
"""Frames whose optical flow waits to be encoded: 1 lets both sides work, 2 evens out frames that take longer."""

FlowsByGap = dict[int, Tensor | None]


@dataclass(frozen=True, kw_only=True)
class IngestJob:
    """What all videos of an ingest have in common.

    weights: where the estimator's weights are; what they must hash to stands in the recipe.
    num_threads: CPU threads of one actor.
    limits: on the process that decodes footage.
    hands_over: whether the last upload of a video is left to another process of the same machine.
    """

    dataset_uri: str
    recipe: Recipe
    weights: str | None = None
    device: str = "cpu"
    num_threads: int = 1
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    hands_over: bool = False


@dataclass(frozen=True, kw_only=True)
class WorkDone:
    """How one video ended: its shards and what its clips are like, or a refusal and none of either.

    num_clamped: components of its optical flow that were too long to be stored.
    """

    shards: tuple[WrittenShard, ...]
    refusal: Refusal | None
    seconds: float
    clips: tuple[ClipFacts, ...] = ()
    num_clamped: int = 0


class IngestWorker:
    """Lives in a process of its own and turns one video after another into shards."""

    def __init__(self, job: IngestJob) -> None:
        torch.set_num_threads(job.num_threads)
        cv2.setNumThreads(job.num_threads)
        self._job = job
        remove_abandoned(job.dataset_uri)
        self._estimator = estimator_of(job)
        self._num_clamped = 0
        self._frames = location(job.dataset_uri) / FRAMES_TABLE

    def run(self, video: PlannedVideo) -> WorkDone | Unfinished:
        """Write the shards of one video. Footage at fault becomes a refusal; other errors are raised.

        The answer is Unfinished, with a WorkDone for its value, when the job hands uploads over and there are any.
        """
        started = time.monotonic()
        try:
            work, spooled = self._write_or_rewrite(video)
        except FootageError as error:
            refusal = refusal_of(video, self._job.recipe, _cause(video, error))
            work, spooled = WorkDone(shards=(), refusal=refusal, seconds=0.0, num_clamped=self._num_clamped), ()
        work = replace(work, seconds=time.monotonic() - started)
        return Unfinished(value=work, finish=Delivery(spooled)) if spooled else work

    def _write_or_rewrite(self, video: PlannedVideo) -> tuple[WorkDone, tuple[SpooledShard, ...]]:
        """Write the clips with what can be copied from stored rows; when those are of no use, without them."""
        reuse = find_reuse(video, self._job.recipe)
        try:
            return self._write_clips(video, reuse)
        except StaleRowsError as error:
            _logger.warning("%s is made anew: %s", video.clip, error)
        return self._write_clips(video, None)

    def _write_clips(self, video: PlannedVideo, reuse: Reuse | None) -> tuple[WorkDone, tuple[SpooledShard, ...]]:
        """Write every shot as a clip of its own, however short it is; together they must be long enough."""
        shards: list[WrittenShard] = []
        clips: list[ClipFacts] = []
        num_frames = self._num_clamped = 0
        with Outbox() as outbox:
            for label, rows in self.clips(video, reuse):
                observer = ClipObserver(label, first_frame=num_frames)
                watched = self._clamped_counted(observer.watch(rows))
                shards += write_video(self._job.dataset_uri, label, watched, outbox=outbox, min_frames=0)
                clips.append(observer.facts())
                num_frames += clips[-1].num_frames
            if num_frames < MIN_FRAMES:
                raise FootageError("too_short", f"{num_frames} frames; expected at least {MIN_FRAMES}")
            if reuse is None or reuse.rework.decodes:  # what was only copied is of the content that was hashed
                _require_unchanged(video)
            spooled = outbox.hand_over() if self._job.hands_over else outbox.flush()
        work = WorkDone(
            shards=tuple(shards), clips=tuple(clips), refusal=None, seconds=0.0, num_clamped=self._num_clamped
        )
        return work, spooled

    def _clamped_counted(self, rows: Iterator[FrameRow]) -> Iterator[FrameRow]:
        for row in rows:
            self._num_clamped += sum(num_clamped_components(flow) for flow in row.flows.values() if flow is not None)
            yield row

    def clips(self, video: PlannedVideo, reuse: Reuse | None = None) -> Iterator[tuple[VideoLabel, Iterator[FrameRow]]]:
        """Make the rows of each shot, and what they have in common; take all of one before the next.

        reuse: what can be copied; its StaleRowsError may come at any time.
        """
        recipe = self._job.recipe
        if reuse is not None and not reuse.rework.decodes:
            for clip in reuse.stored.clips:
                yield label_of(video, recipe, clip.shot), stored_rows(self._frames, clip, recipe.gaps)
            return
        for shot, frames in enumerate(self._shots(video)):
            stored = reuse.clip(shot) if reuse is not None else None
            rows = frame_rows(self._estimator, frames, recipe)
            if reuse is not None and stored is not None:
                rows = self._merged(frames, stored, reuse.rework)
            yield label_of(video, recipe, shot), rows

    def _merged(self, frames: Iterator[Frame], stored: StoredClip, part: Rework) -> Iterator[FrameRow]:
        rows = stored_rows(self._frames, stored, part.copied_gaps)
        quality = self._job.recipe.jpeg_quality

        def row_of(frame: Frame) -> FrameRow:
            return merged_row(rows, frame, _jpeg_of(frame, quality) if part.jpeg else None)

        yield from frame_rows(self._estimator, frames, self._job.recipe, row_of=row_of, gaps=part.gaps)
        require_end(rows)

    def _shots(self, video: PlannedVideo) -> Iterable[Iterator[Frame]]:
        recipe, item = self._job.recipe, video.wanted.item
        frames = iterate_frames(item, DecodeOptions(fps=recipe.fps, max_side=recipe.max_side), self._job.limits)
        return split_into_shots(frames) if splits_shots(recipe.shots, item.kind) else (frames,)


def _require_unchanged(video: PlannedVideo) -> None:
    require_unchanged(video.wanted.item, video.wanted.video_id, video.wanted.stamp)


def _cause(video: PlannedVideo, error: FootageError) -> FootageError:
    """Why a video was refused: footage that is being written looks damaged, and is not to be known as that."""
    if video.wanted.stamp is None:  # all of it would have to be read again, however much it is
        return error
    try:
        _require_unchanged(video)
    except FootageError as change:
        return change if change.reason == "changed" else error
    return error


def label_of(video: PlannedVideo, recipe: Recipe, shot: int = 0) -> VideoLabel:
    """What all rows of one shot of the video will have in common."""
    return VideoLabel(video_id=video.wanted.video_id, recipe=recipe, clip=video.clip, source=video.source, shot=shot)


def refusal_of(video: PlannedVideo, recipe: Recipe, error: FootageError) -> Refusal:
    """The dead letter of a video that could not be ingested."""
    return Refusal(
        source=video.source,
        stage="ingest",
        reason=error.reason,
        detail=error.detail,
        video_id=video.wanted.video_id,
        recipe_hash=recipe.hash(),
    )


def frame_rows(
    estimator: OpticalFlowEstimator,
    frames: Iterator[Frame],
    recipe: Recipe,
    *,
    row_of: Callable[[Frame], FrameRow] | None = None,
    gaps: tuple[int, ...] | None = None,
) -> Iterator[FrameRow]:
    """Encode frames and their optical flow, in order, as far behind ``frames`` as the longest gap ahead.

    Frames are taken and optical flow estimated on a thread, ``FLOWS_AHEAD`` frames before what is encoded and written.

    row_of: makes the row of a frame, with the optical flow of all gaps but ``gaps``; unset, without any. gaps: frame
    gaps whose optical flow is estimated; unset, all those of the recipe.
    """
    waiting: deque[Frame] = deque()
    row_of = row_of or (lambda frame: _row_without_flow(frame, recipe.jpeg_quality))
    gaps = recipe.gaps if gaps is None else gaps

    def images() -> Iterator[Tensor]:
        for frame in frames:
            waiting.append(frame)
            # a copy of what torch can not take only: views that run backwards, or are not to be written to
            yield torch.from_numpy(np.require(frame.image, requirements=["C", "W"])).permute(2, 0, 1)

    estimated = clip_flows(estimator, images(), gaps) if gaps else ({} for _ in images())
    with prefetched(_with_refusals(estimated), FLOWS_AHEAD) as ahead:
        for flows in ahead:
            row = row_of(waiting.popleft())
            encoded = {gap: None if flow is None else encode_flow(flow.numpy()) for gap, flow in flows.items()}
            yield replace(row, flows={**row.flows, **encoded})


def _with_refusals(flows: Iterator[FlowsByGap]) -> Iterator[FlowsByGap]:
    """Pass ``flows`` on; what the estimator finds unusable about frames is the footage's fault, not ours."""
    while True:
        try:
            item = next(flows)
        except StopIteration:
            return
        except InputError as error:
            raise FootageError("too_small", str(error)) from error
        yield item


def estimator_of(job: IngestJob) -> OpticalFlowEstimator:
    """Build the estimator of a job. Raises WeightsError when its weights are not those of the recipe."""
    recipe = job.recipe
    estimator = build_estimator(recipe.flow_estimator, job.weights, recipe.flow_weights_sha256, job.device)
    if estimator.weights_sha256 != recipe.flow_weights_sha256:
        raise WeightsError(
            f"{recipe.flow_estimator} on this machine has weights {estimator.weights_sha256}, the recipe says "
            f"{recipe.flow_weights_sha256}: make the same weights reachable from every machine"
        )
    return estimator


def _row_without_flow(frame: Frame, jpeg_quality: int) -> FrameRow:
    height, width = frame.image.shape[:2]
    return FrameRow(
        time_seconds=frame.time_seconds,
        width=width,
        height=height,
        jpeg=_jpeg_of(frame, jpeg_quality),
        annotation=None if frame.annotation is None else _encode_mask(frame.annotation),
        flows={},
    )


def _jpeg_of(frame: Frame, quality: int) -> bytes:
    """The file's own JPEG where it is one of exactly these pixels."""
    if frame.jpeg is not None:
        return frame.jpeg
    bgr = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
    return _encode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])


def _encode_mask(mask: NDArray[np.bool_]) -> bytes:
    return _encode(".png", mask.astype(np.uint8) * 255, [])


def _encode(extension: str, image: NDArray[np.uint8], options: list[int]) -> bytes:
    fine, data = cv2.imencode(extension, image, options)
    if not fine:
        raise FootageError("internal", f"OpenCV could not encode a {image.shape} frame as {extension}")
    return bytes(data)
