"""``gwm ingest`` and ``gwm datasets``."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.commands.tables import print_table

Sources = Annotated[
    list[str],
    typer.Argument(help="Videos, folders of videos or frames, DAVIS roots, globs or fsspec URIs.", show_default=False),
]
DatasetUri = Annotated[
    str, typer.Option("--dataset", help="Where the dataset lies: a folder or s3://bucket/key.", show_default=False)
]


def ingest(
    sources: Sources,
    dataset: DatasetUri,
    fps: Annotated[float | None, typer.Option(min=0.01, help="Frames per second kept; unset keeps all.")] = None,
    max_side: Annotated[
        int | None, typer.Option(min=16, help="Longer side in pixels; larger frames are shrunk.")
    ] = None,
    estimator: Annotated[str, typer.Option(help="Optical flow: dis, raft-small, raft-large, pwc, arflow, ...")] = "dis",
    weights: Annotated[
        str | None, typer.Option(help="Weights of the estimator: a name of gwm weights, a file or a URI.")
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="SHA-256 that the weights must have.")] = None,
    gaps: Annotated[str, typer.Option(help="Frame gaps: davis, fbms, or a list such as 1,-1,2,-2.")] = "davis",
) -> None:
    """Decode footage, compute optical flow, and publish what is new as a dataset version.

    Doing it again does nothing and says why, per video. Footage that can not be read becomes a row in the dataset's
    dead-letter table; the rest goes on.
    """
    from pipelines.ingest import ingest_footage

    summary = ingest_footage(
        sources=sources,
        dataset=dataset,
        fps=fps,
        max_side=max_side,
        estimator=estimator,
        weights=weights,
        sha256=sha256,
        gaps=gaps,
    )
    print_table(summary["videos"], title="footage")
    typer.echo(
        f"ingested {summary['num_ingested']}, skipped {summary['num_skipped']}, rejected {summary['num_rejected']}: "
        f"{dataset} is at version {summary['version']}"
    )


def datasets(uri: Annotated[str, typer.Argument(help="The dataset.", show_default=False)]) -> None:
    """List the versions of a dataset; `gwm train --version N` trains on an old one."""
    from pipelines.datasets import describe_versions

    print_table(describe_versions(uri), title=f"versions of {uri}")
