from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from model.methods import build_method
from tasks.checkpoint import (
    latest_checkpoint,
    list_checkpoint_steps,
    read_checkpoint,
    restore_checkpoint,
    save_checkpoint,
    step_folder,
)
from tasks.config import ExperimentConfig
from tasks.errors import ModelNotFoundError, StorageError, WeightsError
from tasks.model_package import Provenance, load_model, save_model
from tasks.optimiser import build_optimiser
from tasks.storage import Location, location
from tests.tasks.training_data import tiny_experiment

EXPERIMENT = tiny_experiment()


def trained(seed: int = 0, updates: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    method = build_method(EXPERIMENT.method)
    optimiser = build_optimiser(method, EXPERIMENT.optimisation)
    for _ in range(updates):
        for parameter in method.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimiser.step()
    return method, optimiser


def save(place: Location, step: int, method: nn.Module, optimiser: torch.optim.Optimizer, kept: int = 9) -> None:
    save_checkpoint(
        place,
        step=step,
        method=method,
        optimiser=optimiser,
        state={"window_sums": {"loss": 0.1 + 0.2}},
        experiment=EXPERIMENT,
        provenance=Provenance(training_id="t", step=step),
        num_kept=kept,
    )


def bits(value: object) -> object:
    """Tensors as bytes, so that equality means every bit."""
    if isinstance(value, torch.Tensor):
        return value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return {key: bits(entry) for key, entry in value.items()}
    return [bits(entry) for entry in value] if isinstance(value, list) else value


def test_everything_comes_back_bit_for_bit_and_trains_on_alike(tmp_path: Path) -> None:
    place = location(tmp_path / "checkpoints")
    method, optimiser = trained()
    save(place, 3, method, optimiser)
    other, other_optimiser = trained(seed=1, updates=0)
    checkpoint = latest_checkpoint(place)
    assert checkpoint is not None
    restore_checkpoint(checkpoint, method=other, optimiser=other_optimiser)
    assert checkpoint.step == 3
    assert checkpoint.state == {"window_sums": {"loss": 0.1 + 0.2}}
    assert bits(other.state_dict()) == bits(method.state_dict())
    assert bits(other_optimiser.state_dict()) == bits(optimiser.state_dict())
    for module, optim in ((method, optimiser), (other, other_optimiser)):
        torch.manual_seed(5)
        for parameter in module.parameters():
            parameter.grad = torch.randn_like(parameter)
        optim.step()
    assert bits(other.state_dict()) == bits(method.state_dict())


def test_a_checkpoint_without_its_manifest_does_not_exist(tmp_path: Path) -> None:
    place = location(tmp_path / "checkpoints")
    assert latest_checkpoint(place) is None
    method, optimiser = trained()
    save(place, 500, method, optimiser)
    save(place, 1000, method, optimiser)
    (step_folder(place, 1000) / "checkpoint.json").delete()
    (tmp_path / "checkpoints" / "notes").mkdir()
    newest = latest_checkpoint(place)
    assert newest is not None
    assert newest.step == 500
    assert newest.folder.name == "step-000500"


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    place = location(tmp_path / "checkpoints")
    method, optimiser = trained()
    for step in (2, 4, 6, 1_000_000):
        save(place, step, method, optimiser, kept=2)
    assert list_checkpoint_steps(place) == [6, 1_000_000]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000006", "step-1000000"]


def test_weights_that_are_not_finite_are_never_published(tmp_path: Path) -> None:
    place = location(tmp_path / "checkpoints")
    method, optimiser = trained()
    save(place, 1, method, optimiser)
    with torch.no_grad():
        next(method.parameters()).fill_(float("nan"))
    with pytest.raises(WeightsError, match="not finite"):
        save(place, 2, method, optimiser)
    assert list_checkpoint_steps(place) == [1]


@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.pt"])
def test_altered_files_are_noticed(tmp_path: Path, name: str) -> None:
    place = location(tmp_path / "checkpoints")
    method, optimiser = trained()
    save(place, 1, method, optimiser)
    file = step_folder(place, 1) / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(StorageError, match=f"{name} has SHA-256"):
        restore_checkpoint(read_checkpoint(place, 1), method=method, optimiser=optimiser)


def test_a_checkpoint_is_a_model(tmp_path: Path) -> None:
    place = location(tmp_path / "checkpoints")
    method, optimiser = trained()
    save(place, 7, method, optimiser)
    loaded = load_model(step_folder(place, 7))
    assert loaded.experiment == EXPERIMENT
    assert loaded.provenance.step == 7
    assert loaded.provenance.created is not None
    assert not loaded.method.training  # type: ignore[attr-defined]
    assert bits(loaded.method.state_dict()) == bits(method.state_dict())  # type: ignore[attr-defined]


def test_models_that_can_not_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no model at .*nowhere.*model\.json"):
        load_model(str(tmp_path / "nowhere"))
    folder = location(tmp_path / "model")
    save_model(folder, trained()[0], experiment=EXPERIMENT, provenance=Provenance())
    description = json.loads((folder / "model.json").read_bytes())
    (folder / "model.json").write_bytes(json.dumps({**description, "format": 99}).encode())
    with pytest.raises(ModelNotFoundError, match="of another format"):
        load_model(folder)
    unknown = {**description, "experiment": {**description["experiment"], "surprise": 1}}
    (folder / "model.json").write_bytes(json.dumps(unknown).encode())
    with pytest.raises(ModelNotFoundError, match="made by another release"):
        load_model(folder)
    wider = ExperimentConfig.model_validate(
        {**EXPERIMENT.model_dump(), "method": {**EXPERIMENT.model_dump()["method"], "base_channels": 8}}
    )
    (folder / "model.json").write_bytes(
        json.dumps({**description, "experiment": wider.model_dump(mode="json")}).encode()
    )
    with pytest.raises(WeightsError, match="does not fit"):
        load_model(folder)
    (folder / "model.json").write_bytes(json.dumps(description).encode())
    (folder / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(WeightsError, match="altered or only partly copied"):
        load_model(folder)
