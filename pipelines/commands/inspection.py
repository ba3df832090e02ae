"""``gwm show``, ``gwm trace`` and ``gwm verify``: what a dataset holds, where things come from, whether all is well."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.commands.data import DatasetArgument
from pipelines.commands.tables import print_json, print_table

Version = Annotated[int | None, typer.Option(min=0, help="Version of the dataset; unset takes the newest.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, complete and for programs.")]


def show(
    dataset: DatasetArgument,
    version: Version = None,
    clips: Annotated[int, typer.Option(min=0, help="Clips that are listed; JSON always lists all.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show what a version of a dataset holds: totals, recipes, clips, bytes by column, refusals and history."""
    from pipelines.datasets import describe
    from tasks.describe import describe_dataset

    found = describe_dataset(dataset, version)
    if as_json:
        print_json(found)
        return
    shown = describe(found, max_clips=clips)
    typer.echo(shown.headline)
    for title, rows in shown.tables.items():
        print_table(rows, title=title)


def trace(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MASK|MODEL|FRAME",
            help="A PNG or folder of gwm segment; a model reference; DATASET/CLIP/INDEX.",
            show_default=False,
        ),
    ],
    version: Annotated[int | None, typer.Option(min=0, help="Dataset version that a frame is looked up in.")] = None,
    clips: Annotated[int, typer.Option(min=0, help="Training clips that are listed; JSON always lists all.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Follow a mask, a model or a stored frame back to the footage: model, run, dataset version, shards, hashes.

    What was not written down, or is gone, is said, not guessed.
    """
    from pipelines.chains import chain_text, clip_rows
    from pipelines.runtime import load_settings
    from tasks.trace_target import trace as follow

    found = follow(target, load_settings(), version=version)
    if as_json:
        print_json(found)
        return
    typer.echo(chain_text(found))
    print_table(clip_rows(found, clips), title=f"trained on ({min(clips, len(found.clips))} of {len(found.clips)})")


def verify(
    dataset: DatasetArgument,
    version: Version = None,
    sample: Annotated[str, typer.Option(help="Videos that are made again: a share such as 1%, or a number.")] = "1%",
    seed: Annotated[int, typer.Option(help="Another seed samples other videos.")] = 0,
    weights: Annotated[
        str | None, typer.Option(help="Weights of the flow estimator, if the dataset was made with your own.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that every shard is what the log says, and make a sample of videos again from their sources.

    Shards must be there, hash to their names and hold the rows that the log counts. Of sampled videos pictures, masks
    and optical flow are compared. Status 1 when something differs, or when no sampled video has its source any more.
    """
    from pipelines.verify import problem_rows, verdict, verify_stored

    report = verify_stored(dataset, version=version, sample=sample, seed=seed, weights=weights, fail=False)
    if as_json:
        print_json(report)
    else:
        print_table(problem_rows(report), title="problems")
        typer.echo(verdict(report))
    if not report.is_sound:
        raise typer.Exit(1)


def preview(
    dataset: DatasetArgument,
    out: Annotated[str, typer.Option(help="Folder to write into, or one file.html.", show_default=False)],
    version: Version = None,
    clips: Annotated[int, typer.Option(min=1, help="Clips shown, evenly spread over all by name.")] = 24,
) -> None:
    """Write a page to look at: frames, optical flow in colours and masks of clips, as they are stored."""
    from pipelines.console import ConsoleProgress
    from tasks.catalog import open_dataset
    from tasks.preview import write_preview
    from tasks.storage import location

    snapshot = open_dataset(dataset, version)
    with ConsoleProgress("preview") as progress:
        page = write_preview(snapshot, location(out), max_clips=clips, on_progress=progress)
    typer.echo(page.uri)
