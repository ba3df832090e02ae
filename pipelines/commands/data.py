"""``gwm plan``, ``gwm ingest``, ``gwm datasets``, ``gwm rejected`` and ``gwm vacuum``."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import typer

from pipelines.commands.tables import print_table

Sources = Annotated[
    list[str],
    typer.Argument(help="Videos, folders of videos or frames, DAVIS roots, globs or fsspec URIs.", show_default=False),
]
DatasetUri = Annotated[
    str, typer.Option("--dataset", help="Where the dataset lies: a folder or s3://bucket/key.", show_default=False)
]
DatasetArgument = Annotated[
    str, typer.Argument(metavar="DATASET", help="The dataset: a folder or s3://bucket/key.", show_default=False)
]
JsonFile = Annotated[str | None, typer.Option("--json", help="Write what is shown to this file as well.")]

Fps = Annotated[float | None, typer.Option(min=0.01, help="Frames per second kept; unset keeps all.")]
MaxSide = Annotated[int | None, typer.Option(min=16, help="Longer side in pixels; larger frames are shrunk.")]
Estimator = Annotated[str, typer.Option(help="Optical flow: dis, raft-small, raft-large, pwc, arflow, ...")]
Weights = Annotated[str | None, typer.Option(help="Weights of the estimator: a name of gwm weights, a file or a URI.")]
Sha256 = Annotated[str | None, typer.Option(help="SHA-256 that the weights must have.")]
Gaps = Annotated[str, typer.Option(help="Frame gaps: davis, fbms, or a list such as 1,-1,2,-2.")]
JpegQuality = Annotated[int, typer.Option(min=1, max=100, help="Of frames that are not JPEG files already.")]
Shots = Annotated[
    Literal["auto", "on", "off"],
    typer.Option(help="Split footage at its cuts; auto does so to videos and not to folders of frames."),
]
KeepRecipe = Annotated[
    bool, typer.Option("--keep-recipe", help="Make rows as most of the dataset was made, whatever else is said.")
]
Prune = Annotated[bool, typer.Option("--prune", help="Remove videos whose source, under those named, is gone.")]
Retry = Annotated[
    list[str] | None,
    typer.Option(help="Try again what was refused for this reason, however often; all for every reason; repeatable."),
]
MaxAttempts = Annotated[
    int, typer.Option(min=1, help="Runs in which footage is tried that crashed, timed out or met an error of ours.")
]
_MAX_ATTEMPTS = 3  # tasks.ingest_plan.MAX_ATTEMPTS, which takes seconds to import
_BATCH_VIDEOS = 200  # tasks.ingest.DEFAULT_BATCH_VIDEOS, likewise
_JPEG_QUALITY = 95  # tasks.identity.DEFAULT_JPEG_QUALITY, likewise


def plan(
    sources: Sources,
    dataset: DatasetUri,
    fps: Fps = None,
    max_side: MaxSide = None,
    estimator: Estimator = "dis",
    weights: Weights = None,
    sha256: Sha256 = None,
    gaps: Gaps = "davis",
    jpeg_quality: JpegQuality = _JPEG_QUALITY,
    shots: Shots = "auto",
    keep_recipe: KeepRecipe = False,
    prune: Prune = False,
    retry: Retry = None,
    max_attempts: MaxAttempts = _MAX_ATTEMPTS,
    cost: Annotated[bool, typer.Option(help="Estimate the cost by really processing a sample of about 1 %.")] = True,
    json_file: JsonFile = None,
) -> None:
    """Show what `gwm ingest` with the same options would do to each video, why, and what that would cost.

    Nothing is written. The footage is read once, to know it by its bytes.
    """
    from pipelines.ingest import make_policy
    from pipelines.plan import plan_footage
    from pipelines.recipe import RecipeRequest

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
    planned = plan_footage(sources, dataset, request, make_policy(prune, retry, max_attempts, None), cost=cost)
    print_table(planned["videos"], title="footage")
    print_table(planned["totals"], title="in total")
    for line in planned["cost_lines"]:
        typer.echo(line)
    _write_json(json_file, planned)


def ingest(
    sources: Sources,
    dataset: DatasetUri,
    fps: Fps = None,
    max_side: MaxSide = None,
    estimator: Estimator = "dis",
    weights: Weights = None,
    sha256: Sha256 = None,
    gaps: Gaps = "davis",
    jpeg_quality: JpegQuality = _JPEG_QUALITY,
    shots: Shots = "auto",
    keep_recipe: KeepRecipe = False,
    prune: Prune = False,
    retry: Retry = None,
    max_attempts: MaxAttempts = _MAX_ATTEMPTS,
    max_rejected: Annotated[
        float | None,
        typer.Option(
            min=0, max=100, help="Fail in the end when more than this percentage was refused; unset: 50 of 10 or more."
        ),
    ] = None,
    near_duplicates: Annotated[
        Literal["report", "skip"],
        typer.Option(help="Clips that look like others that were ever ingested: tell of them, or leave them out too."),
    ] = "report",
    batch_videos: Annotated[
        int, typer.Option(min=1, help="Videos published at once; they also are every 5 minutes, whatever their number.")
    ] = _BATCH_VIDEOS,
) -> None:
    """Decode footage, compute optical flow, and publish what is new as a dataset version.

    Doing it again does nothing and says why, per video; `gwm plan` says so beforehand. Footage that can not be read
    becomes a row in the dataset's dead-letter table (`gwm rejected`); the rest goes on.
    """
    from pipelines.ingest import ingest_footage
    from tasks.errors import ErrorBudgetError

    try:
        summary = ingest_footage(
            sources=sources,
            dataset=dataset,
            fps=fps,
            max_side=max_side,
            estimator=estimator,
            weights=weights,
            sha256=sha256,
            gaps=gaps,
            jpeg_quality=jpeg_quality,
            shots=shots,
            keep_recipe=keep_recipe,
            prune=prune,
            retry=retry,
            max_attempts=max_attempts,
            max_rejected=max_rejected,
            near_duplicates=near_duplicates,
            batch_videos=batch_videos,
        )
    except ErrorBudgetError as error:
        _print_summary(error.summary, dataset)
        raise
    _print_summary(summary, dataset)


def _print_summary(summary: Any, dataset: str) -> None:
    print_table(summary["videos"], title="footage")
    rare = {"renamed": "num_renamed", "removed": "num_removed", "clips like others": "num_near_duplicates"}
    changes = [f"{name} {summary[key]}" for name, key in rare.items() if summary[key]]
    counts = [f"{name} {summary[f'num_{name}']}" for name in ("ingested", "skipped", "rejected")]
    typer.echo(f"{', '.join(counts + changes)}: {dataset} is at version {summary['version']}")


def datasets(uri: DatasetArgument) -> None:
    """List the versions of a dataset; `gwm train --version N` trains on an old one."""
    from pipelines.datasets import describe_versions

    print_table(describe_versions(uri), title=f"versions of {uri}")


def rejected(
    uri: DatasetArgument,
    reason: Annotated[list[str] | None, typer.Option(help="Only what was refused for this reason; repeatable.")] = None,
    json_file: JsonFile = None,
) -> None:
    """List the footage that was refused: at which stage, why, how often, and when first and last.

    `gwm ingest SOURCES --dataset URI --retry REASON` tries it again.
    """
    from pipelines.rejected import count_reasons, describe_rejected

    rows = describe_rejected(uri, reason or ())
    print_table(rows, title=f"refused by {uri}")
    typer.echo(f"{len(rows)} refused" + (f": {count_reasons(rows)}" if rows else ""))
    _write_json(json_file, rows)


def _write_json(file: str | None, content: Any) -> None:
    from tasks.storage import location

    if file is not None:
        location(file).write_bytes(f"{json.dumps(content, indent=1)}\n".encode())


def vacuum(
    uri: DatasetArgument,
    older_than: Annotated[
        float, typer.Option(min=0, help="Hours since a file was written; less than an ingest takes is not safe.")
    ] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be removed.")] = False,
) -> None:
    """Remove files that killed ingests left behind. No version of the dataset loses anything."""
    from pipelines.console import ConsoleProgress
    from tasks.vacuum import vacuum as remove_orphans

    with ConsoleProgress("vacuum") as progress:
        report = remove_orphans(uri, older_than_hours=older_than, dry_run=dry_run, on_progress=progress)
    for path in report.paths:
        typer.echo(path)
    verb = "would remove" if dry_run else "removed"
    typer.echo(
        f"{verb} {report.num_removed} files ({report.num_bytes / 1e6:.1f} MB); {report.num_referenced} are in use, "
        f"{report.num_spared} are younger than {older_than:g} hours and were left alone"
    )
