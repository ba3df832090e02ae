"""Training on Ray Train workers: one on a laptop, many on a cluster, the same loop.

Checkpoints are ours (``tasks/checkpoint.py``), not Ray's: each worker looks for the newest one when it starts, so it
makes no difference whether a worker, a machine or the driver died before. Ray Train starts the workers, joins them in
a process group (gloo on CPU, NCCL on GPUs) and replaces them.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.train import FailureConfig, RunConfig, ScalingConfig

from tasks.errors import ConfigError, GwmError, StorageError, TrainingError
from tasks.run_folder import ProgressWatcher, RunFolder, TrainingProgress
from tasks.settings import Settings
from tasks.train_loop import ProgressCallback, TrainingJob, WorkerPlace, run_training

MAX_WORKER_FAILURES = 5
"""Restarts of the workers before training gives up; preemptions of machines are not counted (Ray Train's rule)."""

_PROGRESS_EVERY_SECONDS = 1.0


def train_worker(config: dict[str, Any]) -> None:
    """Run the training loop in a Ray Train worker; ``config["job"]`` is a TrainingJob.

    An error of ours would come again after a restart, so it is not passed to Ray Train: it lies in the run's folder
    for the driver. Alone, the worker then simply ends; among others it raises, so that those who wait for it are
    stopped, and after their restart all of them find the record and end.
    """
    job: TrainingJob = config["job"]
    if job.run.failure_of(job.attempt) is not None:
        return
    context = ray.train.get_context()
    place = WorkerPlace(
        device=ray.train.torch.get_device(),
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        local_world_size=context.get_local_world_size(),
    )
    try:
        run_training(job, place, ProgressWriter(job.run) if place.rank == 0 else None)
    except GwmError as error:
        job.run.record_failure(job.attempt, error)
        if place.world_size > 1:
            raise


class ProgressWriter:
    """Writes progress to the run's folder for the driver to read, at most once a second and at the end."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._written = float("-inf")

    def __call__(self, progress: TrainingProgress) -> None:
        """Write ``progress`` unless the last one is too recent."""
        now = time.monotonic()
        if now - self._written >= _PROGRESS_EVERY_SECONDS or progress.step == progress.num_steps:
            with suppress(StorageError):  # a store that does not answer costs a tick of the bar, no more
                self._run.write_progress(progress)
            self._written = now


def train_on_ray(job: TrainingJob, on_progress: ProgressCallback | None) -> None:
    """Train on the workers that the settings ask for; Ray must be running.

    Returns when they have ended, of success or of an error that is recorded in the run's folder. Raises TrainingError
    when they died too often, ConfigError when there is no room for them.
    """
    scaling = worker_scaling(job.settings, ray.cluster_resources())
    trainer = ray.train.torch.TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        scaling_config=scaling,
        run_config=RunConfig(
            # Ray's own bookkeeping; a new name each time, since what it remembers must not be mixed with ours.
            name=job.attempt,
            storage_filesystem=job.run.root.filesystem,
            storage_path=(job.run.root / "ray_train").path,
            failure_config=FailureConfig(max_failures=MAX_WORKER_FAILURES),
        ),
    )
    try:
        with ProgressWatcher(job.run, on_progress), _own_interrupt_handler():
            trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise TrainingError(
            f"the workers of training {job.training_id!r} failed {MAX_WORKER_FAILURES + 1} times, the last time with: "
            f"{_last_line(error)}. The checkpoints are kept: remove the cause and run the same command to continue"
        ) from error
    finally:
        (job.run.root / "ray_train" / job.attempt).delete()


def worker_scaling(settings: Settings, cluster: dict[str, float]) -> ScalingConfig:
    """Decide what the workers reserve: a GPU each where there are GPUs, else a CPU each.

    Raises ConfigError when the running Ray can not hold them, instead of waiting for ever.
    """
    gpus, cpus = int(cluster.get("GPU", 0)), int(cluster.get("CPU", 0))
    use_gpu = settings.device == "cuda" or (settings.device == "auto" and gpus > 0)
    wanted, unit, there = settings.train_workers, "GPUs" if use_gpu else "CPUs", gpus if use_gpu else cpus
    if wanted > there:
        raise ConfigError(
            f"{wanted} training workers need {wanted} {unit}, Ray has {there}: lower GWM_TRAIN_WORKERS to {there}, "
            "or set GWM_RAY_CPUS, GWM_DEVICE or GWM_RAY_ADDRESS"
        )
    return ScalingConfig(
        num_workers=wanted, use_gpu=use_gpu, resources_per_worker={"GPU": 1} if use_gpu else {"CPU": 1}
    )


@contextmanager
def _own_interrupt_handler() -> Iterator[None]:
    """Put back the handler of Ctrl-C that Ray Train replaces for good."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
