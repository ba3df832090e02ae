"""Is a dataset what it says? Every shard against the log, and a sample of videos against their sources.

::

    all shards        there, of the bytes that they are named by, with the rows that the log counts
    sampled videos    decoded again by their recipe; frames, masks and optical flow compared (tasks/row_comparison.py)

Which videos are sampled depends on the seed and on their identity only, so another machine takes the same ones, and
growing a sample keeps what was in it.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tasks.clips import read_clips
from tasks.cluster import resources
from tasks.errors import GwmError, InputError
from tasks.pool import PoolResult, pool_session, run_pool
from tasks.settings import Settings
from tasks.snapshot import DatasetSnapshot, StoredVideo
from tasks.verify_shards import Problem, ShardToCheck, check_shards
from tasks.verify_video import VerifyJob, VerifyWorker, VideoCheck, VideoToVerify

_SAMPLE = re.compile(r"^(?:(?P<percent>\d+(?:\.\d+)?)\s*%|(?P<number>\d+))$")

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What was looked at and what was found.

    problems: what differs. not_compared: sampled videos whose source is gone, which says nothing about the dataset.
    num_compared, num_frames, num_equal: videos and frames made again, and frames whose picture is bit for bit the same.
    max_flow_px: the largest difference of any component of any flow, in pixels.
    """

    uri: str
    version: int
    num_shards: int
    num_bytes: int
    num_sampled: int
    num_compared: int
    num_frames: int
    num_equal: int
    max_flow_px: float
    problems: tuple[Problem, ...]
    not_compared: tuple[Problem, ...]
    seconds: float

    @property
    def is_sound(self) -> bool:
        """Whether nothing differs, and what was to be compared could be, at least in part."""
        return not self.problems and (self.num_compared > 0 or self.num_sampled == 0)


def sample_size(sample: str, num_videos: int) -> int:
    """How many videos ``1%`` or ``20`` are of ``num_videos``: a part of one counts as one. Raises InputError."""
    found = _SAMPLE.match(sample.strip())
    if found is None or (found["percent"] is not None and float(found["percent"]) > 100):
        raise InputError(
            f"sample {sample!r}: expected a share such as 1% (at most 100%), or a number of videos such as 20"
        )
    if found["percent"] is None:
        return min(int(found["number"]), num_videos)
    return min(math.ceil(num_videos * float(found["percent"]) / 100), num_videos)


def choose_sample(videos: Sequence[StoredVideo], size: int, seed: int) -> list[StoredVideo]:
    """Choose ``size`` videos at random, the same for the same seed and videos in whatever order."""

    def lot(video: StoredVideo) -> bytes:
        return hashlib.sha256(f"{seed} {video.video_id} {video.recipe_hash}".encode()).digest()

    return sorted(videos, key=lot)[:size]


def verify_shards(snapshot: DatasetSnapshot, on_progress: Progress) -> tuple[Problem, ...]:
    """Read every shard of a version; return what is wrong."""
    shards = [ShardToCheck(video=video, shard=shard) for video in snapshot.videos for shard in video.shards]
    problems = []
    for number, (checked, problem) in enumerate(check_shards(snapshot.frames, shards), start=1):
        if problem is not None:
            problems.append(problem)
        on_progress(number, len(shards), checked.video.clip)
    return tuple(problems)


def verify_videos(
    snapshot: DatasetSnapshot,
    videos: Sequence[StoredVideo],
    settings: Settings,
    *,
    weights: str | None,
    on_progress: Progress,
) -> tuple[VideoCheck, ...]:
    """Make ``videos`` again in Ray actors and compare them.

    weights: where the estimator's weights are; None takes those that its name stands for. Raises WeightsError when they
    are not the recipe's, and what else would meet every video.
    """
    checks: list[VideoCheck] = []

    def on_result(result: PoolResult[VideoToVerify]) -> None:
        checks.append(_check_of(result))
        on_progress(len(checks), len(videos), result.item.video.clip)

    if videos:
        with pool_session(settings):
            share = resources(settings)
            share = replace(share, num_actors=min(share.num_actors, len(videos)))
            job = VerifyJob(dataset_uri=snapshot.uri, weights=weights, device=share.device, limits=settings.decode)
            left_out = left_out_shots(snapshot.uri, videos)
            items = [VideoToVerify(video=video, left_out=left_out[video.video_id]) for video in videos]
            run_pool(VerifyWorker, (job,), items, resources=share, on_result=on_result)
    return tuple(checks)


