"""Making a video's rows again from its source by the recipe that they were made with, and comparing the two."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import zip_longest

import cv2
import torch

from model.optical_flow import OpticalFlowEstimator
from tasks.decode import DecodeOptions, iterate_frames
from tasks.decode_limits import DecodeLimits
from tasks.errors import DatasetError, FootageError
from tasks.footage import FootageItem
from tasks.identity import Recipe
from tasks.ingest_worker import IngestJob, estimator_of, frame_rows
from tasks.row_comparison import RowComparison
from tasks.schema import flow_column
from tasks.shots import split_into_shots, splits_shots
from tasks.snapshot import FRAMES_TABLE, StoredVideo
from tasks.source_check import check_source
from tasks.storage import location
from tasks.stored_rows import read_rows
from tasks.verify_shards import Problem, ProblemKind

_COMPARED = ("time_seconds", "width", "height", "jpeg", "annotation")


@dataclass(frozen=True, kw_only=True)
class VerifyJob:
    """What all videos have in common.

    weights: where the estimator's weights are, when they are not a named one's. limits: on the process that decodes;
    those of the settings of the actor's machine when None.
    """

    dataset_uri: str
    weights: str | None = None
    device: str = "cpu"
    num_threads: int = 1
    limits: DecodeLimits | None = None


@dataclass(frozen=True, kw_only=True)
class VideoToVerify:
    """A stored video. left_out: its shots that are not stored because they look like other clips."""

    video: StoredVideo
    left_out: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class VideoCheck:
    """What came of one video.

    num_frames: frames that were made again and compared; num_equal: those whose picture is the same bit for bit.
    max_flow_px: the largest difference of any component of any flow, in pixels.
    """

    problems: tuple[Problem, ...]
    num_frames: int = 0
    num_equal: int = 0
    max_flow_px: float = 0.0
    seconds: float = 0.0


class VerifyWorker:
    """Lives in a process of its own and makes one video after another again."""

    def __init__(self, job: VerifyJob) -> None:
        torch.set_num_threads(job.num_threads)
        cv2.setNumThreads(job.num_threads)
        self._job = job
        self._estimators: dict[str, OpticalFlowEstimator] = {}

    def run(self, item: VideoToVerify) -> VideoCheck:
        """Compare a stored video with what its source gives now. Raises WeightsError when the weights are others."""
        started, video = time.monotonic(), item.video
        checked = check_source(video.source, video.video_id)
        if checked.item is None:
            return _one_problem(video, "source_gone", checked.detail)
        if checked.state == "changed":
            return _one_problem(video, "source_changed", checked.detail)
        comparison = RowComparison()
        try:
            self._compare(item, checked.item, comparison)
        except FootageError as error:
            return _one_problem(video, "source_refused", f"its bytes are the same, but decoding them now ends: {error}")
        except DatasetError as error:
            return _one_problem(video, "shard_unreadable", str(error))
        return VideoCheck(
            problems=_problems(video, comparison),
            num_frames=comparison.num_frames,
            num_equal=comparison.num_equal,
            max_flow_px=comparison.max_flow_px,
            seconds=time.monotonic() - started,
        )

    def _compare(self, wanted: VideoToVerify, item: FootageItem, comparison: RowComparison) -> None:
        video, recipe = wanted.video, wanted.video.recipe
        frames = iterate_frames(item, DecodeOptions(fps=recipe.fps, max_side=recipe.max_side), self._job.limits)
        watched = comparison.watched(frames)
        shots = split_into_shots(watched) if splits_shots(recipe.shots, item.kind) else (watched,)
        stored = {clip.shot: clip for clip in video.clips}
        columns = (*_COMPARED, *(flow_column(gap) for gap in recipe.gaps))
        folder = location(self._job.dataset_uri) / FRAMES_TABLE
        for shot, pictures in enumerate(shots):
            clip = stored.pop(shot, None)
            if clip is None and shot in wanted.left_out:
                comparison.skip(pictures)
                continue
            old_rows = read_rows(folder, clip, columns) if clip else iter(())
            for old, new in zip_longest(old_rows, frame_rows(self._estimator(recipe), pictures, recipe)):
                comparison.take(old, new)
        for clip in stored.values():
            comparison.note("frames", comparison.num_frames, clip.num_frames, f"shot {clip.shot} is not in the source")

    def _estimator(self, recipe: Recipe) -> OpticalFlowEstimator:
        """The estimator of a recipe; the recipes of a dataset name few, so all are kept."""
        key = f"{recipe.flow_estimator} {recipe.flow_weights_sha256}"
        if key not in self._estimators:
            job = self._job
            self._estimators[key] = estimator_of(
                IngestJob(dataset_uri=job.dataset_uri, recipe=recipe, weights=job.weights, device=job.device)
            )
        return self._estimators[key]


def _one_problem(video: StoredVideo, kind: ProblemKind, detail: str) -> VideoCheck:
    return VideoCheck(problems=(Problem(kind=kind, clip=video.clip, place=video.source, detail=detail),))


def _problems(video: StoredVideo, comparison: RowComparison) -> tuple[Problem, ...]:
    total = comparison.num_frames
    return tuple(
        Problem(
            kind=kind,
            clip=video.clip,
            place=video.source,
            detail=f"{found.num_frames} of {total} frames differ, first frame {found.first_frame}: {found.example}",
        )
        for kind, found in comparison.differences.items()
    )
