"""``gwm export-dataset``."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.commands.data import DatasetArgument
from pipelines.commands.inspection import Version


def export_dataset(
    dataset: DatasetArgument,
    output: Annotated[str, typer.Option("--format", help="webdataset or frames.", show_default=False)],
    out: Annotated[str, typer.Option(help="Where to write: a folder or s3://bucket/key, empty.", show_default=False)],
    version: Version = None,
    gaps: Annotated[
        str | None, typer.Option(help="Optical flow to write: davis, fbms, a list such as 1,-1, or none; unset all.")
    ] = None,
    tar_mb: Annotated[int, typer.Option(min=1, help="Size of one tar of webdataset, about.")] = 1000,
) -> None:
    """Export a version of a dataset for other tools: WebDataset tars, or the folders of DAVIS with .flo files.

    Cut short, the same command goes on where it was. `gwm ingest` reads what --format frames writes.
    """
    from pipelines.export_dataset import export_stored

    summary = export_stored(dataset, output, out, version=version, gaps=gaps, max_tar_bytes=tar_mb * 1_000_000)
    typer.echo(
        f"{summary['num_frames']} frames of {summary['dataset']} in {summary['num_parts']} parts at {summary['uri']}, "
        f"{summary['num_written']} of them written now"
    )
