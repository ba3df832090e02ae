"""``gwm up`` and ``gwm down``: which servers, in which order, and how each tells that it is ready."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines import services
from pipelines.services import LOOPBACK, WORK_POOL, ServiceRecord
from tasks.errors import ServiceError
from tasks.settings import Settings

PREFECT_PORT = 4200  # Prefect's default
MLFLOW_PORT = 5000  # MLflow's default


@dataclass(frozen=True, kw_only=True)
class StackAddresses:
    """Where the local servers answer; ``mlflow`` is None when the settings point to a server of your own."""

    prefect_api: str
    mlflow: str | None

    @property
    def prefect_page(self) -> str:
        """Prefect's web page."""
        return self.prefect_api.removesuffix("/api")


def up(
    settings: Settings,
    *,
    project_root: Path,
    prefect_port: int = PREFECT_PORT,
    mlflow_port: int = MLFLOW_PORT,
    tell: Callable[[str], None] = lambda line: None,
) -> StackAddresses:
    """Start what does not run yet, wait until each answers, and deploy the flows.

    Doing it twice changes nothing. Raises ServiceError when a port is taken or a server does not start; what was
    started before stays up.
    """
    if not (project_root / "prefect.yaml").is_file():
        raise ServiceError(f"no prefect.yaml in {project_root}: gwm up deploys from a checkout; run it in one")
    prefect = _start_prefect(settings, prefect_port)
    mlflow = _start_mlflow(settings, mlflow_port)  # beside the other: each takes seconds to import what it needs
    for server in filter(None, (prefect, mlflow)):
        server.wait(settings, tell)
    addresses = StackAddresses(prefect_api=prefect.url, mlflow=mlflow.url if mlflow else None)
    env = {**watched_places(settings), "PREFECT_API_URL": addresses.prefect_api}
    tell("deploying the flows of prefect.yaml")
    _run_prefect("work-pool", "create", WORK_POOL, "--type", "process", "--overwrite", env=env, folder=project_root)
    _run_prefect("--no-prompt", "deploy", "--all", env=env, folder=project_root)
    _ensure_worker(settings, addresses.prefect_api, tell)
    return addresses


def watched_places(settings: Settings) -> dict[str, str]:
    """Return what prefect.yaml asks of the environment: where schedules look for footage, their dataset and preset.

    Unset, the places are folders under home; the first one is made, to drop footage into. The preset is the one whose
    size fits the machine.
    """
    footage = settings.home_path / "footage"
    if "GWM_FOOTAGE" not in os.environ:
        footage.mkdir(exist_ok=True)
    return {
        "GWM_FOOTAGE": os.environ.get("GWM_FOOTAGE", str(footage)),
        "GWM_DATASET": os.environ.get("GWM_DATASET", str(settings.home_path / "dataset")),
        "GWM_EXPERIMENT": os.environ.get("GWM_EXPERIMENT", _preset_for(settings)),
    }


def _preset_for(settings: Settings) -> str:
    """The paper's U-Net takes days on a CPU; the small one under an hour."""
    from tasks.devices import own_device  # torch takes seconds to import

    return "gwm_unet" if own_device(settings) == "cuda" else "gwm_unet_davis16"


def down(settings: Settings) -> list[str]:
    """Stop what ``up`` started, dependents first, and return the names of those that were running."""
    found = services.records(settings)
    order = sorted(found, key=["worker", "mlflow", "prefect"].index)
    return [name for name in order if services.stop(found[name], settings)]


@dataclass(frozen=True, kw_only=True)
class _Server:
    """A server that answers at ``url``, at once (no record) or when it has started."""

    url: str
    record: ServiceRecord | None = None

    def wait(self, settings: Settings, tell: Callable[[str], None]) -> None:
        if self.record is not None:
            _wait(self.record, lambda: services.answers(f"{self.url}/health") is not None, settings, tell)


def _start_prefect(settings: Settings, port: int) -> _Server:
    if running := services.running_url("prefect", settings):
        return _Server(url=running)
    _require_free("Prefect's server", port, "--prefect-port")
    api = f"http://{LOOPBACK}:{port}/api"
    command = services.python_module("prefect", "server", "start", "--host", LOOPBACK, "--port", str(port))
    record = services.start("prefect", command, url=api, env={"PREFECT_API_URL": api}, settings=settings)
    return _Server(url=api, record=record)


def _start_mlflow(settings: Settings, port: int) -> _Server | None:
    if not settings.tracking_uri.startswith("sqlite:"):
        return None
    if running := services.running_url("mlflow", settings):
        return _Server(url=running)
    _require_free("MLflow's server", port, "--mlflow-port")
    url = f"http://{LOOPBACK}:{port}"
    # Job workers and their queues would add 1.4 GB and are of no use here.
    env = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    record = services.start("mlflow", mlflow_command(settings, port), url=url, env=env, settings=settings)
    return _Server(url=url, record=record)


def mlflow_command(settings: Settings, port: int = MLFLOW_PORT) -> list[str]:
    """Return the command that serves the embedded MLflow store's pages on loopback."""
    return services.python_module(
        *("mlflow", "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", settings.tracking_uri),
        *("--artifacts-destination", settings.artifact_root or str(settings.home_path / "mlflow_artifacts")),
    )


def _ensure_worker(settings: Settings, api: str, tell: Callable[[str], None]) -> None:
    if services.running_url("worker", settings):
        return
    command = services.python_module("prefect", "worker", "start", "--pool", WORK_POOL, "--name", "gwm-local")
    env = {"PREFECT_API_URL": api, "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO"}
    record = services.start("worker", command, url=api, env=env, settings=settings)
    _wait(record, lambda: _worker_is_online(api), settings, tell)


def _worker_is_online(api: str) -> bool:
    answer = services.answers(f"{api}/work_pools/{WORK_POOL}/workers/filter", b"{}")
    return any(worker["status"] == "ONLINE" for worker in json.loads(answer or b"[]"))


def _wait(record: ServiceRecord, ready: Callable[[], bool], settings: Settings, tell: Callable[[str], None]) -> None:
    tell(f"starting {record.name} (process {record.pid})")
    services.wait_until(ready, record, settings)


def _require_free(what: str, port: int, option: str) -> None:
    if not services.port_is_free(port):
        raise ServiceError(f"port {port} for {what} is taken on {LOOPBACK}: free it or choose another with {option}")


def _run_prefect(*arguments: str, env: Mapping[str, str], folder: Path) -> None:
    finished = subprocess.run(
        services.python_module("prefect", *arguments),
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        raise ServiceError(f"prefect {' '.join(arguments)} failed:\n{finished.stdout}{finished.stderr}")
