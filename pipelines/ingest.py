"""Flow ``ingest-footage``: sources become a new version of a dataset; what is there already is skipped, and why."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypeVar, cast

from prefect import flow, get_run_logger, task
from prefect.utilities.annotations import quote

from pipelines.ingest_rates import IngestRates
from pipelines.progress import Progress, publish_table
from pipelines.recipe import RecipeRequest, choose_recipe
from pipelines.retries import NOT_FOR_BAD_INPUT
from pipelines.runtime import load_settings
from tasks.catalog import dataset_exists, open_dataset
from tasks.dead_letters import parse_reasons
from tasks.error_budget import over_budget
from tasks.errors import ErrorBudgetError, InputError
from tasks.identity import DEFAULT_JPEG_QUALITY, Recipe, ShotDetection
from tasks.ingest import (
    DEFAULT_BATCH_VIDEOS,
    BatchResult,
    VideoOutcome,
    finish_ingest,
    ingest_batch,
    prepare_ingest,
    prune_planned,
    rename_planned,
)
from tasks.ingest_batch import NearDuplicates
from tasks.ingest_plan import MAX_ATTEMPTS, IngestPlan, IngestPolicy, PlannedVideo
from tasks.pool import pool_session

Value = TypeVar("Value")
MAX_ROWS = 500
"""Videos listed in a table; of more, those that were rejected come first."""


@flow(name="ingest-footage")
def ingest_footage(
    sources: list[str],
    dataset: str,
    fps: float | None = None,
    max_side: int | None = None,
    estimator: str = "dis",
    weights: str | None = None,
    sha256: str | None = None,
    gaps: str = "davis",
    jpeg_quality: int = DEFAULT_JPEG_QUALITY,
    shots: ShotDetection = "auto",
    batch_videos: int = DEFAULT_BATCH_VIDEOS,
    allow_empty: bool = False,
    keep_recipe: bool = False,
    prune: bool = False,
    retry: list[str] | None = None,
    max_attempts: int = MAX_ATTEMPTS,
    max_rejected: float | None = None,
    near_duplicates: NearDuplicates = "report",
) -> dict[str, Any]:
    """Ingest what is new in ``sources`` into ``dataset``, batch by batch.

    allow_empty: a schedule looks at places that may hold nothing yet; without it that is an error.
    keep_recipe: make new rows as most of the dataset was made, whatever the other parameters say; without it another
    recipe makes every video anew. Only ``weights``, a place and not part of the recipe, is still asked.
    prune: remove videos whose source, under one of ``sources``, is gone.
    retry: reasons of the dead letters that are tried again, or all. max_attempts: of footage refused for a reason that
    may pass. max_rejected: percentage of refused footage above which the flow fails, once everything is recorded.
    near_duplicates: whether clips that look like others of the dataset's history are only told of, or left out.
    Returns counts, the dataset's version and up to MAX_ROWS lines of what became of each video.
    """
    started = time.monotonic()
    policy = make_policy(prune, retry, max_attempts, max_rejected)
    request = RecipeRequest(
        estimator=estimator,
        weights=weights,
        sha256=sha256,
        gaps=gaps,
        fps=fps,
        max_side=max_side,
        jpeg_quality=jpeg_quality,
        shots=shots,
        kept_from=dataset if keep_recipe else None,
    )
    plan = plan_videos(sources, dataset, choose_recipe(request), allow_empty, policy)
    rename(plan, dataset)
    results = ingest_batches(plan, dataset, weights, batch_videos, near_duplicates)
    remove(plan, dataset)
    summary = summarise(_unsearched(plan), _unsearched(results), dataset, time.monotonic() - started)
    publish_ingest(summary)
    keep_to_budget(summary, max_rejected)
    return summary


def make_policy(prune: bool, retry: list[str] | None, max_attempts: int, max_rejected: float | None) -> IngestPolicy:
    """Check what the user wants done about footage that was refused or is gone; raises InputError."""
    over_budget(0, 0, max_rejected)
    return IngestPolicy(prune=prune, retry=parse_reasons(retry or ()), max_attempts=max_attempts)


@task(retries=2, retry_delay_seconds=[5, 30], **NOT_FOR_BAD_INPUT)
def plan_videos(
    sources: list[str], dataset: str, recipe: Recipe, allow_empty: bool, policy: IngestPolicy
) -> IngestPlan:
    """Find and hash the footage, and compare it with what the dataset holds."""
    try:
        with Progress("read footage", key="plan") as progress:
            return prepare_ingest(sources, dataset, recipe, policy=policy, on_progress=progress)
    except InputError as error:
        if not allow_empty:
            raise
        get_run_logger().warning("nothing to ingest: %s", error)
        return IngestPlan(recipe=recipe, videos=())


def rename(plan: IngestPlan, dataset: str) -> None:
    """Record the new names of renamed videos; no task is started when there are none."""
    if plan.to_rename:
        rename_videos(_unsearched(plan), dataset)


def remove(plan: IngestPlan, dataset: str) -> None:
    """Remove the videos that the plan removes; no task is started when there are none."""
    if plan.to_remove:
        remove_videos(_unsearched(plan), dataset)


@task(retries=2, retry_delay_seconds=[2, 10], **NOT_FOR_BAD_INPUT)
def rename_videos(plan: IngestPlan, dataset: str) -> int | None:
    """Make one transaction of all renames."""
    return rename_planned(plan, dataset)


@task(retries=2, retry_delay_seconds=[2, 10], **NOT_FOR_BAD_INPUT)
def remove_videos(plan: IngestPlan, dataset: str) -> int | None:
    """Make one transaction of all removals."""
    return prune_planned(plan, dataset)


def ingest_batches(
    plan: IngestPlan, dataset: str, weights: str | None, batch_videos: int, near_duplicates: NearDuplicates
) -> list[BatchResult]:
    """Run one task per batch, all of them on one Ray; none is started when there is nothing to do."""
    batches = plan.batches(batch_videos)
    if not batches:
        return []
    with pool_session(load_settings()):
        return [
            ingest_videos(
                _unsearched(batch), plan.recipe, dataset, weights, near_duplicates, more_to_come=number < len(batches)
            )
            for number, batch in enumerate(batches, start=1)
        ]


@task(retries=2, retry_delay_seconds=[5, 60], task_run_name="ingest-videos", **NOT_FOR_BAD_INPUT)
def ingest_videos(
    batch: tuple[PlannedVideo, ...],
    recipe: Recipe,
    dataset: str,
    weights: str | None,
    near_duplicates: NearDuplicates,
    more_to_come: bool = False,
) -> BatchResult:
    """Decode a batch in Ray actors and publish it; a retry redoes only what is not published."""
    rates = IngestRates()
    with Progress("ingest", key="ingest") as progress:
        result = ingest_batch(
            batch,
            recipe,
            dataset,
            load_settings(),
            weights=weights,
            near_duplicates=near_duplicates,
            more_to_come=more_to_come,
            on_progress=lambda now: progress(now.num_done, now.num_total, rates.line(now)),
        )
    publish_table(
        [asdict(outcome) for outcome in _rejected_first(result.outcomes)],
        key="ingest-batch",
        description=f"A batch of {len(batch)} videos, dataset version {result.version}: {rates}",
    )
    return result


@task(retries=2, retry_delay_seconds=[2, 10], **NOT_FOR_BAD_INPUT)
def summarise(plan: IngestPlan, results: list[BatchResult], dataset: str, seconds: float) -> dict[str, Any]:
    """Record what could not be reached and add everything up."""
    if not plan.videos and not plan.refusals:
        version = open_dataset(dataset).version if dataset_exists(dataset) else None
        return _summary(version, ())
    summary = finish_ingest(plan, results, dataset, seconds)
    return _summary(summary.version, summary.videos)


@task
def publish_ingest(summary: dict[str, Any]) -> None:
    """Leave two tables with the flow run: how many ended how and why, and what became of each video."""
    publish_table(summary["reasons"], key="ingest-reasons", description="Videos by outcome")
    publish_table(summary["videos"], key="ingest-videos", description="What became of each video")


def keep_to_budget(summary: dict[str, Any], max_rejected: float | None) -> None:
    """Fail the flow, now that everything is recorded, when too much was refused; raises ErrorBudgetError."""
    over = over_budget(summary["num_ingested"], summary["num_rejected"], max_rejected)
    if over:
        raise ErrorBudgetError(over, summary)


def _unsearched(value: Value) -> Value:
    """Keep Prefect from searching thousands of videos for futures; the task gets the value itself."""
    return cast(Value, quote(value))


def _rejected_first(outcomes: Sequence[VideoOutcome]) -> list[VideoOutcome]:
    return sorted(outcomes, key=lambda outcome: outcome.status != "rejected")[:MAX_ROWS]


def _summary(version: int | None, outcomes: tuple[VideoOutcome, ...]) -> dict[str, Any]:
    by_status = Counter(outcome.status for outcome in outcomes)
    by_reason = Counter((outcome.status, outcome.explanation.partition(":")[0]) for outcome in outcomes)
    first = _rejected_first(outcomes)
    shown = ("source", "status", "explanation", "clip", "num_frames")
    return {
        "version": version,
        "num_ingested": by_status["ingested"],
        "num_skipped": by_status["skipped"],
        "num_rejected": by_status["rejected"],
        "num_renamed": by_status["renamed"],
        "num_removed": by_status["removed"],
        "num_frames": sum(outcome.num_frames for outcome in outcomes),
        "num_near_duplicates": sum(outcome.num_near_duplicates for outcome in outcomes),
        "reasons": [
            {"status": status, "reason": reason, "videos": number} for (status, reason), number in by_reason.items()
        ],
        "videos": [{key: asdict(outcome)[key] for key in shown} for outcome in first],
    }
