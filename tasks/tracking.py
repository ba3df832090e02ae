"""MLflow: one run per training, and every point of a curve in it exactly once.

A training may be killed and continued any number of times, so its run is found again by the tag ``gwm.training_id``,
and curves go through an outbox: points are collected, stored with the checkpoint they belong to, and only then sent.
What was sent but not known to be sent is sent again, the same to the millisecond, which MLflow ignores; what was
computed after the last checkpoint was never sent, and is computed again.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from tasks.errors import ConfigError, StorageError
from tasks.pictures import Picture
from tasks.settings import Settings

TRAINING_ID_TAG = "gwm.training_id"
_BATCH_LIMIT = 1000  # metrics in a request (MLflow REST API, log-batch)
_PARAMS_LIMIT = 100  # params in a request (the same page)
_CONNECT_SECONDS = 5.0
_NOISY_LOGGERS = ("alembic", "mlflow.store.db.utils", "mlflow.store.model_registry", "mlflow.tracking", "mlflow.models")

RunStatus = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MetricPoint:
    """One point of a curve; ``timestamp_ms`` is part of its identity in MLflow."""

    key: str
    value: float
    step: int
    timestamp_ms: int


class TrackedRun:
    """An MLflow run that one process writes to. Nothing global is touched: no active run, no tracking URI."""

    def __init__(self, client: Any, run_id: str) -> None:
        self._client = client
        self.run_id = run_id

    def send(self, points: Sequence[MetricPoint]) -> None:
        """Send points of curves; sending one again changes nothing. Raises StorageError."""
        from mlflow.entities import Metric  # local: see mlflow_client

        rows = [Metric(point.key, point.value, point.timestamp_ms, point.step) for point in points]
        with mlflow_errors("log metrics"):
            for start in range(0, len(rows), _BATCH_LIMIT):
                self._client.log_batch(self.run_id, metrics=rows[start : start + _BATCH_LIMIT])

    def log_picture(self, name: str, picture: Picture) -> None:
        """Store a picture as artifact ``name`` (a path ending in .png), replacing an earlier one."""
        with mlflow_errors(f"store {name}"):
            self._client.log_image(self.run_id, picture, artifact_file=name)

    def log_json(self, name: str, value: Any) -> None:
        """Store a value as JSON artifact ``name``."""
        with mlflow_errors(f"store {name}"):
            self._client.log_text(self.run_id, json.dumps(value, indent=2), name)

    def log_folder(self, folder: Path, name: str) -> None:
        """Store a folder's files under artifact path ``name``."""
        with mlflow_errors(f"store {name}"):
            self._client.log_artifacts(self.run_id, str(folder), name)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags, replacing earlier values; None is left out."""
        with mlflow_errors("set tags"):
            for key, value in tags.items():
                if value is not None:
                    self._client.set_tag(self.run_id, key, str(value))

    def tags(self) -> dict[str, str]:
        """Return the run's tags."""
        with mlflow_errors("read tags"):
            return dict(self._client.get_run(self.run_id).data.tags)

    def set_status(self, status: RunStatus) -> None:
        """Set the run's status; all but RUNNING end it."""
        with mlflow_errors("set the status"):
            if status == "RUNNING":
                self._client.update_run(self.run_id, status=status)
            else:
                self._client.set_terminated(self.run_id, status=status)


