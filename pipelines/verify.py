"""Flow ``verify-dataset``: every shard of a version against the log, and a sample of its videos made again."""

from __future__ import annotations

from typing import Any

from prefect import flow, task

from pipelines.progress import Progress, publish_table
from pipelines.retries import NOT_FOR_BAD_INPUT
from pipelines.runtime import load_settings
from tasks.catalog import open_dataset
from tasks.errors import DatasetError
from tasks.verify import VerifyReport, verify_dataset

PROBLEMS_TOLD = 20  # in the message of a failed run; its table lists all


@flow(name="verify-dataset")
def verify_stored(
    dataset: str,
    version: int | None = None,
    sample: str = "1%",
    seed: int = 0,
    weights: str | None = None,
    fail: bool = True,
) -> VerifyReport:
    """Check all shards of a dataset version, and decode a sample of its videos again to compare.

    version: the newest when None. sample: share or number of videos, such as 1% or 20. weights: of the flow estimator,
    if it was your own. fail: end as failed when something differs; else the report alone says so.
    """
    report = check_stored(dataset, version, sample, seed, weights)
    publish_problems(report)
    if fail:
        require_sound(report)
    return report


@task(retries=1, retry_delay_seconds=30, **NOT_FOR_BAD_INPUT)
def check_stored(dataset: str, version: int | None, sample: str, seed: int, weights: str | None) -> VerifyReport:
    """Read all shards, and make the sample again in Ray actors."""
    with Progress("verify", key="verify") as progress:
        return verify_dataset(
            open_dataset(dataset, version),
            load_settings(),
            sample=sample,
            seed=seed,
            weights=weights,
            on_progress=progress,
        )


@task
def publish_problems(report: VerifyReport) -> None:
    """Leave a table of what differs with the flow run."""
    publish_table(problem_rows(report), key="verify-problems", description=verdict(report))


@task
def require_sound(report: VerifyReport) -> None:
    """Raise DatasetError, listing what differs, unless all is well."""
    if report.is_sound:
        return
    told = [f"{row['problem']} {row['place']}: {row['detail']}" for row in problem_rows(report)[:PROBLEMS_TOLD]]
    raise DatasetError(f"{verdict(report)}: {'; '.join(told)}")


def problem_rows(report: VerifyReport) -> list[dict[str, Any]]:
    """Return a row for each thing that differs, and for each video that there was nothing to compare with."""
    return [
        {"problem": problem.kind, "clip": problem.clip, "place": problem.place, "detail": problem.detail}
        for problem in (*report.problems, *report.not_compared)
    ]


def verdict(report: VerifyReport) -> str:
    """Return what was looked at, and how many things differ, in a sentence."""
    found = f"{len(report.problems)} problems" if report.problems else "nothing differs"
    if not report.is_sound and not report.problems:
        found = "no sampled video could be compared"
    compared = f"{report.num_compared} of {report.num_sampled} sampled videos made again"
    if report.num_frames:
        compared += (
            f" ({report.num_frames} frames, {report.num_equal} pictures bit for bit, optical flow to within "
            f"{report.max_flow_px:.4f} px)"
        )
    return f"{report.uri} version {report.version}: {found}; {report.num_shards} shards read, {compared}"
