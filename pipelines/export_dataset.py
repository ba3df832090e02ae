"""Flow ``export-dataset``: a dataset version becomes files that other tools read."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from prefect import flow, task

from pipelines.progress import Progress, publish_table
from pipelines.retries import NOT_FOR_BAD_INPUT
from tasks.catalog import open_dataset
from tasks.export import DEFAULT_TAR_BYTES, export_dataset
from tasks.gaps import parse_gaps
from tasks.storage import location

NO_GAPS = "none"


@flow(name="export-dataset")
def export_stored(
    dataset: str,
    output: str,
    out: str,
    version: int | None = None,
    gaps: str | None = None,
    max_tar_bytes: int = DEFAULT_TAR_BYTES,
) -> dict[str, Any]:
    """Export a version of a dataset, the newest when None, into ``out``; cut short, it goes on when run again.

    output: webdataset or frames. gaps: whose optical flow is written: a preset, a list such as 1,-1, or none; all that
    every clip has when None.
    """
    summary = write_export(dataset, version, output, out, gaps, max_tar_bytes)
    publish_export(summary)
    return summary


@task(retries=2, retry_delay_seconds=[5, 60], **NOT_FOR_BAD_INPUT)
def write_export(
    dataset: str, version: int | None, output: str, out: str, gaps: str | None, max_tar_bytes: int
) -> dict[str, Any]:
    """Write what is missing; a retry leaves finished parts alone."""
    snapshot = open_dataset(dataset, version)
    with Progress("export", key="export") as progress:
        summary = export_dataset(
            snapshot,
            location(out),
            output=output,
            gaps=parse_output_gaps(gaps),
            max_tar_bytes=max_tar_bytes,
            on_progress=progress,
        )
    return {"dataset": str(snapshot.pin), **asdict(summary)}


@task
def publish_export(summary: dict[str, Any]) -> None:
    """Leave a table of what was written with the flow run."""
    publish_table([summary], key="export", description=f"Exported {summary['dataset']} to {summary['uri']}")


def parse_output_gaps(text: str | None) -> tuple[int, ...] | None:
    """Return the gaps that ``--gaps`` stands for: all that there are for None, no flow at all for ``none``."""
    if text is None:
        return None
    return () if text == NO_GAPS else parse_gaps(text)