@dataclass(kw_only=True)
class Outbox:
    """Points of curves that are not yet known to have arrived."""

    points: list[MetricPoint] = field(default_factory=list)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Put one point per value into the outbox, all at the same time."""
        now_ms = time.time_ns() // 1_000_000
        self.points += [
            MetricPoint(key=key, value=value, step=step, timestamp_ms=now_ms) for key, value in values.items()
        ]

    def deliver(self, run: TrackedRun) -> bool:
        """Send all points and empty the outbox; on failure keep them for the next time, log why, return False."""
        try:
            run.send(self.points)
        except StorageError as error:
            logger.warning("curves stay in the checkpoint until MLflow answers: %s", error)
            return False
        self.points.clear()
        return True

    def to_json(self) -> list[list[Any]]:
        """Return plain values for the checkpoint."""
        return [[point.key, point.value, point.step, point.timestamp_ms] for point in self.points]

    @classmethod
    def from_json(cls, rows: Sequence[Sequence[Any]]) -> Outbox:
        """Restore what ``to_json`` returned."""
        return cls(points=[MetricPoint(key=k, value=v, step=s, timestamp_ms=t) for k, v, s, t in rows])


def open_run(settings: Settings, run_id: str) -> TrackedRun:
    """Return a handle on a run that exists."""
    return TrackedRun(mlflow_client(settings), run_id)


def find_run(settings: Settings, run_id: str) -> TrackedRun | None:
    """Return a handle on a run; None where MLflow does not know it, as with a model that was trained elsewhere.

    Raises StorageError when MLflow can not be reached.
    """
    from mlflow.exceptions import MlflowException  # local: see mlflow_client

    client = mlflow_client(settings)
    with mlflow_errors(f"find run {run_id}"):
        try:
            client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
    return TrackedRun(client, run_id)


def find_or_create_run(
    settings: Settings, training_id: str, *, tags: Mapping[str, object], params: Mapping[str, object]
) -> TrackedRun:
    """Return the one run of ``training_id``, started anew or again, with its tags and parameters set.

    Raises StorageError when MLflow can not be reached.
    """
    client = mlflow_client(settings)
    with mlflow_errors("find or create the run"):
        experiment_id = _experiment_id(client, settings)
        query = f"tags.`{TRAINING_ID_TAG}` = '{training_id}'"
        found = client.search_runs([experiment_id], query, order_by=["attributes.start_time ASC"], max_results=1)
        run = found[0] if found else client.create_run(experiment_id, run_name=training_id)
    tracked = TrackedRun(client, run.info.run_id)
    tracked.set_tags({TRAINING_ID_TAG: training_id, **tags})
    tracked.set_status("RUNNING")
    _log_params(client, tracked.run_id, params)
    return tracked


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Return nested mappings as one level, keys joined by dots."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def mlflow_client(settings: Settings) -> Any:
    """Return an MLflow client of the configured store; the embedded one is created on first use.

    MLflow is imported here and not above because that takes a second, which ``gwm --help`` should not.
    """
    silence_mlflow()
    require_reachable(settings.tracking_uri)
    import mlflow

    with mlflow_errors(f"reach MLflow at {settings.tracking_uri}"):
        return mlflow.MlflowClient(tracking_uri=settings.tracking_uri, registry_uri=settings.tracking_uri)


def require_reachable(tracking_uri: str) -> None:
    """Raise StorageError at once where MLflow's own client would try for minutes: a dead server, a missing folder."""
    parts = urlsplit(tracking_uri)
    if parts.scheme in ("http", "https") and parts.hostname:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            socket.create_connection((parts.hostname, port), timeout=_CONNECT_SECONDS).close()
        except OSError as error:
            raise StorageError(
                f"no MLflow server at {parts.hostname}:{port} ({error}): start it with `gwm up`, or unset "
                "GWM_MLFLOW_TRACKING_URI to use the embedded store"
            ) from error
    if parts.scheme == "sqlite" and not Path(parts.path.removeprefix("/")).parent.is_dir():
        raise StorageError(f"{tracking_uri}: the folder does not exist; make it, or set GWM_MLFLOW_TRACKING_URI")


def silence_mlflow() -> None:
    """Keep warnings and errors of MLflow and of its database migrations, but not their running commentary."""
    import mlflow.utils.logging_utils  # noqa: F401 - importing it sets the levels that are overridden here

    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)  # warns where uv installs without pip
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # its bars would break ours


def _experiment_id(client: Any, settings: Settings) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(settings.mlflow_experiment)
    if experiment is None:
        try:
            return str(client.create_experiment(settings.mlflow_experiment, settings.artifact_root))
        except MlflowException as error:  # another process was faster
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(settings.mlflow_experiment)
    if experiment.lifecycle_stage != "active":
        raise ConfigError(
            f"MLflow experiment {settings.mlflow_experiment!r} is deleted: restore it with `mlflow experiments "
            f"restore -x {experiment.experiment_id}`, or set GWM_MLFLOW_EXPERIMENT to another name"
        )
    return str(experiment.experiment_id)


def _log_params(client: Any, run_id: str, params: Mapping[str, object]) -> None:
    from mlflow.entities import Param

    rows = [Param(key, str(value)) for key, value in params.items()]
    with mlflow_errors("log parameters"):
        for start in range(0, len(rows), _PARAMS_LIMIT):
            client.log_batch(run_id, params=rows[start : start + _PARAMS_LIMIT])


@contextmanager
def mlflow_errors(action: str) -> Iterator[None]:
    """Turn MLflow's errors inside the block into StorageError: "MLflow could not <action>: ..."."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise StorageError(
            f"MLflow could not {action}: {first_line}; is GWM_MLFLOW_TRACKING_URI right, and the server up?"
        ) from error
