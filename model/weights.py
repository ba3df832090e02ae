"""Weights files: read without executing anything, checked against a pinned SHA-256."""

from __future__ import annotations

import hashlib
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.errors import WeightsError

_MAX_KEYS_NAMED = 5
"""Mismatching keys listed in an error; the first few tell which network the file is for."""

_WRAPPERS = ("state_dict", "model", "teacher")
"""Keys that training scripts put the network under; of DINO's two networks, the one that its authors evaluate."""

_READ_ERRORS = (
    *(SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError),
    # The restricted unpickler lets these out when it is given bytes that are no pickle at all.
    *(LookupError, AssertionError, TypeError, AttributeError),
)


class _Unread:
    """Stands in for an object of a checkpoint that is no tensor: takes what it is built from and keeps nothing."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


_BESIDE_THE_WEIGHTS: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
    # State of NumPy's generator and scores, in GWM's checkpoints; NumPy itself is never called to rebuild them.
    *(
        (_Unread, f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
    *((_Unread, name) for name in ("numpy.ndarray", "numpy.dtype")),
    (_Unread, "argparse.Namespace"),  # DINO's full checkpoints
    (OrderedDict, "yacs.config.CfgNode"),  # Swin's and MoBY's; a dict, so a dict must take its place
]
"""What authors' checkpoints hold next to tensors, by the name in the file, and what is built of it instead."""


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits, reading it in pieces.

    Raises WeightsError when the file can not be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} can not be read ({error}): expected a file that you may read") from error


def check_sha256(path: Path, expected: str) -> None:
    """Raise WeightsError when the file's SHA-256 is not ``expected`` (hex, any case)."""
    found = sha256_of(path)
    if found != expected.strip().lower():
        raise WeightsError(
            f"{path} has SHA-256 {found}, expected {expected}: the file was altered or is another one; "
            "fetch it again, or pin the hash of the file you mean"
        )


def load_state_dict(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read a flat state dict from a ``.safetensors`` file or one written by ``torch.save``, onto the CPU.

    Nothing in the file is executed (``weights_only``). A dict that wraps the state under ``state_dict``, ``model``
    or ``teacher``, as training scripts write it, is unwrapped. Raises WeightsError when the file is missing, can
    not be read, differs from ``sha256`` or holds anything but named tensors.
    """
    try:
        if not path.is_file():
            raise WeightsError(f"no weights file at {path}: expected a .safetensors or .pth file there")
        if sha256 is not None:
            check_sha256(path, sha256)
        content = load_file(path) if path.suffix == ".safetensors" else _torch_load(path)
    except _READ_ERRORS as error:
        raise WeightsError(f"{path} can not be read as weights: {error}") from error
    return _named_tensors(content, path)


def save_state_dict(state: Mapping[str, Tensor], path: Path) -> str:
    """Write named tensors as safetensors and return the SHA-256 of the file.

    Tensors are copied to the CPU and made contiguous; shared ones are stored once for each name.
    """
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}, path)
    return sha256_of(path)


def fit_state_dict(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict into a network; raise WeightsError naming the first keys that do not fit.

    source: where the state came from, for the message.
    """
    expected = network.state_dict()
    faults = [f"{name} is missing" for name in expected if name not in state]
    faults += [f"{name} is not part of the network" for name in state if name not in expected]
    faults += [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if faults:
        raise WeightsError(
            f"{source} does not fit {type(network).__name__}: {'; '.join(faults[:_MAX_KEYS_NAMED])}"
            f"{f'; and {len(faults) - _MAX_KEYS_NAMED} more' if len(faults) > _MAX_KEYS_NAMED else ''}. "
            "Give the weights of this architecture, or choose the architecture of these weights"
        )
    network.load_state_dict(dict(state))


def _torch_load(path: Path) -> object:
    with torch.serialization.safe_globals(_BESIDE_THE_WEIGHTS):
        return torch.load(path, map_location="cpu", weights_only=True)


def _named_tensors(content: object, path: Path) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{path} holds a {type(content).__name__}: expected a dict of named tensors")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(f"{path} holds {type(value).__name__} under {name!r}: expected only named tensors")
    return dict(content)
