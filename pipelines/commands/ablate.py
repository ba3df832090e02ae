"""``gwm ablate``: a table of the paper, trained and scored."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.commands.models import Overrides, Sequences, split
from pipelines.commands.tables import print_table


def ablate(
    table: Annotated[
        str,
        typer.Argument(
            help="motion-models, segments, objectives, motion-models-x-objectives, gap-sampling, flow-sources, "
            "generalisation or dino-clustering.",
            show_default=False,
        ),
    ],
    root: Annotated[str, typer.Option(help="Folder of the benchmark.", show_default=False)],
    dataset: Annotated[
        str | None, typer.Option(help="Dataset that rows are trained on; dino-clustering needs none.")
    ] = None,
    benchmark: Annotated[str, typer.Option(help="What rows are scored on.")] = "davis16",
    base: Annotated[str, typer.Option(help="Preset that the rows vary.")] = "gwm_unet_davis16",
    override: Overrides = None,
    rows: Annotated[str | None, typer.Option(help="Only these rows, separated by commas.")] = None,
    sequences: Sequences = None,
    dataset_for: Annotated[
        list[str] | None,
        typer.Option(help="ESTIMATOR=URI, for rows of flow-sources: the same footage with another flow; repeatable."),
    ] = None,
    features: Annotated[str, typer.Option(help="Merge segments by decoder, colour, motion or dino.")] = "decoder",
    feature_weights: Annotated[str | None, typer.Option(help="DINO ViT: dino-vit-s8, a file or a URI.")] = None,
    feature_sha256: Annotated[str | None, typer.Option(help="SHA-256 of the checkpoint; required for a URI.")] = None,
    out: Annotated[
        str | None, typer.Option(help="Folder for the table; unset: ablations under the home folder.")
    ] = None,
    json_file: Annotated[str | None, typer.Option("--json", help="Write the table to this file as well.")] = None,
) -> None:
    """Train and score the rows of a table of the GWM paper, one after another, and print ours beside the paper's.

    The same command goes on where it was stopped. A row that fails is shown with its reason and does not stop the
    others; the exit status is 1 then.
    """
    from pipelines.ablate import ablate_gwm
    from tasks.errors import AblationError

    try:
        result = ablate_gwm(
            table=table,
            root=root,
            dataset=dataset,
            benchmark=benchmark,
            experiment=base,
            overrides=override or [],
            rows=split(rows),
            sequences=split(sequences),
            datasets=pairs(dataset_for or []),
            features=features,
            feature_weights=feature_weights,
            feature_sha256=feature_sha256,
            out=out,
            json_file=json_file,
        )
    except AblationError as error:
        print_table(error.table, title=table)
        raise
    print_table(result["rows"], title=result["title"])
    for note in result["notes"]:
        typer.echo(note)
    typer.echo(f"page: {result['page']}")


def pairs(items: list[str]) -> dict[str, str]:
    """Turn ``NAME=URI`` items into a dictionary; anything else is misuse."""
    split_items = [item.partition("=") for item in items]
    for item, (name, _, uri) in zip(items, split_items, strict=True):
        if not name or not uri:
            raise typer.BadParameter(f"--dataset-for {item!r}: expected ESTIMATOR=URI, such as arflow=./dataset-arflow")
    return {name: uri for name, _, uri in split_items}
