"""The ``gwm`` command. Each subcommand calls the same flow that Prefect deploys.

Errors that the project raises on purpose, and the system's, become one message on stderr and exit status 1; misuse is
status 2. The commands import what they run when they run, so that ``gwm --help`` answers in a fraction of a second.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from model.errors import GwmError
from pipelines.commands import ablate, adapt, data, export, inspection, machine, models, output, weights
from tasks.errors import printable


class _ExplainingGroup(TyperGroup):
    """Turns the project's errors into a message and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (GwmError, OSError) as error:  # a full disk or a missing folder needs no traceback either
            if ctx.params.get("debug"):
                raise
            message = "\n".join(printable(line) for line in str(error).split("\n"))  # names may hold anything
            Console(stderr=True, soft_wrap=True).print(f"error: {message}", style="bold red", markup=False)
            raise typer.Exit(1) from error


app = typer.Typer(
    name="gwm",
    cls=_ExplainingGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from pipelines.runtime import project_version

        typer.echo(f"gwm {project_version()}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's log.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """From footage to masks: label-free video object segmentation."""
    from pipelines.runtime import load_settings, prepare_environment

    prepare_environment(load_settings(), debug=debug)


_COMMANDS = (
    (data.plan, "gwm plan ~/videos s3://bucket/raw --dataset ./dataset --max-side 854"),
    (data.ingest, "gwm ingest ~/videos s3://bucket/raw --dataset ./dataset --max-side 854"),
    (data.datasets, "gwm datasets ./dataset"),
    (inspection.show, "gwm show ./dataset --version 3"),
    (inspection.trace, "gwm trace ./masks/holiday/masks/00000.png"),
    (data.rejected, "gwm rejected ./dataset --reason corrupt"),
    (inspection.verify, "gwm verify ./dataset --sample 1%"),
    (inspection.preview, "gwm preview ./dataset --out ./preview"),
    (export.export_dataset, "gwm export-dataset ./dataset --format webdataset --out s3://bucket/tars"),
    (data.vacuum, "gwm vacuum ./dataset --dry-run"),
    (models.train, "gwm train --experiment gwm_unet_davis16 --dataset ./dataset --set optimisation.num_steps=500"),
    (models.evaluate, "gwm evaluate --model models:/gwm@champion --benchmark davis16 --root ./DAVIS --sequences camel"),
    (ablate.ablate, "gwm ablate segments --dataset ./dataset --root ./DAVIS --set optimisation.num_steps=1500"),
    (models.retrain, "gwm retrain ~/videos --dataset ./dataset --model gwm"),
    (output.segment, "gwm segment holiday.mp4 --model models:/gwm@champion --out ./masks"),
    (adapt.adapt, "gwm adapt holiday.mp4 --model models:/gwm@champion --steps 20"),
    (output.render, "gwm render ./footage"),
    (weights.weights, "gwm weights dino-vit-s8-timm"),
    (weights.import_checkpoint, "gwm import-checkpoint checkpoint_best.pth --backbone dino-vit-b8-timm --register gwm"),
    (machine.up, "gwm up && export PREFECT_API_URL=http://127.0.0.1:4200/api"),
    (machine.down, "gwm down"),
    (machine.doctor, "gwm doctor --place s3://bucket/dataset"),
)
"""What each subcommand calls, and the example under its help."""

for _command, _example in _COMMANDS:
    app.command(epilog=f"Example: {_example}")(_command)


def main() -> None:
    """Run the command line; the entry point of the ``gwm`` script."""
    app()


if __name__ == "__main__":
    main()
