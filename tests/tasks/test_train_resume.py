"""Training on Ray Train: killed twice and still the same, and shared by two workers.

Truth is the same training unbroken in this process. Starting Ray Train workers takes ten seconds and more, so one
training is killed in every way: first its driver, then, once it is started again, its worker.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray

from tasks.checkpoint import latest_checkpoint, list_checkpoint_steps
from tasks.errors import ConfigError, DatasetError
from tasks.run_folder import RunFolder
from tasks.settings import Settings
from tasks.storage import location
from tasks.tracking import mlflow_client
from tasks.train import train
from tasks.train_workers import worker_scaling
from tests.tasks.test_train import curves, weights
from tests.tasks.training_data import kill_experiment, local_settings, tiny_experiment, write_dataset

ROOT = Path(__file__).resolve().parents[2]


def wait_for(condition: Callable[[], bool], *, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened for too long"
        time.sleep(0.02)


def steps_done(run: RunFolder) -> int:
    steps = list_checkpoint_steps(run.checkpoints)
    return steps[-1] if steps else 0


def run_in(settings: Settings, training_id: str) -> RunFolder:
    return RunFolder(root=location(settings.runs_root) / training_id)


def kill_driver_after_a_checkpoint(settings: Settings, dataset: str, run: RunFolder) -> None:
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-m", "tests.tasks.train_driver", str(settings.home), dataset, run.root.name, address]
    driver = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        wait_for(lambda: steps_done(run) >= 10 or driver.poll() is not None)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert driver.returncode == -signal.SIGKILL, "the driver ended by itself"
    worker = run.read_progress()
    assert worker is not None
    wait_for(lambda: not Path(f"/proc/{worker.worker_pid}").exists())  # Ray ends the workers of a dead driver


def kill_worker_after_a_checkpoint(run: RunFolder, started_at: int) -> int:
    """Kill rank 0 once it has gone beyond ``started_at``; return the step of the last checkpoint then."""
    before = run.read_progress()
    wait_for(lambda: steps_done(run) >= started_at + 20 and run.read_progress() != before)
    progress = run.read_progress()
    assert progress is not None
    os.kill(progress.worker_pid, signal.SIGKILL)
    return steps_done(run)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killing_driver_and_worker_changes_nothing(ray_cluster: None, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset")
    unbroken_settings = local_settings(tmp_path / "unbroken")
    unbroken = train(kill_experiment(), dataset, None, unbroken_settings, training_id="killed")

    settings = local_settings(tmp_path / "killed", workers=1)
    run = run_in(settings, "killed")
    kill_driver_after_a_checkpoint(settings, dataset, run)
    after_driver = steps_done(run)
    assert 10 <= after_driver < 280
    with ThreadPoolExecutor(1) as pool:
        killed_at = pool.submit(kill_worker_after_a_checkpoint, run, after_driver)
        result = train(kill_experiment(), dataset, None, settings, training_id="killed")
    assert after_driver + 20 <= killed_at.result() < 300

    assert result.resumed_from_step == after_driver
    assert result.metrics == unbroken.metrics
    assert weights(run) == weights(run_in(unbroken_settings, "killed"))
    found = curves(settings, result.run_id)
    assert found == curves(unbroken_settings, unbroken.run_id)
    assert [step for step, _ in found["train/loss"]] == list(range(2, 301, 2))
    client = mlflow_client(settings)
    experiment_id = client.get_experiment_by_name("gwm").experiment_id
    assert [info.info.status for info in client.search_runs([experiment_id])] == ["FINISHED"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_workers_train_together_and_fail_together(ray_cluster: None, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset")
    settings = local_settings(tmp_path / "home", workers=2)
    steps: list[int] = []
    result = train(
        tiny_experiment(num_steps=20),
        dataset,
        None,
        settings,
        training_id="pair",
        on_progress=lambda progress: steps.append(progress.step),
    )
    assert all(math.isfinite(value) for value in result.metrics.values())
    found = curves(settings, result.run_id)
    assert [step for step, _ in found["train/loss"]] == list(range(2, 21, 2))
    assert steps[-1] == 20
    # The first loss comes before any update, on the same global batch: only BatchNorm's share of it differs.
    alone = train(tiny_experiment(num_steps=20), dataset, None, local_settings(tmp_path / "alone"), training_id="alone")
    first = curves(local_settings(tmp_path / "alone"), alone.run_id)["train/loss"][0][1]
    assert found["train/loss"][0][1] == pytest.approx(first, rel=0.2)

    # An error of ours ends the training with its own name, not after five restarts.
    for file in (tmp_path / "dataset" / "frames").glob("*.parquet"):
        file.unlink()
    with pytest.raises(DatasetError, match="can not be read"):
        train(tiny_experiment(num_steps=21), dataset, None, settings, training_id="lost")
    assert latest_checkpoint(run_in(settings, "lost").checkpoints) is None


def test_workers_that_ray_has_no_room_for_are_refused(tmp_path: Path) -> None:
    settings = local_settings(tmp_path, workers=3)
    with pytest.raises(ConfigError, match="3 training workers need 3 CPUs, Ray has 2: lower GWM_TRAIN_WORKERS to 2"):
        worker_scaling(settings, {"CPU": 2.0, "GPU": 4.0})
    on_gpus = settings.model_copy(update={"device": "auto"})
    scaling = worker_scaling(on_gpus, {"CPU": 2.0, "GPU": 4.0})
    assert (scaling.num_workers, scaling.use_gpu, scaling.resources_per_worker) == (3, True, {"GPU": 1.0})
    with pytest.raises(ConfigError, match="need 3 GPUs, Ray has 0"):
        worker_scaling(settings.model_copy(update={"device": "cuda"}), {"CPU": 8.0})
    assert not worker_scaling(on_gpus, {"CPU": 8.0}).use_gpu
