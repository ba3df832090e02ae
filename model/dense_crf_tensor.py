"""The fully connected CRF's mean field in torch operations: for GPUs, and wherever numba is absent.

The same lattice as model/dense_crf_compiled.py, with a sort in place of the hash table, and every pixel splatted in
every iteration. On a GPU the sums of ``index_add_`` come in any order, so that the last digits differ from run to run.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from model.permutohedral import LatticeGeometry


def locate(
    features: Float[Tensor, "n d"], geometry: LatticeGeometry
) -> tuple[Int64[Tensor, "n v"], Float[Tensor, "n v"]]:
    """Return packed keys and barycentric weights of the corners of the simplex around each point."""
    size = geometry.num_vertices
    strides = torch.tensor(geometry.strides, device=features.device)
    lifted = _lift(features, geometry)
    nearest = (lifted / size).round()
    excess = nearest.sum(1).long()[:, None]  # the nearest remainder-0 points of each axis need not sum to zero
    by_rank = (lifted - nearest * size).argsort(dim=1, descending=True, stable=True)
    rank = by_rank.argsort(dim=1)
    whole = nearest.long() + (rank + excess < 0).long() - (rank + excess >= size).long()
    order = by_rank.gather(1, (torch.arange(size, device=features.device) - excess) % size)
    offset = ((lifted - whole.to(lifted.dtype) * size) / size).gather(1, order)  # falling
    weights = torch.cat([1 + offset[:, -1:] - offset[:, :1], (offset[:, :-1] - offset[:, 1:]).flip(1)], dim=1)
    turned = geometry.diagonal - size * strides[order[:, 1:].flip(1)]
    first = (whole * strides).sum(1, keepdim=True) * size
    return torch.cat([first, first + turned.cumsum(1)], dim=1), weights


def _lift(features: Float[Tensor, "n d"], geometry: LatticeGeometry) -> Float[Tensor, "n v"]:
    """Take points of d features to the hyperplane of d + 1 coordinates that sum to zero."""
    scaled = features * torch.tensor(geometry.scales, dtype=features.dtype, device=features.device)
    rest = torch.zeros_like(scaled[:, 0])
    lifted = []
    for axis in range(scaled.shape[1], 0, -1):  # term by term, to round as the compiled kernel does
        lifted.append(rest - axis * scaled[:, axis - 1])
        rest = rest + scaled[:, axis - 1]
    return torch.stack([rest, *reversed(lifted)], dim=1)


class TensorLattice:
    """The filter of one pairwise term, with symmetric normalisation."""

    def __init__(self, features: Float[Tensor, "n d"], geometry: LatticeGeometry) -> None:
        """Place the points; ``features`` are in standard deviations."""
        keys, self._weights = locate(features, geometry)
        unique, self._numbers = keys.unique(return_inverse=True)
        self.num_lattice_points = len(unique)
        steps = [geometry.neighbour_step(axis) for axis in range(geometry.num_vertices)]
        self._neighbours = [(self._find(unique, unique - step), self._find(unique, unique + step)) for step in steps]
        ones = features.new_ones(1, len(features))
        self._weights = self._weights / self.filter(ones).sqrt().T
        self.filtered_ones = self.filter(ones)[0]

    def filter(self, values: Float[Tensor, "c n"]) -> Float[Tensor, "c n"]:
        """Return filtered values."""
        lattice = values.new_zeros(len(values), self.num_lattice_points + 1)  # the last stays 0: no neighbour
        for corner in range(self._weights.shape[1]):
            lattice.index_add_(1, self._numbers[:, corner], values * self._weights[:, corner])
        for before, after in self._neighbours:
            lattice[:, :-1] += 0.5 * (lattice[:, before] + lattice[:, after])
        filtered = torch.zeros_like(values)
        for corner in range(self._weights.shape[1]):
            filtered += lattice[:, self._numbers[:, corner]] * self._weights[:, corner]
        return filtered

    @staticmethod
    def _find(unique: Int64[Tensor, " m"], wanted: Int64[Tensor, " m"]) -> Int64[Tensor, " m"]:
        """Return where each wanted key is in the sorted keys; their number where it is not."""
        places = torch.searchsorted(unique, wanted)
        found = unique[places.clamp_max(len(unique) - 1)] == wanted
        return places.where(found, len(unique))


def mean_field(
    terms: Sequence[tuple[float, Float[Tensor, "n _"], LatticeGeometry]],
    unary: Float[Tensor, "l n"],
    num_iterations: int,
) -> Float[Tensor, "l n"]:
    """Return the label probabilities after mean field iterations from the softmax of -unary.

    terms: weight, features in standard deviations and their geometry, of each pairwise term with Potts compatibility.
    Since the probabilities of a pixel sum to one, all labels but the last are filtered.
    """
    lattices = [(weight, TensorLattice(features, geometry)) for weight, features, geometry in terms]
    total = sum((weight * lattice.filtered_ones for weight, lattice in lattices), torch.zeros_like(unary[0]))
    probabilities = (-unary).softmax(0)
    for _ in range(num_iterations):
        message = torch.zeros_like(unary[:-1])
        for weight, lattice in lattices:
            message += weight * lattice.filter(probabilities[:-1])
        messages = torch.cat([message, (total - message.sum(0))[None]])
        probabilities = (messages - unary).softmax(0)
    return probabilities
