"""Checkpoints of a training run: everything that the next step depends on, published as a whole or not at all.

::

    <run>/checkpoints/step-000500/
        model.safetensors, model.json    a usable model in itself (tasks/model_package.py)
        optimiser.pt                     AdamW's moments, read back with weights_only
        checkpoint.json                  step, hashes of the above, the run's state; written LAST

A folder without ``checkpoint.json`` does not exist for anybody. Old checkpoints lose that file first.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from model.weights import fit_state_dict
from tasks.config import ExperimentConfig
from tasks.errors import StorageError
from tasks.model_package import WEIGHTS_FILE, Provenance, save_model, unpack_weights
from tasks.storage import Location

OPTIMISER_FILE = "optimiser.pt"
MANIFEST_FILE = "checkpoint.json"
_STEP_FOLDER = re.compile(r"^step-(\d{6,})$")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint.

    step: number of finished updates.
    state: what the training loop wanted kept, plain JSON values.
    sha256: of the files that are restored, by name.
    """

    folder: Location
    step: int
    state: dict[str, Any]
    sha256: dict[str, str]


def step_folder(checkpoints: Location, step: int) -> Location:
    """Return the folder of the checkpoint after ``step`` updates."""
    return checkpoints / f"step-{step:06d}"


def save_checkpoint(
    checkpoints: Location,
    *,
    step: int,
    method: nn.Module,
    optimiser: torch.optim.Optimizer,
    state: Mapping[str, Any],
    experiment: ExperimentConfig,
    provenance: Provenance,
    num_kept: int,
) -> Checkpoint:
    """Write the checkpoint after ``step`` updates, publish it, then delete all but the newest ``num_kept``.

    Raises WeightsError when a weight is not finite, and leaves the earlier checkpoints as they are.
    """
    folder = step_folder(checkpoints, step)
    digests = {WEIGHTS_FILE: save_model(folder, method, experiment=experiment, provenance=provenance)}
    buffer = io.BytesIO()
    torch.save(optimiser.state_dict(), buffer)
    (folder / OPTIMISER_FILE).write_bytes(buffer.getvalue())
    digests[OPTIMISER_FILE] = hashlib.sha256(buffer.getvalue()).hexdigest()
    manifest = {"step": step, "sha256": digests, "state": dict(state)}
    (folder / MANIFEST_FILE).write_bytes(json.dumps(manifest, allow_nan=False).encode())
    for old in list_checkpoint_steps(checkpoints)[:-num_kept]:
        delete_checkpoint(checkpoints, old)
    return Checkpoint(folder=folder, step=step, state=dict(state), sha256=digests)


def list_checkpoint_steps(checkpoints: Location) -> list[int]:
    """Return the steps of all complete checkpoints, ascending."""
    found = (_STEP_FOLDER.match(entry.name) for entry in checkpoints.list_folders())
    steps = sorted(int(match.group(1)) for match in found if match)
    return [step for step in steps if (step_folder(checkpoints, step) / MANIFEST_FILE).exists()]


def latest_checkpoint(checkpoints: Location) -> Checkpoint | None:
    """Return the newest complete checkpoint, None when there is none."""
    steps = list_checkpoint_steps(checkpoints)
    return read_checkpoint(checkpoints, steps[-1]) if steps else None


def read_checkpoint(checkpoints: Location, step: int) -> Checkpoint:
    """Read what ``checkpoint.json`` of one step says."""
    folder = step_folder(checkpoints, step)
    manifest = json.loads((folder / MANIFEST_FILE).read_bytes())
    return Checkpoint(folder=folder, step=manifest["step"], state=manifest["state"], sha256=manifest["sha256"])


def restore_checkpoint(checkpoint: Checkpoint, *, method: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Put weights and optimiser back, bit for bit.

    Raises StorageError when a file is not the one that was written, WeightsError when it does not fit the method.
    """
    weights = _verified(checkpoint, WEIGHTS_FILE)
    fit_state_dict(method, unpack_weights(weights, checkpoint.folder), source=checkpoint.folder.uri)
    try:
        state = torch.load(io.BytesIO(_verified(checkpoint, OPTIMISER_FILE)), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise StorageError(f"{(checkpoint.folder / OPTIMISER_FILE).uri} can not be read: {error}") from error
    optimiser.load_state_dict(state)


def delete_checkpoint(checkpoints: Location, step: int) -> None:
    """Withdraw the checkpoint, then remove its files."""
    folder = step_folder(checkpoints, step)
    (folder / MANIFEST_FILE).delete()
    folder.delete()


def _verified(checkpoint: Checkpoint, name: str) -> bytes:
    content = (checkpoint.folder / name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != checkpoint.sha256[name]:
        raise StorageError(
            f"{(checkpoint.folder / name).uri} has SHA-256 {digest}, expected {checkpoint.sha256[name]}: the file was "
            "altered; delete this checkpoint's folder to continue from the one before"
        )
    return content
