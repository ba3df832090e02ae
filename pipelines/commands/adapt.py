"""``gwm adapt``: test-time adaptation."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.commands.models import ModelReference
from pipelines.commands.tables import print_table


def adapt(
    inputs: Annotated[list[str], typer.Argument(help="Videos, folders of frames, globs or URIs.", show_default=False)],
    model: ModelReference,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training on each clip (GWM, Table 4: 20).")] = 20,
    out: Annotated[str, typer.Option(help="Folder to write into.")] = "adapted",
    estimator: Annotated[str, typer.Option(help="Optical flow: dis, raft-small, raft-large, pwc, arflow, ...")] = "dis",
    weights: Annotated[str | None, typer.Option(help="Weights of the estimator: a name, file or URI.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0.0, help="Of the steps, in place of the training's.")
    ] = None,
    rate: Annotated[
        str, typer.Option(help="final goes on at the rate where the training ended, full at that which it was given.")
    ] = "final",
    crf: Annotated[str | None, typer.Option(help="Refine masks by a dense CRF: gwm or rcf.")] = None,
) -> None:
    """Train the model on for a few steps on each clip, each time from the same start, and segment the clip.

    No label is involved. All settings are those of the model's training.
    """
    from pipelines.adapt import adapt_footage

    result = adapt_footage(
        inputs=inputs,
        model=model,
        out=out,
        steps=steps,
        estimator=estimator,
        weights=weights,
        learning_rate=learning_rate,
        rate=rate,
        crf=crf,
    )
    print_table(result["clips"], title="adapted and segmented")
