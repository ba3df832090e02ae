"""Optical flow estimators by name; ``tasks/weights.py`` says how the weights of the learned ones are given."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from model.dis import DisEstimator
from model.errors import InputError, WeightsError
from model.optical_flow import OpticalFlowEstimator
from tasks.named_weights import names_for
from tasks.weights import NAMED_WEIGHTS, LocalWeights, fetch_weights

DEFAULT_WEIGHTS = {"raft-large": "raft-large-c-t-v1", "raft-small": "raft-small-c-t-v1"}
"""The authors' checkpoints of FlyingChairs and FlyingThings as torchvision ported them. GWM computed its flows with the
original of the first, ``raft-things``."""


class _Request(NamedTuple):
    weights: str | None
    sha256: str | None
    device: str
    cache_dir: Path | None


def _dis(request: _Request, *, preset: str) -> OpticalFlowEstimator:
    if request.weights is not None or request.sha256 is not None:
        raise InputError(f"DIS optical flow takes no weights, got {request.weights or request.sha256}: leave them out")
    return DisEstimator(preset)


def _raft(request: _Request, *, variant: str, num_updates: int = 12, bf16: bool = False) -> OpticalFlowEstimator:
    # torchvision takes seconds to import, in every worker; DIS does without.
    from model.raft import RaftEstimator

    weights = _weights(request, variant, default=DEFAULT_WEIGHTS[variant])
    return RaftEstimator.from_file(
        variant, weights.path, sha256=weights.sha256, num_updates=num_updates, bf16=bf16, device=request.device
    )


def _pwc(request: _Request) -> OpticalFlowEstimator:
    from model.pwc import PwcNetEstimator

    weights = _weights(request, "pwc")
    return PwcNetEstimator.from_file(weights.path, sha256=weights.sha256, device=request.device)


def _arflow(request: _Request, *, size: tuple[int, int]) -> OpticalFlowEstimator:
    from model.pwc import ArflowEstimator

    weights = _weights(request, "arflow")
    return ArflowEstimator.from_file(weights.path, size=size, sha256=weights.sha256, device=request.device)


def _weights(request: _Request, network: str, *, default: str | None = None) -> LocalWeights:
    reference = request.weights or default
    if reference is None:
        raise WeightsError(
            f"optical flow {network!r} needs weights, and none of the published ones is the obvious choice: give a "
            f"file, a URI with its SHA-256, or one of {', '.join(names_for((network,)))}"
        )
    registered = f"{network}-{reference.lower().replace('_', '-')}"  # C_T_V1, as torchvision calls it
    return fetch_weights(
        registered if registered in NAMED_WEIGHTS else reference,
        request.sha256,
        networks=(network,),
        cache=request.cache_dir,
    )


ESTIMATORS: dict[str, Callable[[_Request], OpticalFlowEstimator]] = {
    "dis": partial(_dis, preset="medium"),
    "dis-fast": partial(_dis, preset="fast"),
    "dis-ultrafast": partial(_dis, preset="ultrafast"),
    "raft-large": partial(_raft, variant="raft-large"),
    "raft-small": partial(_raft, variant="raft-small"),
    # As MG's released script, which GWM's flows come from: 20 updates.
    "raft-large-20": partial(_raft, variant="raft-large", num_updates=20),
    "raft-small-20": partial(_raft, variant="raft-small", num_updates=20),
    # About twice as fast on CPUs with AMX or AVX512-BF16, and not the same flow: recipes must tell them apart.
    "raft-large-bf16": partial(_raft, variant="raft-large", bf16=True),
    "raft-small-bf16": partial(_raft, variant="raft-small", bf16=True),
    "raft-large-20-bf16": partial(_raft, variant="raft-large", num_updates=20, bf16=True),
    "pwc": _pwc,
    # What the network sees, rows and columns: the first for KITTI's weights, the second for Sintel's (its README).
    "arflow": partial(_arflow, size=(384, 640)),
    "arflow-448x1024": partial(_arflow, size=(448, 1024)),
}
"""Estimators by the name that recipes and the command line know; it is also what ``estimator.name`` says."""


def build_estimator(
    name: str,
    weights: str | None = None,
    sha256: str | None = None,
    device: str = "cpu",
    *,
    cache_dir: Path | None = None,
) -> OpticalFlowEstimator:
    """Build an estimator by name, fetching its weights when they are not at hand.

    weights: see ``tasks/weights.py``, or one of torchvision's names; None takes ``DEFAULT_WEIGHTS``, which holds none
    for PWC-Net and ARFlow. sha256: what the weights must hash to; required with a URI. cache_dir: where downloads are
    kept; None takes the folder of the settings. Raises InputError for an unknown name and WeightsError for weights
    that are missing, altered or do not fit.
    """
    if name not in ESTIMATORS:
        raise InputError(f"no optical flow estimator {name!r}: expected one of {', '.join(ESTIMATORS)}")
    return ESTIMATORS[name](_Request(weights, sha256, device, cache_dir))
