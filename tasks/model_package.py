"""A model as two files that need nothing else: weights, and what it takes to rebuild and to trust them.

::

    model.safetensors    the method's parameters and buffers
    model.json           resolved experiment, provenance, SHA-256 of the weights; written last, so it publishes them

No code and no pickle is stored: the network is rebuilt from the experiment, whose keys are checked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from model.methods import build_method
from model.methods.base import Method
from model.segment_roles import SegmentRoles
from model.weights import fit_state_dict
from tasks.checkpoint_choice import CandidateScores
from tasks.config import ExperimentConfig
from tasks.errors import ModelNotFoundError, WeightsError
from tasks.snapshot import DatasetPin
from tasks.storage import Location, location

WEIGHTS_FILE = "model.safetensors"
DESCRIPTION_FILE = "model.json"
_FORMAT = 1
_ROLES = "segment_roles"  # absent in models of earlier releases and in imported ones


class Provenance(BaseModel):
    """Where a model comes from: enough to repeat its training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training_id: str | None = None
    step: int | None = None
    dataset_uri: str | None = None
    dataset_version: int | None = None
    joint_datasets: tuple[DatasetPin, ...] = ()
    """Datasets that were trained on together with that one."""
    initial_model: str | None = None
    mlflow_run_id: str | None = None
    code_version: str | None = None
    checkpoint: str | None = None
    """How the checkpoint was chosen; None in models of earlier releases, and in checkpoints, which nobody chose yet."""
    candidates: tuple[CandidateScores, ...] = ()
    """What it was chosen from, and by which numbers."""
    created: str | None = None
    """Time of saving, ISO 8601 in UTC; filled in when left out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel:
    """A model ready to segment: on its device, in evaluation mode.

    weights_sha256: of ``model.safetensors``; names the model in reports. roles: what its segments are for, if known.
    """

    method: Method
    experiment: ExperimentConfig
    provenance: Provenance
    weights_sha256: str
    uri: str
    roles: SegmentRoles | None = None


def save_model(folder: Location, method: nn.Module, *, experiment: ExperimentConfig, provenance: Provenance) -> str:
    """Write a model into ``folder``; the description last. Return the SHA-256 of the weights.

    Raises WeightsError when a weight is not finite: such a model can not be used, and must not replace one that can.
    """
    weights = pack_weights(method)
    digest = hashlib.sha256(weights).hexdigest()
    created = provenance.created or datetime.now(UTC).isoformat(timespec="seconds")
    description = {
        "format": _FORMAT,
        "experiment": experiment.model_dump(mode="json"),
        "provenance": provenance.model_copy(update={"created": created}).model_dump(mode="json"),
        "weights_sha256": digest,
    }
    (folder / WEIGHTS_FILE).write_bytes(weights)
    (folder / DESCRIPTION_FILE).write_bytes(json.dumps(description, indent=2).encode())
    return digest


def publish_copy(
    source: Location,
    target: Location,
    *,
    checkpoint: str,
    candidates: Sequence[CandidateScores] = (),
    roles: SegmentRoles | None = None,
) -> None:
    """Copy the model in ``source`` to ``target``, the description last; say how it was chosen, and its roles."""
    description = read_description(source)
    if roles is not None:
        description[_ROLES] = {"num_clips": roles.num_clips, "num_foreground": list(roles.num_foreground)}
    chosen = {"checkpoint": checkpoint, "candidates": [each.model_dump() for each in candidates]}
    description["provenance"] = {**description["provenance"], **chosen}
    (target / WEIGHTS_FILE).write_bytes((source / WEIGHTS_FILE).read_bytes())
    (target / DESCRIPTION_FILE).write_bytes(json.dumps(description, indent=2).encode())


def load_model(folder: Location | str, *, device: str | torch.device = "cpu") -> LoadedModel:
    """Rebuild the model in ``folder`` on ``device``, in evaluation mode.

    Raises ModelNotFoundError when there is no model, WeightsError when the weights were altered or do not fit.
    """
    place = folder if isinstance(folder, Location) else location(folder)
    description = read_description(place)
    weights = (place / WEIGHTS_FILE).read_bytes()
    digest = hashlib.sha256(weights).hexdigest()
    if digest != description["weights_sha256"]:
        raise WeightsError(
            f"{(place / WEIGHTS_FILE).uri} has SHA-256 {digest}, its description says {description['weights_sha256']}: "
            "the file was altered or only partly copied; copy the model again"
        )
    experiment = _experiment_of(description, place)
    module = build_method(experiment.method)
    fit_state_dict(module, unpack_weights(weights, place), source=str(place.uri))
    return LoadedModel(
        method=cast(Method, module.to(device).eval()),
        experiment=experiment,
        provenance=Provenance.model_validate(description["provenance"]),
        weights_sha256=digest,
        uri=place.uri,
        roles=_roles_of(description),
    )


def is_model(folder: Location) -> bool:
    """Whether ``folder`` holds a published model."""
    return (folder / DESCRIPTION_FILE).exists()


def read_description(folder: Location) -> dict[str, Any]:
    """Return what ``model.json`` says; raises ModelNotFoundError when it is absent or not ours."""
    if not is_model(folder):
        raise ModelNotFoundError(
            f"no model at {folder.uri}: expected a folder with {DESCRIPTION_FILE} and {WEIGHTS_FILE}, "
            "as a training run leaves it"
        )
    description = json.loads((folder / DESCRIPTION_FILE).read_bytes())
    if not isinstance(description, dict) or description.get("format") != _FORMAT:
        raise ModelNotFoundError(
            f"{(folder / DESCRIPTION_FILE).uri} is of another format: expected {_FORMAT}; use the release that wrote it"
        )
    return description


def pack_weights(method: nn.Module) -> bytes:
    """Return the method's state as safetensors; raises WeightsError when a weight is not finite."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in method.state_dict().items()}
    broken = [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise WeightsError(
            f"{len(broken)} tensors such as {broken[0]!r} hold values that are not finite: expected finite weights; "
            "lower the learning rate, or train in f32"
        )
    return bytes(save_safetensors(state))


def unpack_weights(weights: bytes, source: Location) -> dict[str, Tensor]:
    """Read what ``pack_weights`` wrote; raises WeightsError naming ``source`` when it is damaged."""
    try:
        return load_safetensors(weights)
    except SafetensorError as error:
        raise WeightsError(f"{source.uri}: {WEIGHTS_FILE} is damaged ({error}); copy the model again") from error


def _roles_of(description: dict[str, Any]) -> SegmentRoles | None:
    found = description.get(_ROLES)
    return found and SegmentRoles(num_clips=found["num_clips"], num_foreground=tuple(found["num_foreground"]))


def _experiment_of(description: dict[str, Any], folder: Location) -> ExperimentConfig:
    try:
        return ExperimentConfig.model_validate(description["experiment"])
    except ValidationError as error:
        raise ModelNotFoundError(
            f"{folder.uri} was made by another release, its experiment has keys that this one does not know: {error}"
        ) from error
