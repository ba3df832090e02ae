"""The fully connected CRF's mean field on the CPU: one thread a frame, by compiled kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from model import dense_crf_kernels as kernels
from model import dense_crf_messages as messages
from model.permutohedral import LatticeGeometry

_BLOCK = 4096  # points whose keys are held at once: they stay in the cache
_LEAST_TABLE = 1 << 15  # places of the hash table at first; it grows to stay at most half full

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.uint32]  # unsigned: as an index it needs no check for counting from the end
Table = npt.NDArray[np.int32]
Keys = npt.NDArray[np.int64]


class CompiledLattice:
    """The filter of one pairwise term, with symmetric normalisation, and what it last passed on of each label.

    messages: ``factor`` times the filtered values [c, n] of the labels that ``pass_on`` was called with.
    total: what the messages of all labels sum to [n], since probabilities sum to one.
    """

    def __init__(self, features: Floats, geometry: LatticeGeometry, num_channels: int, factor: float) -> None:
        """Place features [n, d] for the filtering of ``num_channels`` labels."""
        num_points, size = len(features), geometry.num_vertices
        self._corners = geometry.strides
        self._numbers: Numbers = np.empty((num_points, size), np.uint32)
        self._weights: Floats = np.empty((num_points, size), np.float32)
        unique, table = self._place(features, geometry)
        count = len(unique)
        self._before: Numbers = np.full((size, count), count, np.uint32)
        self._after = self._before.copy()
        steps = tuple(geometry.neighbour_step(axis) for axis in range(size))
        kernels.find_neighbours(unique, table, steps, self._before, self._after)
        self._blurred, self._spare = np.zeros(count + 1, np.float32), np.zeros(count + 1, np.float32)
        self._weights *= (1 / np.sqrt(self._filter_ones()))[:, None]
        self._factor = np.float32(factor)
        self.total = self._factor * self._filter_ones()
        self._reach: Floats = np.zeros(count, np.float32)
        self._starts, self._chunks = self._find_chunks()
        self._moved: Flags = np.zeros(count, np.bool_)
        self._reference: Floats = np.zeros((num_channels, num_points), np.float32)
        self._splatted: Floats = np.zeros((num_channels, count + 1), np.float32)
        self._heard: Floats = np.zeros((num_channels, count + 1), np.float32)
        self.messages: Floats = np.zeros((num_channels, num_points), np.float32)

    @property
    def num_lattice_points(self) -> int:
        """M, the lattice points that are a corner of any point."""
        return len(self._reach)

    def pass_on(self, probabilities: Floats, stale: Flags, changed: Flags) -> None:
        """Bring ``messages`` up to date with probabilities [c, n], of which only stale chunks have changed.

        changed: chunks whose messages are other than before are marked here.
        """
        lattice = (self._numbers, self._weights)
        for channel, values in enumerate(probabilities):
            splatted, heard, message = self._splatted[channel], self._heard[channel], self.messages[channel]
            messages.splat(*lattice, values, self._reference[channel], splatted, stale, self._corners)
            messages.blur(splatted, self._before, self._after, self._blurred, self._spare)
            num_moved = messages.hear(self._blurred, self._reach, heard, self._moved)
            if num_moved > self.num_lattice_points // 2:
                changed[:] = True
            else:
                messages.mark_stale(self._moved, self._starts, self._chunks, changed)
            messages.slice_stale(*lattice, heard, self._factor, message, changed, self._corners)

    def _find_chunks(self) -> tuple[Keys, Numbers]:
        """Fill the reach of each lattice point; return which chunks each is beside, as ``sort_pairs`` has it."""
        pairs: Numbers = np.empty((2, self._numbers.size), np.uint32)
        count = messages.find_pairs(self._numbers, self._weights, pairs, self._reach)
        starts: Keys = np.zeros(self.num_lattice_points + 2, np.int64)
        chunks: Numbers = np.empty(count, np.uint32)
        messages.sort_pairs(pairs[:, :count], starts, chunks)
        return starts, chunks

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
        zeros, ones = np.zeros(num_points, np.float32), np.ones(num_points, np.float32)
        splatted, stale = np.zeros_like(self._blurred), np.ones(_num_chunks(num_points), np.bool_)
        lattice = (self._numbers, self._weights)
        messages.splat(*lattice, ones, zeros, splatted, stale, self._corners)
        messages.blur(splatted, self._before, self._after, self._blurred, self._spare)
        messages.slice_stale(*lattice, self._blurred, np.float32(1), ones, stale, self._corners)
        return ones


def _num_chunks(num_points: int) -> int:
    return -(-num_points // messages.CHUNK)


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
    lattices = [CompiledLattice(features, geometry, num_labels - 1, weight) for weight, features, geometry in terms]
    advantage = unary[-1] - unary[:-1]
    heard = tuple(lattice.messages for lattice in lattices)
    probabilities = np.empty_like(advantage)
    stale: Flags = np.ones(_num_chunks(num_points), np.bool_)
    messages.normalise(advantage, heard, np.zeros(num_points, np.float32), probabilities, stale)
    total = np.sum([lattice.total for lattice in lattices], axis=0)
    for iteration in range(num_iterations):
        changed: Flags = np.full_like(stale, iteration == 0)  # the total is new then
        for lattice in lattices:
            lattice.pass_on(probabilities, stale, changed)
        messages.normalise(advantage, heard, total, probabilities, changed)
        stale = changed
    return np.concatenate([probabilities, 1 - probabilities.sum(0, keepdims=True)])
