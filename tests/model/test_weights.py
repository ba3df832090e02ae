"""Weights files: hashes, refusals and readable mismatches."""

from __future__ import annotations

import argparse
import os
import pickle
import random
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
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


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "teacher"])
def test_training_checkpoints_are_unwrapped(tmp_path: Path, state: dict[str, torch.Tensor], wrapper: str) -> None:
    torch.save({wrapper: state, "epoch": 3}, tmp_path / "w.pth")
    assert set(load_state_dict(tmp_path / "w.pth")) == set(state)


class CfgNode(dict[str, object]):
    """As yacs has it: a dict with attributes of its own."""

    def __init__(self, values: dict[str, object]) -> None:
        super().__init__(values)
        self.__dict__["__immutable__"] = True


CfgNode.__module__ = "yacs.config"


def test_what_authors_store_beside_the_weights_is_left_out(
    tmp_path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ModuleType("yacs.config")
    config.CfgNode = CfgNode  # type: ignore[attr-defined]
    with monkeypatch.context() as patched:  # the reader has no yacs
        patched.setitem(sys.modules, "yacs", ModuleType("yacs"))
        patched.setitem(sys.modules, "yacs.config", config)
        beside = {
            "random_state": {"numpy": np.random.get_state(), "python": random.getstate()},
            "iou": np.float64(79.56),
            "loss": torch.tensor(1.0, requires_grad=True),
            "args": argparse.Namespace(arch="vit_small", patch_size=8),
            "config": CfgNode({"MODEL": CfgNode({"NAME": "swin"})}),
            "iteration": 15000,
        }
        torch.save({"model": state, **beside}, tmp_path / "w.pth")
    allowed = torch.serialization.get_safe_globals()
    loaded = load_state_dict(tmp_path / "w.pth")
    assert set(loaded) == set(state)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    assert set(torch.serialization.get_safe_globals()) == set(allowed)  # for everyone else as before


def test_the_names_of_older_numpy_are_known(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save({"model": state, "iou": np.float64(0.5)}, tmp_path / "new.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "new.pth").read_bytes()
    assert b"cnumpy._core.multiarray" in content
    (tmp_path / "old.pth").write_bytes(content.replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray"))
    assert set(load_state_dict(tmp_path / "old.pth")) == set(state)


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


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_truncated_file_is_refused(tmp_path: Path, state: dict[str, torch.Tensor], name: str) -> None:
    path = tmp_path / name
    torch.save(state, path) if name == "w.pth" else save_state_dict(state, path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(WeightsError, match="can not be read as weights"):
        load_state_dict(path)


@pytest.mark.parametrize("sha256", [None, "0" * 64])
def test_a_file_that_may_not_be_read_is_told(
    tmp_path: Path, state: dict[str, torch.Tensor], sha256: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.pth"
    torch.save(state, path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))  # chmod does not stop root, who runs tests too

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(WeightsError, match=r"can not be read.*Permission denied"):
        load_state_dict(path, sha256)


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
