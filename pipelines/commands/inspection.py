"""``gwm show``: what a dataset holds."""

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
