"""``gwm show`` and ``gwm trace``: what a dataset holds, and where a mask, a model or a frame comes from."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.commands.tables import print_json, print_table

Dataset = Annotated[
    str, typer.Argument(metavar="DATASET", help="The dataset: a folder or s3://bucket/key.", show_default=False)
]
Version = Annotated[int | None, typer.Option(min=0, help="Version of the dataset; unset takes the newest.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, complete and for programs.")]


def show(
    dataset: Dataset,
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
