"""What one training worker does, alone or among others; Ray is not needed here.

State is only what a checkpoint holds: weights, optimiser, step and the numbers of a started logging window. All else
(learning rate, samples, random numbers) is a pure function of the step, so a run continues from a checkpoint with the
same losses: bit for bit on one CPU worker with the same number of threads. On a GPU they agree to rounding, since some
backward kernels (bilinear upsampling, convolutions) add up in no fixed order.

BatchNorm: with several workers on CUDA its statistics are taken over the global batch (SyncBatchNorm). That has no CPU
kernel, so on CPU each worker normalises its own share and rank 0's running statistics are kept; give each worker as
many samples as the network needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import cv2
import torch
from torch import distributed as dist
from torch import nn

from model.methods import build_method
from model.methods.base import Method
from tasks.catalog import open_dataset
from tasks.checkpoint import Checkpoint, latest_checkpoint, read_checkpoint, restore_checkpoint, save_checkpoint
from tasks.clip_filter import training_clips
from tasks.code_version import code_version
from tasks.compilation import compile_networks, running_eagerly
from tasks.config import ExperimentConfig
from tasks.dataset import FrameReader
from tasks.devices import num_cpus
from tasks.held_out import training_part
from tasks.loader import TrainingLoader
from tasks.model_package import Provenance, save_model
from tasks.optimiser import build_optimiser
from tasks.recorder import Recorder
from tasks.run_folder import RunFolder, TrainingProgress
from tasks.settings import Settings
from tasks.snapshot import DatasetPin
from tasks.starting_weights import load_starting_weights
from tasks.storage import Location
from tasks.tracking import open_run
from tasks.train_step import SkipCounter, train_step
from tasks.training_pictures import training_picture


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Everything that a worker is told.

    attempt: a name for this start of the training; only the newest may write.
    run_uri: folder of the run. joint: datasets that are trained on together with the first.
    """

    training_id: str
    attempt: str
    run_uri: str
    experiment: ExperimentConfig
    dataset_uri: str
    dataset_version: int
    initial_model: str | None
    mlflow_run_id: str
    settings: Settings
    joint: tuple[DatasetPin, ...] = ()

    @property
    def datasets(self) -> tuple[DatasetPin, ...]:
        """All datasets that are trained on."""
        return (DatasetPin(uri=self.dataset_uri, version=self.dataset_version), *self.joint)

    @property
    def run(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(root=Location(uri=self.run_uri))

    @property
    def provenance(self) -> Provenance:
        """What a model of this job says about its origin; the step is added when it is saved."""
        return Provenance(
            training_id=self.training_id,
            dataset_uri=self.dataset_uri,
            dataset_version=self.dataset_version,
            joint_datasets=self.joint,
            initial_model=self.initial_model,
            mlflow_run_id=self.mlflow_run_id,
            code_version=code_version(),
        )


@dataclass(frozen=True, kw_only=True)
class WorkerPlace:
    """Which worker this is, and what it runs on."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    local_world_size: int = 1


ProgressCallback = Callable[[TrainingProgress], None]


def run_training(job: TrainingJob, place: WorkerPlace, on_progress: ProgressCallback | None = None) -> None:
    """Train from the newest checkpoint, or from the beginning, to the last step; rank 0 leaves a checkpoint of it."""
    _limit_threads(job.settings, place)
    config = job.experiment.optimisation
    checkpoint = _agreed_checkpoint(job, place)
    module = _build(job, place, begins=checkpoint is None)
    optimiser = build_optimiser(module, config)
    if checkpoint is not None:
        restore_checkpoint(checkpoint, method=module, optimiser=optimiser)
    start = checkpoint.step if checkpoint else 0
    if start >= config.num_steps:
        return
    snapshots = [open_dataset(pin.uri, pin.version) for pin in job.datasets]
    held_out = job.experiment.data.held_out_percent
    reader = FrameReader(
        *(training_clips(training_part(snapshot, held_out), job.experiment.data) for snapshot in snapshots)
    )
    loader = TrainingLoader(
        reader,
        cast(Method, module).prepare,
        job.experiment,
        rank=place.rank,
        world_size=place.world_size,
        num_threads=_loader_threads(place),
        pin_memory=place.device.type == "cuda",
    )
    recorder = _recorder(job, place, start, checkpoint, on_progress)
    skips = SkipCounter.from_json(checkpoint.state["skips"] if checkpoint else None)
    network = _distributed(module, place)
    for step, batch in loader.iterate(start, config.num_steps):
        outcome = train_step(network, batch, optimiser, config, step=step, rank=place.rank, device=place.device)
        skips.count(outcome, step)
        recorder.add(outcome, skips)
        if place.rank == 0:
            _keep(job, step + 1, module, optimiser, recorder, skips, reader)


def _keep(
    job: TrainingJob,
    done: int,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    recorder: Recorder,
    skips: SkipCounter,
    reader: FrameReader,
) -> None:
    """After ``done`` updates: pictures and a checkpoint when it is time, and then the curves that it covers."""
    recording, last = job.experiment.recording, done == job.experiment.optimisation.num_steps
    if done % recording.pictures_every_steps == 0 or last:
        data = job.experiment.data
        # the one that fits the shortest clip there is to train on
        gap = min(data.gaps, key=abs) if data.gaps_from == "experiment" else None
        with running_eagerly(compiled=job.experiment.optimisation.compile):
            picture = training_picture(module, reader, gap)
        recorder.log_picture(f"pictures/step-{done:06d}.png", picture)
    if done in job.experiment.candidate_steps:  # before the checkpoint, so that no checkpoint is ahead of it
        job.run.require_owner(job.attempt)
        provenance = job.provenance.model_copy(update={"step": done})
        save_model(job.run.candidate(done), module, experiment=job.experiment, provenance=provenance)
    if done % recording.checkpoint_every_steps == 0 or last:
        job.run.require_owner(job.attempt)
        save_checkpoint(
            job.run.checkpoints,
            step=done,
            method=module,
            optimiser=optimiser,
            state={**recorder.to_json(), "skips": skips.to_json()},
            experiment=job.experiment,
            provenance=job.provenance.model_copy(update={"step": done}),
            num_kept=recording.num_checkpoints_kept,
        )
        recorder.deliver()


def _build(job: TrainingJob, place: WorkerPlace, *, begins: bool) -> nn.Module:
    """Build the method; where training begins, with weights that depend on the seed and what it starts from only."""
    config = job.experiment.optimisation
    torch.manual_seed(config.seed)
    module = build_method(job.experiment.method)
    if begins:
        load_starting_weights(module, job.experiment.method, job.initial_model, job.settings)
    if config.channels_last:
        module = module.to(memory_format=torch.channels_last)
    if place.world_size > 1 and place.device.type == "cuda":
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    module = module.to(place.device).train()
    if config.compile:
        compile_networks(module, place.device)
    return module


def _distributed(module: nn.Module, place: WorkerPlace) -> nn.Module:
    if place.world_size == 1:
        return module
    devices = [place.device] if place.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(module, device_ids=devices)


def _agreed_checkpoint(job: TrainingJob, place: WorkerPlace) -> Checkpoint | None:
    """Return the newest checkpoint as rank 0 sees it, so that no two workers start at different steps."""
    newest = latest_checkpoint(job.run.checkpoints) if place.rank == 0 else None
    if place.world_size == 1:
        return newest
    step = torch.tensor([newest.step if newest else -1], device=place.device)
    dist.broadcast(step, src=0)
    return read_checkpoint(job.run.checkpoints, int(step)) if int(step) >= 0 else None


def _recorder(
    job: TrainingJob,
    place: WorkerPlace,
    start: int,
    checkpoint: Checkpoint | None,
    on_progress: ProgressCallback | None,
) -> Recorder:
    state: dict[str, Any] | None = checkpoint.state if checkpoint else None
    run = open_run(job.settings, job.mlflow_run_id) if place.rank == 0 else None
    recorder = Recorder(experiment=job.experiment, start_step=start, state=state, tracked=run, on_progress=on_progress)
    recorder.deliver()  # what the last attempt published but may not have sent
    return recorder


def _limit_threads(settings: Settings, place: WorkerPlace) -> None:
    available = num_cpus()
    torch.set_num_threads(settings.train_threads or max(1, available // place.local_world_size))
    cv2.setNumThreads(1)  # the loader's threads are its parallelism


def _loader_threads(place: WorkerPlace) -> int:
    """Two threads hide reading behind a CPU's steps; a GPU's are short, so it gets up to eight."""
    if place.device.type == "cpu":
        return 2
    return max(2, min(8, num_cpus() // place.local_world_size))
