"""``gwm segment`` and ``gwm render``."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.commands.models import ModelReference
from pipelines.commands.tables import print_table


def segment(
    inputs: Annotated[
        list[str], typer.Argument(help="Videos, folders of frames, single images, globs or URIs.", show_default=False)
    ],
    model: ModelReference,
    out: Annotated[str, typer.Option(help="Folder to write into.", show_default=False)],
    crf: Annotated[str | None, typer.Option(help="Refine masks by a dense CRF: gwm or rcf.")] = None,
) -> None:
    """Turn any video, folder of frames or image into an overlay video, PNG masks and a page to look at."""
    from pipelines.segment import segment_footage

    print_table(segment_footage(inputs=inputs, model=model, out=out, crf=crf)["clips"], title="segmented")


def render(
    out: Annotated[str, typer.Argument(help="Folder of this machine to write into.", show_default=False)],
    seed: Annotated[int, typer.Option(min=0, help="Another seed renders other footage.")] = 0,
) -> None:
    """Render the demo's footage: H.264 videos, with exact masks and exact optical flow beside them."""
    from pipelines.console import ConsoleProgress
    from tasks.rendering import render_footage
    from tasks.storage import location, prove_writable

    place = location(out)
    folder = place.local_path  # the encoder writes files of this machine
    prove_writable(place)
    with ConsoleProgress("render") as progress:
        clips = render_footage(folder, seed=seed, on_progress=progress)
    rows = [
        {"clip": clip.name, "frames": clip.num_frames, "video": str(clip.video), "reused": clip.reused}
        for clip in clips
    ]
    print_table(rows, title=f"rendered into {out}")
