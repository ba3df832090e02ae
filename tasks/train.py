"""Train a model on one version of a dataset: find or begin the run, have it trained, and hand the model over.

Every stage looks for what an earlier attempt left and goes on from there, so the same call with the same arguments
continues a killed training and, once it is finished, returns its result.
"""

from __future__ import annotations

import hashlib
import math
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch

from tasks.candidates import publish_chosen
from tasks.catalog import open_dataset
from tasks.checkpoint import Checkpoint, latest_checkpoint
from tasks.checkpoint_choice import LAST_STEP
from tasks.cluster import ray_session
from tasks.code_version import code_version
from tasks.config import ExperimentConfig
from tasks.devices import own_device
from tasks.errors import ConfigError, StorageError, TrainingError
from tasks.model_package import read_description
from tasks.registry import log_model, register_model
from tasks.run_folder import RunFolder, TrainingProgress
from tasks.settings import Settings
from tasks.snapshot import DatasetPin
from tasks.storage import location, prove_writable
from tasks.tracking import Outbox, TrackedRun, find_or_create_run, flatten, open_run
from tasks.train_loop import ProgressCallback, TrainingJob, WorkerPlace, run_training
from tasks.train_workers import train_on_ray

_TRAINING_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}$")


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a finished training left behind.

    run_id: MLflow's run.
    model_uri: folder of the model's two files; evaluate and segment take it as a model reference.
    logged_model: the model in MLflow, ``runs:/<id>/model``.
    checkpoint, step: how the model's checkpoint was chosen, and after how many updates it was taken.
    metrics: of the last logging window, by the names of the curves.
    joint_datasets: what was trained on together with the dataset.
    registered_as, registered_version: in MLflow's model registry; None when it was not asked for.
    resumed_from_step: 0 when nothing was there before.
    already_finished: nothing was trained, an earlier call had done it all.
    """

    training_id: str
    run_id: str
    model_uri: str
    logged_model: str
    num_steps: int
    metrics: dict[str, float]
    dataset_uri: str
    dataset_version: int
    joint_datasets: list[str] = field(default_factory=list)
    registered_as: str | None = None
    registered_version: int | None = None
    resumed_from_step: int = 0
    already_finished: bool = False
    checkpoint: str = LAST_STEP
    step: int | None = None


def train(
    experiment: ExperimentConfig,
    dataset_uri: str,
    version: int | None,
    settings: Settings,
    *,
    joint: Sequence[tuple[str, int | None]] = (),
    training_id: str | None = None,
    initial_model: str | None = None,
    register_as: str | None = None,
    on_progress: ProgressCallback | None = None,
) -> TrainingResult:
    """Train ``experiment`` on a version of a dataset (the newest for None), continuing whatever was begun.

    joint: further datasets and versions to train on together with the first (``tasks/sampling.py``).
    training_id: names the run; by default made of the experiment, the datasets' versions and the initial model, so
        that the same call continues after a kill. initial_model: reference of a model whose weights to start from.
    register_as: name in MLflow's registry. on_progress: called about once a second.

    Raises DatasetError, ConfigError, StorageError, ModelNotFoundError before anything is trained; TrainingError when
    training diverges or its workers die too often.
    """
    snapshot = open_dataset(dataset_uri, version)
    pins = _pinned(snapshot.pin, joint)
    name = training_id or default_training_id(experiment, snapshot.uri, snapshot.version, initial_model, pins)
    run = RunFolder(root=location(settings.runs_root) / _require_training_id(name))
    prove_writable(run.root)
    run.agree(_terms(experiment, snapshot.pin, pins, initial_model))
    finished = run.read("result")
    if finished is not None:
        return _registered(TrainingResult(**{**finished, "already_finished": True}), run, settings, register_as)
    tracked = find_or_create_run(
        settings,
        name,
        tags=_tags(experiment, snapshot.pin, pins, initial_model),
        params=flatten(experiment.model_dump(mode="json")),
    )
    job = TrainingJob(
        training_id=name,
        attempt=uuid.uuid4().hex,
        run_uri=run.root.uri,
        experiment=experiment,
        dataset_uri=snapshot.uri,
        dataset_version=snapshot.version,
        initial_model=initial_model,
        mlflow_run_id=tracked.run_id,
        settings=settings,
        joint=pins,
    )
    with _status_of(tracked):
        tracked.log_json("experiment.json", experiment.model_dump(mode="json"))
        result = _train_and_hand_over(job, tracked, on_progress)
        return _registered(result, run, settings, register_as)


def _terms(
    experiment: ExperimentConfig, pin: DatasetPin, joint: Sequence[DatasetPin], initial_model: str | None
) -> dict[str, Any]:
    """Return all that decides the outcome: a training goes on under its id only where nothing of it has changed."""
    return {
        "experiment": experiment.model_dump(mode="json"),
        "dataset_uri": pin.uri,
        "dataset_version": pin.version,
        "initial_model": initial_model,
        **({"joint_datasets": [asdict(each) for each in joint]} if joint else {}),
    }


def default_training_id(
    experiment: ExperimentConfig,
    dataset_uri: str,
    dataset_version: int,
    initial_model: str | None = None,
    joint: Sequence[DatasetPin] = (),
) -> str:
    """Return the experiment's name, a digest of all that decides the outcome, and the dataset's version."""
    others = "".join(f" {pin}" for pin in joint)
    what = f"{experiment.fingerprint()} {dataset_uri} {dataset_version} {initial_model}{others}"
    return f"{experiment.name}-v{dataset_version}-{hashlib.sha256(what.encode()).hexdigest()[:12]}"


def _pinned(first: DatasetPin, joint: Sequence[tuple[str, int | None]]) -> tuple[DatasetPin, ...]:
    """Pin the versions of the other datasets; raise ConfigError when one is named twice."""
    pins = tuple(open_dataset(uri, version).pin for uri, version in joint)
    uris = [pin.uri for pin in (first, *pins)]
    twice = sorted({uri for uri in uris if uris.count(uri) > 1})
    if twice:
        raise ConfigError(f"dataset {', '.join(twice)} is named twice: expected each dataset once, in one version")
    return pins


def _train_and_hand_over(job: TrainingJob, tracked: TrackedRun, on_progress: ProgressCallback | None) -> TrainingResult:
    job.run.claim(job.attempt)
    before = latest_checkpoint(job.run.checkpoints)
    num_steps = job.experiment.optimisation.num_steps
    if before is None or before.step < num_steps:
        _launch(job, on_progress)
    last = _last_checkpoint(job)
    chosen = publish_chosen(
        job.run,
        last.folder,
        job.experiment,
        job.datasets,
        device=own_device(job.settings),
        on_scored=None if on_progress is None else partial(_tell_scored, on_progress, last),
    )
    tracked.send([*Outbox.from_json(last.state["outbox"]).points, *chosen.points])  # again, in case the worker failed
    tracked.set_tags({"gwm.checkpoint": chosen.checkpoint, "gwm.step": chosen.step})
    logged_model = log_model(tracked, job.run.model)
    tracked.set_tags({"gwm.weights_sha256": read_description(job.run.model)["weights_sha256"]})
    result = TrainingResult(
        training_id=job.training_id,
        run_id=tracked.run_id,
        model_uri=job.run.model.uri,
        logged_model=logged_model,
        num_steps=num_steps,
        metrics=last.state["latest"],
        dataset_uri=job.dataset_uri,
        dataset_version=job.dataset_version,
        joint_datasets=[str(pin) for pin in job.joint],
        resumed_from_step=before.step if before else 0,
        checkpoint=chosen.checkpoint,
        step=chosen.step,
    )
    job.run.write("result", vars(result))
    return result


def _launch(job: TrainingJob, on_progress: ProgressCallback | None) -> None:
    """Run the loop where the settings say: 0 workers means in this process, without Ray."""
    if job.settings.train_workers == 0:
        run_training(job, WorkerPlace(device=torch.device(own_device(job.settings))), on_progress)
        return
    with ray_session(job.settings):
        train_on_ray(job, on_progress)


def _last_checkpoint(job: TrainingJob) -> Checkpoint:
    failure = job.run.failure_of(job.attempt)
    if failure is not None:
        raise failure
    last = latest_checkpoint(job.run.checkpoints)
    num_steps = job.experiment.optimisation.num_steps
    if last is None or last.step < num_steps:
        raise TrainingError(
            f"training {job.training_id!r} stopped after {last.step if last else 0} of {num_steps} steps; "
            "run the same command to continue"
        )
    return last


def _tell_scored(on_progress: ProgressCallback, last: Checkpoint, num_scored: int, num_candidates: int) -> None:
    note = f"{num_scored} of {num_candidates} checkpoints compared on held-out frames"
    loss = last.state["latest"].get("train/loss", math.nan)
    on_progress(
        TrainingProgress(
            step=last.step, num_steps=last.step, loss=loss, steps_per_second=0.0, eta_seconds=0.0, note=note
        )
    )


def _registered(result: TrainingResult, run: RunFolder, settings: Settings, register_as: str | None) -> TrainingResult:
    """Register the model under ``register_as`` unless that was done before."""
    if register_as is None or result.registered_as == register_as:
        return result
    model = register_model(settings, name=register_as, run_id=result.run_id)
    open_run(settings, result.run_id).set_tags({"gwm.registered_as": model.reference})
    found = {**vars(result), "registered_as": model.name, "registered_version": model.version}
    run.write("result", {**found, "already_finished": False})
    return TrainingResult(**found)


@contextmanager
def _status_of(tracked: TrackedRun) -> Iterator[None]:
    """Give the MLflow run the status that the block ends with; one that is killed stays RUNNING until continued."""
    try:
        yield
    except BaseException as error:  # passed on, only the status is taken from it
        with suppress(StorageError):  # the error that ended the training is the one to hear of
            tracked.set_tags({"gwm.error": f"{type(error).__name__}: {error}"[:500]})
            tracked.set_status("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    tracked.set_status("FINISHED")


def _tags(
    experiment: ExperimentConfig, dataset: DatasetPin, joint: Sequence[DatasetPin], initial_model: str | None
) -> Mapping[str, object]:
    return {
        "gwm.experiment": experiment.name,
        "gwm.fingerprint": experiment.fingerprint(),
        "gwm.dataset_uri": dataset.uri,
        "gwm.dataset_version": dataset.version,
        **({"gwm.joint_datasets": "; ".join(map(str, joint))} if joint else {}),
        "gwm.initial_model": initial_model,
        "gwm.code_version": code_version(),
        "mlflow.note.content": f"{experiment.name} on {' and '.join(map(str, (dataset, *joint)))}",
    }


def _require_training_id(name: str) -> str:
    if not _TRAINING_ID.match(name):
        raise ConfigError(f"training id {name!r}: expected letters, digits, '_', '-' and '.', 128 at most")
    return name
