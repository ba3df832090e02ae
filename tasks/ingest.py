"""Ingest: footage becomes rows of a dataset, exactly once, whatever is killed on the way.

::

    prepare_ingest   find, hash, compare with what is there          -> IngestPlan    (what, and why)
    rename_planned   the record of names follows renamed footage     -> a version     (no frame is touched)
    ingest_batch     actors write shards, one transaction publishes  -> BatchResult   (a unit of retry)
    prune_planned    what is gone vanishes, if that was asked for    -> a version
    finish_ingest    add up, refuse an empty outcome                 -> IngestSummary

A batch that is killed leaves nothing visible, and planning again finds what is missing. Shards go straight from
actors to storage; only names and counts come back.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tasks.catalog import newest_version, present_videos, published_frames
from tasks.dead_letters import forget_rejected, read_rejected, record_rejected
from tasks.errors import DatasetError
from tasks.gone import given_sources, missing_sources, sources_to_look_for
from tasks.identity import Recipe, ShotDetection
from tasks.ingest_batch import (
    BatchResult,
    IngestProgress,
    ProgressCallback,
    VideoOutcome,
    ingest_batch,
    silent,
)
from tasks.ingest_plan import IngestPlan, IngestPolicy, WantedVideo, plan_ingest
from tasks.optical_flow import build_estimator
from tasks.pool import pool_session
from tasks.revisions import Rename, remove_videos, rename_videos
from tasks.schema import SCHEMA_VERSION
from tasks.settings import Settings
from tasks.storage import location, prove_writable
from tasks.wanted import HashProgress, wanted_videos

DEFAULT_BATCH_VIDEOS = 200
"""Videos of one transaction: what a killed ingest does again, and what a retry repeats."""

GONE_AND_KEPT = "gone from source: kept; --prune removes it"

_REASONS_LISTED = 20
_IN_DATASET = ("unchanged", "renamed", "copy")  # reasons of footage whose rows are there already


@dataclass(frozen=True, kw_only=True)
class IngestSummary:
    """What an ingest did. version: the dataset's newest afterwards; videos: one line per piece of footage.

    num_frames and seconds count what was ingested now.
    """

    version: int
    num_ingested: int
    num_skipped: int
    num_rejected: int
    num_renamed: int
    num_removed: int
    num_frames: int
    seconds: float
    videos: tuple[VideoOutcome, ...]


def make_recipe(
    *,
    flow_estimator: str = "dis",
    weights: str | None = None,
    weights_sha256: str | None = None,
    gaps: Sequence[int] = (1, -1, 2, -2),
    fps: float | None = None,
    max_side: int | None = None,
    jpeg_quality: int = 95,
    shots: ShotDetection = "auto",
) -> Recipe:
    """The recipe of an ingest. Builds the estimator once, so that missing or altered weights are told first."""
    estimator = build_estimator(flow_estimator, weights, weights_sha256)
    return Recipe(
        fps=fps,
        max_side=max_side,
        jpeg_quality=jpeg_quality,
        gaps=tuple(gaps),
        flow_estimator=flow_estimator,
        flow_weights_sha256=estimator.weights_sha256,
        shots=shots,
        schema_version=SCHEMA_VERSION,
    )


def prepare_ingest(
    sources: Sequence[str],
    dataset_uri: str,
    recipe: Recipe,
    *,
    policy: IngestPolicy | None = None,
    read_only: bool = False,
    on_progress: HashProgress | None = None,
) -> IngestPlan:
    """Compare what ``sources`` hold with what the dataset has and refused, and plan what to do about each video.

    read_only: whoever only asks for the plan need not be allowed to write. on_progress: called while the footage is
    read, which takes as long as its bytes do. Raises InputError when no source leads to footage, StorageError when the
    dataset's place can not be written.
    """
    if not read_only:
        prove_writable(location(dataset_uri))
    wanted, refusals = wanted_videos(sources, on_progress)
    present = present_videos(dataset_uri)
    refused = {given.uri for given in given_sources(refusal.source for refusal in refusals)}
    looked_for = sources_to_look_for(wanted, present, given_sources(sources), refused)
    return plan_ingest(
        wanted,
        present,
        read_rejected(dataset_uri),
        recipe,
        refusals=refusals,
        missing=missing_sources(looked_for),
        policy=policy,
    )


def rename_planned(plan: IngestPlan, dataset_uri: str) -> int | None:
    """Record the new names of renamed videos, in one transaction; return its version, None when there are none."""
    renames = [
        Rename(video=stored, source=video.source, clip=video.clip)
        for video in plan.to_rename
        for stored in video.renames
    ]
    return rename_videos(dataset_uri, renames) if renames else None


def prune_planned(plan: IngestPlan, dataset_uri: str) -> int | None:
    """Remove what the plan removes, in one transaction; return its version, None when there is nothing to remove."""
    return remove_videos(dataset_uri, plan.to_remove) if plan.to_remove else None


def finish_ingest(plan: IngestPlan, results: Sequence[BatchResult], dataset_uri: str, seconds: float) -> IngestSummary:
    """Write down what was out of reach, forget refusals of what is there after all, and add up plan and batches.

    Raises DatasetError, listing the reasons, when nothing that was named is in the dataset now.
    """
    record_rejected(dataset_uri, plan.refusals)
    _forget_settled(plan, dataset_uri)
    ingested_or_rejected = [outcome for result in results for outcome in result.outcomes]
    outcomes = [*ingested_or_rejected, *_outcomes_of_plan(plan)]
    if not any(outcome.status == "ingested" or outcome.reason in _IN_DATASET for outcome in outcomes):
        listed = "; ".join(f"{outcome.source} ({outcome.explanation})" for outcome in outcomes[:_REASONS_LISTED])
        raise DatasetError(
            f"nothing was ingested into {dataset_uri}, all {len(outcomes)} pieces of footage were refused: {listed}"
        )
    counts = Counter(outcome.status for outcome in outcomes)
    version = newest_version(dataset_uri)
    assert version is not None, "something was ingested or is unchanged, so there is a dataset"
    return IngestSummary(
        version=version,
        num_ingested=counts["ingested"],
        num_skipped=counts["skipped"],
        num_rejected=counts["rejected"],
        num_renamed=counts["renamed"],
        num_removed=counts["removed"],
        num_frames=sum(outcome.num_frames for outcome in outcomes),
        seconds=seconds,
        videos=tuple(outcomes),
    )


def run_ingest(
    plan: IngestPlan,
    dataset_uri: str,
    settings: Settings,
    *,
    weights: str | None = None,
    batch_videos: int = DEFAULT_BATCH_VIDEOS,
    on_progress: ProgressCallback = silent,
) -> IngestSummary:
    """Carry out a plan, batch by batch, in one Ray session. Raises what ingest_batch and finish_ingest raise."""
    started = time.monotonic()
    rename_planned(plan, dataset_uri)
    results: list[BatchResult] = []
    num_before, num_total = 0, len(plan.to_ingest)

    def over_all_batches(progress: IngestProgress) -> None:
        on_progress(replace(progress, num_done=num_before + progress.num_done, num_total=num_total))

    batches = plan.batches(batch_videos)
    if batches:
        with pool_session(settings):
            for number, videos in enumerate(batches, start=1):
                result = ingest_batch(
                    videos,
                    plan.recipe,
                    dataset_uri,
                    settings,
                    weights=weights,
                    more_to_come=number < len(batches),
                    on_progress=over_all_batches,
                )
                results.append(result)
                num_before += len(videos)
    prune_planned(plan, dataset_uri)
    return finish_ingest(plan, results, dataset_uri, time.monotonic() - started)


def _forget_settled(plan: IngestPlan, dataset_uri: str) -> None:
    """Remove dead letters of videos that the dataset has: an ingest that was killed after it published left them."""
    letters = read_rejected(dataset_uri)
    if not letters:
        return
    sources = {video.wanted.video_id: video.source for video in plan.videos}
    refused = [letter.video_id for letter in letters if letter.video_id in sources]
    present = published_frames(dataset_uri, refused, plan.recipe)
    forget_rejected(dataset_uri, sorted(letter.source for letter in letters if letter.video_id in present))


def _outcomes_of_plan(plan: IngestPlan) -> list[VideoOutcome]:
    """Lines of what was decided without decoding: skipped and renamed videos, what is gone, sources out of reach."""
    decided = [
        VideoOutcome(
            source=video.source,
            clip=video.clip,
            status="renamed" if video.action == "rename" else "skipped",
            reason=video.reason,
            explanation=video.explanation,
            video_id=video.wanted.video_id,
        )
        for video in (*plan.to_rename, *plan.to_skip)
    ]
    gone = [
        VideoOutcome(
            source=video.source,
            clip=video.clip,
            status="removed" if plan.prune else "skipped",
            reason="gone",
            explanation="gone from source: removed" if plan.prune else GONE_AND_KEPT,
            video_id=video.video_id,
        )
        for video in plan.gone
    ]
    refused = [
        VideoOutcome(
            source=refusal.source,
            clip="",
            status="rejected",
            reason=refusal.reason,
            explanation=f"{refusal.reason}: {refusal.detail}",
        )
        for refusal in plan.refusals
    ]
    return [*decided, *gone, *refused]


__all__ = [
    "DEFAULT_BATCH_VIDEOS",
    "BatchResult",
    "IngestPlan",
    "IngestPolicy",
    "IngestProgress",
    "IngestSummary",
    "VideoOutcome",
    "WantedVideo",
    "finish_ingest",
    "ingest_batch",
    "make_recipe",
    "plan_ingest",
    "prepare_ingest",
    "prune_planned",
    "rename_planned",
    "run_ingest",
    "wanted_videos",
]
