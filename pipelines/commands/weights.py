"""``gwm weights`` and ``gwm import-checkpoint``."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.commands.tables import print_table


def weights(
    name: Annotated[str | None, typer.Argument(help="Fetch this one; unset lists all that have a name.")] = None,
    sha256: Annotated[str | None, typer.Option(help="SHA-256 that the file must have; required for a URI.")] = None,
) -> None:
    """List the weights that have names, with licences and whether they are here; or fetch one of them.

    Without a network, put a file into the folder that is told last, under the name that the list gives it.
    """
    from pipelines.runtime import load_settings
    from tasks.weights import fetch_weights, weights_table

    settings = load_settings()
    if name is None:
        print_table(weights_table(settings.weights_path), title="weights")
        typer.echo(f"files belong in {settings.weights_path}")
        return
    from pipelines.console import ConsoleProgress

    with ConsoleProgress(f"fetch {name}") as progress:
        local = fetch_weights(
            name,
            sha256,
            cache=settings.weights_path,
            on_bytes=lambda done, size: progress(done, size or 0, f"{done / 1e6:.0f} MB"),
        )
    print_table(
        [{"name": name, "network": local.network, "sha256": local.sha256, "file": str(local.path)}], title="fetched"
    )


def import_checkpoint(
    file: Annotated[
        str, typer.Argument(help="A checkpoint, a folder with a model of ours, or a URI.", show_default=False)
    ],
    register: Annotated[
        str | None, typer.Option(help="Register the model in MLflow, or name the backbone's weights, so.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder for the result, beside MLflow.")] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="Weights that a released GWM head was trained on: dino-vit-b8-timm, a file or a URI."),
    ] = None,
    backbone_sha256: Annotated[str | None, typer.Option(help="SHA-256 of the backbone; required for a URI.")] = None,
    sha256: Annotated[str | None, typer.Option(help="SHA-256 of the checkpoint; required for a URI.")] = None,
) -> None:
    """Import a released GWM checkpoint, DINO, MoBY Swin, Swin, ResNet-50, or a model of ours; no code in it is run.

    A GWM head with its backbone becomes a model in MLflow. A backbone becomes weights under a name, which
    method.maskformer.backbone_weights, --feature-weights and --backbone take.
    """
    from pipelines.runtime import load_settings
    from pipelines.train import require_model_name
    from tasks.import_checkpoint import ImportRequest, import_checkpoint

    require_model_name(register)
    request = ImportRequest(
        source=file,
        sha256=sha256,
        register_as=register,
        out=out,
        backbone=backbone,
        backbone_sha256=backbone_sha256,
    )
    imported = import_checkpoint(
        request,
        load_settings(),
        on_report=lambda report: print_table(report.rows(), title=f"{report.source}: {report.kind}"),
    )
    print_table([{"what": key, "value": value} for key, value in vars(imported).items()], title="imported")
