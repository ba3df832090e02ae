"""``gwm up``, a deployment run by name on the real worker, the model in MLflow, ``gwm down``."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import psutil
import pytest

from pipelines import local_stack, services
from pipelines.runtime import PROJECT_ROOT, environment_defaults, load_settings
from tasks.registry import resolve_model
from tests.tasks.training_data import write_dataset

PARAMETERS = {"experiment": "debug", "register_as": "served"}


@pytest.mark.slow
@pytest.mark.timeout(900)  # three servers and a Ray of its own; 70 s on a free machine
def test_a_deployment_runs_on_the_worker_and_its_model_is_in_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings()
    dataset = write_dataset(tmp_path / "dataset", num_frames=(6, 6))
    for name, value in environment_defaults(settings).items():
        monkeypatch.setenv(name, value)  # PREFECT_HOME too: nothing of other tests, nothing of the user's
    monkeypatch.setenv("GWM_RAY_CPUS", "4")  # as many as the test suite's own Ray pretends to have
    prefect_port, mlflow_port = _free_ports(2)
    try:
        addresses = local_stack.up(
            settings, project_root=PROJECT_ROOT, prefect_port=prefect_port, mlflow_port=mlflow_port
        )
        again = local_stack.up(settings, project_root=PROJECT_ROOT)  # finds them all running
        assert again == addresses
        _run_deployment(addresses.prefect_api, {**PARAMETERS, "dataset": dataset})
        assert resolve_model("models:/served/1", settings).is_dir()
        assert _model_version_served_by(str(addresses.mlflow)) == "READY"
        processes = [record.process() for record in services.records(settings).values()]
        family = [child for process in processes if process for child in [process, *process.children(recursive=True)]]
        assert len(family) >= 3
    finally:
        stopped = local_stack.down(settings)
    assert sorted(stopped) == ["mlflow", "prefect", "worker"]
    assert [process for process in family if _alive(process)] == []


def _run_deployment(api: str, parameters: dict[str, str]) -> None:
    arguments = [f"--param={name}={json.dumps(value)}" for name, value in parameters.items()]
    command = services.python_module("prefect", "deployment", "run", "train-gwm/train-gwm", "--watch", *arguments)
    finished = subprocess.run(
        command, env={**os.environ, "PREFECT_API_URL": api}, capture_output=True, text=True, timeout=600, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def _model_version_served_by(mlflow: str) -> str:
    answer = services.answers(f"{mlflow}/api/2.0/mlflow/model-versions/get?name=served&version=1")
    assert answer is not None
    return str(json.loads(answer)["model_version"]["status"])


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
