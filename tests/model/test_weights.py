"""Weights files: hashes, refusals and readable mismatches."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from model.errors import WeightsError
from model.weights import fit_state_dict, load_state_dict, save_state_dict, sha256_of


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return {"weight": torch.randn(3, 2), "bias": torch.randn(3)}


def test_sha256_is_the_published_one(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_round_trip_with_a_pinned_hash(tmp_path: Path, state: dict[str, torch.Tensor], suffix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        digest = save_state_dict(state, path)
    else:
        torch.save(state, path)
        digest = sha256_of(path)
    loaded = load_state_dict(path, digest.upper())
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_shared_and_strided_tensors_are_saved(tmp_path: Path) -> None:
    table = torch.arange(6.0).reshape(2, 3)
    save_state_dict({"a": table, "b": table, "c": table.T}, tmp_path / "w.safetensors")
    assert torch.equal(load_state_dict(tmp_path / "w.safetensors")["c"], table.T)


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_training_checkpoints_are_unwrapped(tmp_path: Path, state: dict[str, torch.Tensor], wrapper: str) -> None:
    torch.save({wrapper: state, "epoch": 3}, tmp_path / "w.pth")
    assert set(load_state_dict(tmp_path / "w.pth")) == set(state)


def test_an_altered_file_is_refused(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    digest = save_state_dict(state, tmp_path / "w.safetensors")
    content = bytearray((tmp_path / "w.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=f"expected {digest}.*altered"):
        load_state_dict(tmp_path / "w.safetensors", digest)


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("writer", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, 2))])
def test_nothing_in_a_file_is_executed(tmp_path: Path, writer: object) -> None:
    writer({"weight": _Trap(tmp_path / "executed")}, tmp_path / "w.pth")  # type: ignore[operator]
    with pytest.raises(WeightsError, match="can not be read as weights"):
        load_state_dict(tmp_path / "w.pth")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x80"])
def test_garbage_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match="can not be read as weights"):
        load_state_dict(tmp_path / name)


def test_missing_and_unnamed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights file at"):
        load_state_dict(tmp_path / "w.pth")
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds a list"):
        load_state_dict(tmp_path / "list.pth")
    torch.save({"weight": torch.ones(1), "epoch": 3}, tmp_path / "mixed.pth")
    with pytest.raises(WeightsError, match="holds int under 'epoch'"):
        load_state_dict(tmp_path / "mixed.pth")


def test_the_first_mismatches_are_named(state: dict[str, torch.Tensor]) -> None:
    network = nn.Linear(2, 3)
    fit_state_dict(network, state, "w.pth")
    assert torch.equal(network.bias, state["bias"])
    with pytest.raises(WeightsError, match=r"w\.pth does not fit Linear: bias is missing"):
        fit_state_dict(network, {"weight": state["weight"]}, "w.pth")
    with pytest.raises(WeightsError, match=r"weight is \(2, 3\), expected \(3, 2\)"):
        fit_state_dict(network, state | {"weight": state["weight"].T}, "w.pth")
    many = state | {f"extra{index}": torch.ones(1) for index in range(9)}
    with pytest.raises(WeightsError, match=r"extra0 is not part of the network.*and 4 more"):
        fit_state_dict(network, many, "w.pth")