def verify_dataset(
    snapshot: DatasetSnapshot,
    settings: Settings,
    *,
    sample: str = "1%",
    seed: int = 0,
    weights: str | None = None,
    on_progress: Progress = lambda done, total, note: None,
) -> VerifyReport:
    """Check all shards of a version, then make a sample of its videos again, of those whose shards are sound."""
    started = time.monotonic()
    size = sample_size(sample, len(snapshot.videos))
    problems = verify_shards(snapshot, on_progress)
    damaged = {problem.place for problem in problems}
    whole = [video for video in snapshot.videos if not damaged & {(snapshot.frames / s.path).uri for s in video.shards}]
    chosen = choose_sample(whole, size, seed)
    checks = verify_videos(snapshot, chosen, settings, weights=weights, on_progress=on_progress)
    return _report(snapshot, problems, checks, time.monotonic() - started)


def left_out_shots(uri: str, videos: Sequence[StoredVideo]) -> dict[str, frozenset[int]]:
    """Shots of ``videos`` that ingest left out as copies of others, by video.

    A change of recipe that decodes nothing copies the shots that are stored and says nothing of the others: what was
    left out under another recipe, and is not kept under this one, is still left out.
    """
    recipes = {video.video_id: video.recipe_hash for video in videos}
    left_out: dict[str, set[int]] = {video_id: set() for video_id in recipes}
    kept: dict[str, set[int]] = {video_id: set() for video_id in recipes}
    for row in read_clips(uri, ["video_id", "recipe_hash", "shot", "kept"]).to_pylist():
        if not row["kept"] and row["video_id"] in recipes:
            left_out[row["video_id"]].add(row["shot"])
        elif row["recipe_hash"] == recipes.get(row["video_id"]):
            kept[row["video_id"]].add(row["shot"])
    return {video_id: frozenset(shots - kept[video_id]) for video_id, shots in left_out.items()}


def _check_of(result: PoolResult[VideoToVerify]) -> VideoCheck:
    """What came of a video whatever became of its process. Raises the errors that would meet every video."""
    if result.status == "done":
        check: VideoCheck = result.value
        return check
    if isinstance(result.error, GwmError):
        raise result.error
    detail = f"decoding it again ended the process, {result.attempts} times: {result.error}"
    video = result.item.video
    return VideoCheck(problems=(Problem(kind="source_refused", clip=video.clip, place=video.source, detail=detail),))


def _report(
    snapshot: DatasetSnapshot, of_shards: Sequence[Problem], checks: Sequence[VideoCheck], seconds: float
) -> VerifyReport:
    found = [problem for check in checks for problem in check.problems]
    return VerifyReport(
        uri=snapshot.uri,
        version=snapshot.version,
        num_shards=sum(len(video.shards) for video in snapshot.videos),
        num_bytes=snapshot.num_bytes,
        num_sampled=len(checks),
        num_compared=sum(check.num_frames > 0 for check in checks),
        num_frames=sum(check.num_frames for check in checks),
        num_equal=sum(check.num_equal for check in checks),
        max_flow_px=max((check.max_flow_px for check in checks), default=0.0),
        problems=(*of_shards, *(problem for problem in found if problem.kind != "source_gone")),
        not_compared=tuple(problem for problem in found if problem.kind == "source_gone"),
        seconds=seconds,
    )
