"""``gwm up``, ``gwm down`` and ``gwm doctor``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table


def up(
    prefect_port: Annotated[int, typer.Option(min=1, max=65535, help="Of Prefect's server.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65535, help="Of MLflow's server.")] = 5000,
) -> None:
    """Start Prefect's server and worker and MLflow's server on loopback, and deploy the flows."""
    from pipelines import local_stack
    from pipelines.runtime import PROJECT_ROOT, load_settings

    addresses = local_stack.up(
        load_settings(),
        project_root=PROJECT_ROOT,
        prefect_port=prefect_port,
        mlflow_port=mlflow_port,
        tell=typer.echo,
    )
    typer.echo(f"Prefect: {addresses.prefect_page}")
    typer.echo(f"MLflow:  {addresses.mlflow or 'at GWM_MLFLOW_TRACKING_URI'}")
    typer.echo(f"to run a deployment: export PREFECT_API_URL={addresses.prefect_api}")
    typer.echo("  prefect deployment run train-gwm/train-gwm --param experiment=debug --param dataset=URI --watch")


def down() -> None:
    """Stop exactly what `gwm up` started."""
    from pipelines import local_stack
    from pipelines.runtime import load_settings

    stopped = local_stack.down(load_settings())
    typer.echo(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


def doctor(
    place: Annotated[list[str] | None, typer.Option(help="Further URI that must be writable.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Look for no weights on the network.")] = False,
) -> None:
    """Examine packages, accelerators, weights, storage and ports. Exit status 1 when something is broken."""
    from pipelines.doctor import examine
    from pipelines.runtime import load_settings

    findings = examine(load_settings(), places=tuple(place or ()), offline=offline)
    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    table = Table("area", "what", "", "found")
    for finding in findings:
        status = f"[{colours[finding.status]}]{finding.status}[/]"
        table.add_row(finding.area, finding.name, status, finding.detail)
    Console(soft_wrap=True).print(table)
    broken = sum(finding.status == "fail" for finding in findings)
    typer.echo(f"{len(findings)} checks, {broken} broken")
    if broken:
        raise typer.Exit(1)
