"""What evaluations of videos and of still images share: the model's description, the pool of actors, the log."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tasks.checkpoint_choice import IMPORTED, LAST_STEP
from tasks.cluster import ray_session, resources
from tasks.errors import GwmError
from tasks.model_package import read_description
from tasks.pool import PoolResult, Worker, run_pool
from tasks.scores import EvaluatedModel
from tasks.settings import Settings
from tasks.storage import Location, location
from tasks.tracking import MetricPoint, find_run


class Scorable(Protocol):
    """One thing that is scored by itself: a sequence, an image."""

    @property
    def name(self) -> str:
        """Its name, unique in the benchmark."""
        ...


class Loggable(Protocol):
    """What can be logged of an evaluation."""

    def write(self, *, json_file: Location | None = None, html_file: Location | None = None) -> None:
        """Write the report as JSON, as a page, or both."""
        ...


Item = TypeVar("Item", bound=Scorable)


def describe_model(model_uri: str, reference: str | None) -> EvaluatedModel:
    """Return what reports say of the model in a folder; ``reference``: how the user named it, None for its address.

    Raises ModelNotFoundError when there is none.
    """
    place = location(model_uri)
    description = read_description(place)
    experiment, provenance = description["experiment"], description["provenance"]
    return EvaluatedModel(
        reference=reference or place.uri,
        weights_sha256=description["weights_sha256"],
        experiment=experiment["name"],
        num_segments=experiment["method"]["num_segments"],
        step=provenance["step"],
        training_id=provenance["training_id"],
        dataset_uri=provenance["dataset_uri"],
        dataset_version=provenance["dataset_version"],
        joint_datasets=tuple(f"{pin['uri']} version {pin['version']}" for pin in provenance.get("joint_datasets", ())),
        mlflow_run_id=provenance["mlflow_run_id"],
        # unset in what an earlier release trained, which always took the last step, and in what came from elsewhere
        checkpoint=provenance.get("checkpoint") or (IMPORTED if provenance["step"] is None else LAST_STEP),
    )


def score_on_ray(
    worker_class: Callable[..., Worker],
    job: Any,
    items: Sequence[Item],
    settings: Settings,
    *,
    parallel: int,
    collect: Callable[[str, Any], None],
) -> None:
    """Have ``worker_class(job)`` score every item in up to ``parallel`` Ray actors; ``collect`` takes name and result.

    job: a dataclass with a ``device``, which is set to the actors'. Raises GwmError when an item can not be scored.
    """

    def on_result(result: PoolResult[Item]) -> None:
        if result.status == "raised" and isinstance(result.error, GwmError):
            raise result.error
        if result.status != "done":
            raise GwmError(
                f"{result.item.name} could not be scored after {result.attempts} attempts: {result.error}"
            ) from result.error
        collect(result.item.name, result.value)

    with ray_session(settings):
        shares = resources(settings)
        shares = replace(shares, num_actors=min(parallel, len(items)))
        run_pool(worker_class, (replace(job, device=shares.device),), items, resources=shares, on_result=on_result)


def log_scores(
    evaluation: Loggable, model: EvaluatedModel, benchmark: str, metrics: Mapping[str, float], settings: Settings
) -> str | None:
    """Log the averages, the JSON and the page to the MLflow run that trained the model; return the run's id.

    Returns None for a model that no run is known of: it has none, or was trained with another MLflow.
    """
    run = find_run(settings, model.mlflow_run_id) if model.mlflow_run_id else None
    if run is None:
        return None
    step, now = model.step or 0, time.time_ns() // 1_000_000
    run.send([MetricPoint(key=key, value=value, step=step, timestamp_ms=now) for key, value in metrics.items()])
    with tempfile.TemporaryDirectory(prefix="gwm_evaluation_") as folder:
        place = location(folder)
        evaluation.write(json_file=place / "scores.json", html_file=place / "report.html")
        run.log_folder(Path(folder), f"evaluation/{benchmark}")
    return run.run_id
