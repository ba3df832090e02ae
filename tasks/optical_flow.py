"""Optical flow estimators by name; ``tasks/flow_weights.py`` says how the weights of the learned ones are given."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from model.dis import DisEstimator
from model.errors import InputError
from model.optical_flow import OpticalFlowEstimator


class _Request(NamedTuple):
    weights: str | None
    sha256: str | None
    device: str
    cache_dir: Path | None


def _dis(request: _Request, *, preset: str) -> OpticalFlowEstimator:
    if request.weights is not None or request.sha256 is not None:
        raise InputError(f"DIS optical flow takes no weights, got {request.weights or request.sha256}: leave them out")
    return DisEstimator(preset)


def _raft(request: _Request, *, variant: str, num_updates: int) -> OpticalFlowEstimator:
    # torchvision takes seconds to import, in every worker; DIS does without.
    from model.raft import RaftEstimator
    from tasks.flow_weights import DEFAULT_RAFT_WEIGHTS, find_weights

    path = find_weights(variant, request.weights or DEFAULT_RAFT_WEIGHTS, request.sha256, request.cache_dir)
    return RaftEstimator.from_file(variant, path, sha256=request.sha256, num_updates=num_updates, device=request.device)


ESTIMATORS: dict[str, Callable[[_Request], OpticalFlowEstimator]] = {
    "dis": partial(_dis, preset="medium"),
    "dis-fast": partial(_dis, preset="fast"),
    "dis-ultrafast": partial(_dis, preset="ultrafast"),
    "raft-large": partial(_raft, variant="raft-large", num_updates=12),
    "raft-small": partial(_raft, variant="raft-small", num_updates=12),
    # As MG's released script, which GWM's flows come from: 20 updates.
    "raft-large-20": partial(_raft, variant="raft-large", num_updates=20),
    "raft-small-20": partial(_raft, variant="raft-small", num_updates=20),
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

    weights: see ``tasks/flow_weights.py``; None takes ``C_T_V1`` for RAFT. sha256: what the weights must hash
    to; required with a URI. cache_dir: where downloads are kept; None takes the folder of the settings.
    Raises InputError for an unknown name and WeightsError for weights that are missing, altered or do not
    fit.
    """
    if name not in ESTIMATORS:
        raise InputError(f"no optical flow estimator {name!r}: expected one of {', '.join(ESTIMATORS)}")
    return ESTIMATORS[name](_Request(weights, sha256, device, cache_dir))
