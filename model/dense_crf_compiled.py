"""The fully connected CRF's mean field on the CPU: one thread a frame, by the kernels of dense_crf_kernels.py."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from model import dense_crf_kernels as kernels
from model.permutohedral import LatticeGeometry

_BLOCK = 4096  # points whose keys are held at once: they stay in the cache
_LEAST_TABLE = 1 << 15  # places of the hash table at first; it grows to stay at most half full

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.uint32]  # unsigned: as an index it needs no check for counting from the end
Table = npt.NDArray[np.int32]
Keys = npt.NDArray[np.int64]


class CompiledLattice:
    """The filter of one pairwise term, with symmetric normalisation, and what it last splatted of each label."""

    def __init__(self, features: Floats, geometry: LatticeGeometry, num_channels: int) -> None:
        """Place features [n, d]; ``num_channels`` values per point will be filtered side by side."""
        num_points, size = len(features), geometry.num_vertices
        self._corners = geometry.strides
        self._numbers: Numbers = np.empty((num_points, size), np.uint32)
        self._weights: Floats = np.empty((num_points, size), np.float32)
        unique, table = self._place(features, geometry)
        self.num_lattice_points = len(unique)
        self._before: Numbers = np.full((size, len(unique)), len(unique), np.uint32)
        self._after = self._before.copy()
        steps = tuple(geometry.neighbour_step(axis) for axis in range(size))
        kernels.find_neighbours(unique, table, steps, self._before, self._after)
        self._work: Floats = np.zeros((2, len(unique) + 1), np.float32)
        self._weights *= (1 / np.sqrt(self._filter_ones()))[:, None]
        self.filtered_ones = self._filter_ones()
        self._splatted: Floats = np.zeros((num_channels, len(unique) + 1), np.float32)
        self._reference: Floats = np.zeros((num_channels, num_points), np.float32)

    def filter_onto(self, channel: int, values: Floats, factor: float, message: Floats) -> None:
        """Add ``factor`` times the filtered values [n] of a channel to ``message`` [n]."""
        splatted = self._splatted[channel]
        kernels.splat(self._numbers, self._weights, values, self._reference[channel], splatted, self._corners)
        blurred = kernels.blur(splatted, self._before, self._after, self._work)
        kernels.slice_onto(self._numbers, self._weights, blurred, np.float32(factor), message, self._corners)

    def _place(self, features: Floats, geometry: LatticeGeometry) -> tuple[Keys, Table]:
        """Fill numbers and weights; return the distinct keys in the order of their numbers, and their table."""
        num_points, size = self._numbers.shape
        scales = tuple(np.float32(scale) for scale in geometry.scales)
        keys: Keys = np.empty((min(_BLOCK, num_points), size), np.int64)
        table, unique, count = _grown(np.empty(0, np.int64), _LEAST_TABLE)
        for start in range(0, num_points, _BLOCK):
            block = slice(start, min(start + _BLOCK, num_points))
            block_keys = keys[: block.stop - start]
            kernels.locate(features[block], scales, geometry.strides, block_keys, self._weights[block])
            while 2 * (count + block_keys.size) > len(table):
                table, unique, count = _grown(unique[:count], 2 * len(table))
            count = kernels.number_keys(block_keys, self._numbers[block], unique, table, count)
        return unique[:count], table

    def _filter_ones(self) -> Floats:
        num_points = len(self._numbers)
        splatted, message = np.zeros_like(self._work[0]), np.zeros(num_points, np.float32)
        zeros, ones = np.zeros(num_points, np.float32), np.ones(num_points, np.float32)
        kernels.splat(self._numbers, self._weights, ones, zeros, splatted, self._corners)
        blurred = kernels.blur(splatted, self._before, self._after, self._work)
        kernels.slice_onto(self._numbers, self._weights, blurred, np.float32(1), message, self._corners)
        return message


def _grown(unique: Keys, size: int) -> tuple[Table, Keys, int]:
    """Return a table of ``size`` places with the keys in it, the keys with room for more, and their count."""
    table: Table = np.full(size, -1, np.int32)
    kernels.fill_table(unique, table)
    room: Keys = np.empty(size // 2, np.int64)
    room[: len(unique)] = unique
    return table, room, len(unique)


def mean_field(terms: Sequence[tuple[float, Floats, LatticeGeometry]], unary: Floats, num_iterations: int) -> Floats:
    """Return the label probabilities [l, n] after mean field iterations from the softmax of -unary [l, n].

    terms: weight, features [n, d] in standard deviations and their geometry, of each pairwise term with Potts
    compatibility. Since the probabilities of a pixel sum to one, all labels but the last are filtered.
    """
    num_labels, num_points = unary.shape
    lattices = [(weight, CompiledLattice(features, geometry, num_labels - 1)) for weight, features, geometry in terms]
    advantage = unary[-1] - unary[:-1]
    message, total = np.zeros_like(advantage), np.zeros(num_points, np.float32)
    probabilities = np.empty_like(advantage)
    kernels.normalise(advantage, message, total, probabilities)
    for weight, lattice in lattices:
        total += np.float32(weight) * lattice.filtered_ones
    for _ in range(num_iterations):
        message[:] = 0
        for weight, lattice in lattices:
            for label in range(num_labels - 1):
                lattice.filter_onto(label, probabilities[label], weight, message[label])
        kernels.normalise(advantage, message, total, probabilities)
    return np.concatenate([probabilities, 1 - probabilities.sum(0, keepdims=True)])
