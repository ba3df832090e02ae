"""Where things run: the machine, the cluster, the stores. What is computed is in ``tasks/config.py``.

Every field is an environment variable with the prefix ``GWM_``; nothing else of the environment is read. Moving from
a laptop to a cluster means setting ``GWM_RAY_ADDRESS``, ``GWM_MLFLOW_TRACKING_URI`` and ``GWM_RUNS_URI``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from tasks.decode_limits import DecodeLimits


class Settings(BaseSettings):
    """Settings of one process, read from the environment when constructed."""

    model_config = SettingsConfigDict(
        env_prefix="GWM_", frozen=True, extra="forbid", env_nested_delimiter="_", env_nested_max_split=1
    )

    home: Path = Field(
        default=Path("~/.gwm"),
        description="Folder for what has no other place: database, runs, caches.",
    )
    ray_address: str | None = Field(
        default=None, description="Address of a Ray cluster; unset starts a local Ray for the length of the command."
    )
    ray_cpus: int | None = Field(default=None, ge=1, description="CPUs of the local Ray; unset takes the machine's.")
    ray_object_store_mb: int = Field(default=256, ge=80, description="Object store of the local Ray, in MB.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where networks run; auto takes a GPU when there is one."
    )
    mlflow_tracking_uri: str | None = Field(
        default=None, description="MLflow's tracking URI; unset uses SQLite under the home folder."
    )
    mlflow_experiment: str = Field(default="gwm", description="MLflow experiment that runs are filed under.")
    mlflow_artifacts_uri: str | None = Field(
        default=None,
        description="URI under which the embedded MLflow keeps models and pictures; unset: under the home folder.",
    )
    runs_uri: str | None = Field(
        default=None,
        description="URI under which checkpoints are written; unset: under the home folder.",
    )
    train_workers: int = Field(
        default=1, ge=0, description="Ray Train workers; 0 trains inside the calling process, for tests and debugging."
    )
    train_threads: int | None = Field(
        default=None, ge=1, description="CPU threads of a training worker; unset divides the machine's among workers."
    )
    ingest_actors: int | None = Field(
        default=None,
        ge=0,
        description="Ray actors that decode and compute flow; unset takes one per CPU or GPU, 0 works in the calling "
        "process, for tests and debugging.",
    )
    decode: DecodeLimits = Field(
        default=DecodeLimits(), description="Limits on untrusted footage, each its own variable GWM_DECODE_<FIELD>."
    )
    weights_dir: Path | None = Field(
        default=None, description="Cache of downloaded weights; unset: under the home folder."
    )

    @property
    def home_path(self) -> Path:
        """The home folder with ``~`` resolved, created when missing."""
        path = self.home.expanduser().resolve()
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking URI, embedded SQLite unless set."""
        return self.mlflow_tracking_uri or f"sqlite:///{self.home_path / 'mlflow.db'}"

    @property
    def artifact_root(self) -> str | None:
        """Where the embedded MLflow puts artifacts; None leaves it to the MLflow server."""
        if self.mlflow_tracking_uri:
            return None
        return self.mlflow_artifacts_uri or (self.home_path / "mlflow_artifacts").as_uri()

    @property
    def runs_root(self) -> str:
        """Where training runs keep their checkpoints."""
        return self.runs_uri or str(self.home_path / "runs")

    @property
    def weights_path(self) -> Path:
        """Folder of cached weights."""
        return (self.weights_dir or self.home_path / "weights").expanduser()
