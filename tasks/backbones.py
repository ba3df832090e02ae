"""Pretrained backbones from a reference, under the names that the networks here load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from model.pretrained import convert_backbone
from model.weights import load_state_dict
from tasks.errors import WeightsError
from tasks.weights import fetch_weights


@dataclass(frozen=True, kw_only=True, eq=False)
class Backbone:
    """Weights of a backbone, whole and under timm's names, without a classifier.

    sha256: of the file that they were read from.
    """

    source: str
    sha256: str
    state: dict[str, Tensor]


def load_backbone(
    reference: str, sha256: str | None = None, *, networks: tuple[str, ...] = (), cache: Path | None = None
) -> Backbone:
    """Fetch, read and rename the backbone that ``reference`` names (see ``tasks/weights.py``).

    networks: what it may be, where its size has a name; any when empty. Raises WeightsError when it can not be
    had, is of another network, or is not whole.
    """
    local = fetch_weights(reference, sha256, networks=networks, cache=cache)
    found = convert_backbone(load_state_dict(local.path), source=reference, kind=local.converter)
    found.require_whole(reference)
    if networks and found.network is not None and found.network not in networks:
        raise WeightsError(f"{reference} is a {found.network}: expected {' or '.join(networks)}")
    return Backbone(source=reference, sha256=local.sha256, state=found.state)
