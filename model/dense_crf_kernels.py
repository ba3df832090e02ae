"""Placing points in a permutohedral lattice, compiled for the CPU.

Every kernel is a plain loop over arrays, compiled on first use; model/dense_crf_tensor.py does the same without.

    locate            features -> packed keys and barycentric weights of the corners
    number_keys       packed keys -> numbers 0..M-1, by a hash table with open addressing
    find_neighbours   numbers of the two neighbours along each axis; M, whose value stays 0, where there is none

What is then computed on the lattice is in dense_crf_messages.py.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from model.compiled import compiled

_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: multiplicative hashing (Knuth, vol. 3, 6.4)
_BATCH = 256  # points located side by side
_ZERO, _ONE = np.float32(0), np.float32(1)


@compiled
@no_type_check
def _lift(features, scales, lifted):
    """Take points of d features to the hyperplane of d + 1 coordinates that sum to zero, [d + 1, n]."""
    rest = lifted[0]
    for i in range(len(features)):
        rest[i] = _ZERO
    for axis in range(len(scales), 0, -1):
        coordinate = lifted[axis]
        for i in range(len(features)):
            scaled = features[i, axis - 1] * scales[axis - 1]
            coordinate[i] = rest[i] - np.float32(axis) * scaled
            rest[i] += scaled


@compiled
@no_type_check
def _round(lifted, count, whole, offset, excess):
    """Find the nearest remainder-0 value of each coordinate, in units of d + 1, and the distance to it."""
    size = np.float32(len(lifted))
    excess[:count] = 0
    for axis in range(len(lifted)):
        coordinate, nearest, distance = lifted[axis], whole[axis], offset[axis]
        for i in range(count):
            rounded = np.rint(coordinate[i] * (_ONE / size))
            nearest[i] = np.int32(rounded)
            excess[i] += np.int32(rounded)
            distance[i] = coordinate[i] - rounded * size


@compiled
@no_type_check
def _rank(offset, count, rank):
    """Number the coordinates of each point by falling distance."""
    rank[:, :count] = 0
    for axis in range(len(offset)):
        for other in range(axis + 1, len(offset)):
            left, right, left_rank, right_rank = offset[axis], offset[other], rank[axis], rank[other]
            for i in range(count):
                behind = np.int32(left[i] < right[i])
                left_rank[i] += behind
                right_rank[i] += np.int32(1) - behind


@compiled
@no_type_check
def _return_to_plane(lifted, count, excess, whole, offset, rank):
    """Shift ranks until the remainder-0 corner sums to zero, as the nearest values need not; update the distances."""
    size = np.int32(len(lifted))
    for axis in range(len(lifted)):
        coordinate, nearest, distance, place = lifted[axis], whole[axis], offset[axis], rank[axis]
        for i in range(count):
            shifted = place[i] + excess[i]
            turn = np.int32(shifted < 0) - np.int32(shifted >= size)
            place[i] = shifted + turn * size
            nearest[i] += turn
            distance[i] = (coordinate[i] - np.float32(nearest[i] * size)) * (_ONE / np.float32(size))


@compiled
@no_type_check
def _write_corners(whole, offset, rank, strides, keys, weights):
    """Write packed keys and barycentric weights of all corners from the remainder-0 corner and the distances to it."""
    size = len(strides)
    diagonal = np.int64(0)
    for axis in range(size):
        diagonal += strides[axis]
    order = np.empty(size, np.int32)
    for point in range(len(keys)):
        key = np.int64(0)
        for axis in range(size):
            order[rank[axis, point]] = axis
            key += strides[axis] * whole[axis, point] * size
        keys[point, 0] = key
        weights[point, 0] = _ONE + offset[order[size - 1], point] - offset[order[0], point]
        for corner in range(1, size):
            turned = order[size - corner]
            key += diagonal - size * strides[turned]
            keys[point, corner] = key
            weights[point, corner] = offset[order[size - 1 - corner], point] - offset[turned, point]


@compiled
@no_type_check
def locate(features, scales, strides, keys, weights):
    """Write packed keys [n, d + 1] and barycentric weights [n, d + 1] of the corners around features [n, d]."""
    size = len(strides)
    lifted, offset = np.empty((size, _BATCH), np.float32), np.empty((size, _BATCH), np.float32)
    whole, rank = np.empty((size, _BATCH), np.int32), np.empty((size, _BATCH), np.int32)
    excess = np.empty(_BATCH, np.int32)
    for start in range(0, len(features), _BATCH):
        stop = min(start + _BATCH, len(features))
        _lift(features[start:stop], scales, lifted)
        _round(lifted, stop - start, whole, offset, excess)
        _rank(offset, stop - start, rank)
        _return_to_plane(lifted, stop - start, excess, whole, offset, rank)
        _write_corners(whole, offset, rank, strides, keys[start:stop], weights[start:stop])


@compiled
@no_type_check
def _shift(table):
    """Return by how much a spread key is shifted right to be a place in the table, whose size is a power of two."""
    shift = np.uint64(64)
    size = len(table)
    while size > 1:
        size >>= 1
        shift -= np.uint64(1)
    return shift


@compiled
@no_type_check
def _slot(key, unique, table, shift):
    """Return the place of a key in the table: its own, or the free one where it belongs."""
    slot = np.int64((np.uint64(key) * _SPREAD) >> shift)
    while table[slot] >= 0 and unique[table[slot]] != key:
        slot = (slot + 1) & (len(table) - 1)
    return slot


@compiled
@no_type_check
def number_keys(keys, numbers, unique, table, count):
    """Write the number of each key [n, v]; new ones get the next free number. Return how many there are now."""
    shift = _shift(table)
    for point in range(keys.shape[0]):
        for corner in range(keys.shape[1]):
            key = keys[point, corner]
            if point > 0 and keys[point - 1, corner] == key:
                numbers[point, corner] = numbers[point - 1, corner]
                continue
            slot = _slot(key, unique, table, shift)
            if table[slot] < 0:
                unique[count] = key
                table[slot] = count
                count += 1
            numbers[point, corner] = table[slot]
    return count


@compiled
@no_type_check
def fill_table(unique, table):
    """Enter distinct keys into an empty table."""
    shift = _shift(table)
    for number in range(len(unique)):
        table[_slot(unique[number], unique, table, shift)] = number


@compiled
@no_type_check
def find_neighbours(unique, table, steps, before, after):
    """Write the numbers of both neighbours of each point along each axis [d + 1, M]; leave what has none."""
    shift = _shift(table)
    for axis in range(len(steps)):
        for number in range(len(unique)):
            neighbour = table[_slot(unique[number] + steps[axis], unique, table, shift)]
            if neighbour >= 0:
                after[axis, number] = neighbour
                before[axis, neighbour] = number
