"""Saved models that cost nothing to make."""

from __future__ import annotations

from pathlib import Path

from model.methods import build_method
from tasks.config import resolve_experiment
from tasks.model_package import Provenance, save_model
from tasks.storage import location


def saved_model(folder: Path, run_id: str | None = None) -> str:
    """A tiny untrained network: its scores mean nothing, but they are the same every time."""
    method = {"base_channels": 2, "image_size": [32, 48], "flow_size": [32, 48]}
    experiment = resolve_experiment({"name": "tiny", "method": method})
    provenance = Provenance(step=30, mlflow_run_id=run_id)
    save_model(location(folder), build_method(experiment.method).eval(), experiment=experiment, provenance=provenance)
    return str(folder)
