"""Flow ``train-gwm``: a preset and a dataset version become a model, with its curves in MLflow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from prefect import flow, task

from pipelines.progress import Progress, publish_table
from pipelines.retries import NOT_FOR_BAD_INPUT
from pipelines.runtime import EXPERIMENTS, load_settings
from tasks.catalog import open_dataset
from tasks.config import load_experiment
from tasks.errors import ConfigError
from tasks.registry import CHAMPION, find_alias, set_alias
from tasks.run_folder import TrainingProgress
from tasks.train import train

MODEL_NAME = re.compile(r"\w[\w .\-]*")
"""MLflow refuses slashes and colons, which its references (``models:/NAME/3``) are made of; quotes break its search."""


@flow(name="train-gwm")
def train_gwm(
    dataset: str,
    experiment: str = "debug",
    version: int | None = None,
    overrides: list[str] | None = None,
    register_as: str | None = None,
    training_id: str | None = None,
    initial_model: str | None = None,
    joint: list[str] | None = None,
    joint_versions: list[int] | None = None,
) -> dict[str, Any]:
    """Train a preset on a version of a dataset, and register the model when a name is given.

    dataset: URI. version: the newest when None. overrides: such as ``optimisation.num_steps=500``.
    training_id: continues what was begun under it; by default the same parameters continue the same training.
    initial_model: reference of the model whose weights to start from; from scratch when None.
    joint, joint_versions: further datasets to train on together with the first, and their versions, the newest when
    None. Where they were ingested over unlike gaps, override data.gaps_from=recipe.
    Returns ids, references and the last values of the curves.
    """
    pinned = pin_version(dataset, version)
    others = [(uri, pin_version(uri, wanted)) for uri, wanted in paired(joint or [], joint_versions)]
    result = run_training(experiment, overrides or [], dataset, pinned, initial_model, register_as, training_id, others)
    crown_the_first(register_as, result["registered"])
    publish_training(result)
    return result


@task
def pin_version(dataset: str, version: int | None) -> int:
    """Return the version to train on, so that a retry trains on the same one."""
    return open_dataset(dataset, version).version


def paired(datasets: list[str], versions: list[int] | None) -> list[tuple[str, int | None]]:
    """Pair datasets with their versions, all or none of which are given; raises ConfigError else."""
    if versions is not None and len(versions) != len(datasets):
        raise ConfigError(
            f"{len(versions)} versions for {len(datasets)} datasets: expected one for each, in the same order, or none"
        )
    wanted: Sequence[int | None] = versions if versions is not None else [None] * len(datasets)
    return list(zip(datasets, wanted, strict=True))


@task(retries=2, retry_delay_seconds=[5, 60], **NOT_FOR_BAD_INPUT)
def run_training(
    experiment: str,
    overrides: list[str],
    dataset: str,
    version: int,
    initial_model: str | None,
    register_as: str | None,
    training_id: str | None,
    joint: list[tuple[str, int]] | None = None,
) -> dict[str, Any]:
    """Train from the last checkpoint, or from the start, to the end; a retry continues."""
    config = load_experiment(experiment, EXPERIMENTS, overrides)
    require_model_name(register_as)
    with Progress(f"train {experiment}", key="train") as progress:
        result = train(
            config,
            dataset,
            version,
            load_settings(),
            joint=joint or [],
            training_id=training_id,
            initial_model=initial_model,
            register_as=register_as,
            on_progress=lambda now: progress(now.step, now.num_steps, _note(now)),
        )
    return {
        "training_id": result.training_id,
        "mlflow_run": result.run_id,
        "model": result.model_uri,
        "logged_model": result.logged_model,
        "registered": _reference(result.registered_as, result.registered_version),
        "dataset_version": result.dataset_version,
        "joint_datasets": "; ".join(result.joint_datasets),
        "steps": result.num_steps,
        "checkpoint": result.checkpoint,
        "resumed_from_step": result.resumed_from_step,
        "already_finished": result.already_finished,
        "metrics": result.metrics,
    }


def require_model_name(name: str | None) -> None:
    """Raise ConfigError for a name that MLflow's registry would refuse when hours of training are over."""
    if name is not None and not MODEL_NAME.fullmatch(name):
        raise ConfigError(f"model name {name!r}: expected letters, digits, spaces, dots, dashes and underscores")


@task(retries=2, retry_delay_seconds=[2, 10], **NOT_FOR_BAD_INPUT)
def crown_the_first(name: str | None, registered: str | None) -> None:
    """Make the first model of a name its champion, which retraining starts from; later ones have to beat it."""
    settings = load_settings()
    if name and registered and find_alias(settings, name=name, alias=CHAMPION) is None:
        set_alias(settings, name=name, alias=CHAMPION, version=int(registered.rpartition("/")[2]))


@task
def publish_training(result: dict[str, Any]) -> None:
    """Leave what came out as a table with the flow run."""
    rows = [{"what": key, "value": str(value)} for key, value in result.items() if key != "metrics"]
    rows += [{"what": key, "value": f"{value:.6g}"} for key, value in result["metrics"].items()]
    publish_table(rows, key="training", description=f"Training {result['training_id']}")


def _note(now: TrainingProgress) -> str:
    return now.note or f"loss {now.loss:.4f}, {now.steps_per_second:.2f} steps/s, {now.eta_seconds / 60:.1f} min left"


def _reference(name: str | None, version: int | None) -> str | None:
    return f"models:/{name}/{version}" if name else None
