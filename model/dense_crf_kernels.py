"""Mean field over permutohedral lattices, compiled for the CPU.

Written for one thread per frame; the kernels let go of the interpreter's lock, so that frames run beside each other.
They are compiled on first use, in some seconds, and kept beside the source where that folder can be written. Every
kernel is a plain loop over arrays:

    locate            features -> packed keys and barycentric weights of the corners
    number_keys       packed keys -> numbers 0..M-1, by a hash table with open addressing
    find_neighbours   numbers of the two neighbours along each axis; M, whose value stays 0, where there is none
    splat, blur, slice_onto, normalise   one iteration

Loops over corners go over a tuple: its length is part of its type, so they are unrolled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, no_type_check

import numpy as np

try:
    import numba
except ImportError:  # model/dense_crf_tensor.py does the same, more slowly
    numba = None

AVAILABLE = numba is not None
"""Whether the kernels can be compiled here."""

SPLAT_TOLERANCE = 1e-6
"""A pixel is splatted again when its probability has moved by more than this since it was last.

Most pixels are decided after a few iterations and then cost nothing. What is left out is bounded by this for every
pixel at any time, about ten steps of float32 below 1.
"""

_BLOCK = 4096  # points normalised at once: they stay in the cache
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: multiplicative hashing (Knuth, vol. 3, 6.4)
_LOG2_E = np.float32(1 / math.log(2))
_C1, _C2, _C3, _C4, _C5, _C6 = (np.float32(math.log(2) ** n / math.factorial(n)) for n in range(1, 7))  # of 2^x
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_EXPONENT_LIMIT, _EXPONENT_BIAS, _FRACTION_BITS = np.float32(126), np.int32(127), np.int32(23)  # of float32

_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])


def _compiled(kernel: _Kernel) -> _Kernel:
    """Compile on first use, keeping the machine code beside the source where that folder can be written."""
    if numba is None:
        return kernel
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(kernel)
    except RuntimeError:  # numba found no folder for its cache, such as in a read-only image
        return numba.njit(**options)(kernel)


@_compiled
@no_type_check
def _lift(features, scales, lifted):
    """Take one point of d features to the hyperplane of d + 1 coordinates that sum to zero."""
    rest = _ZERO
    for axis in range(len(scales), 0, -1):
        scaled = features[axis - 1] * scales[axis - 1]
        lifted[axis] = rest - np.float32(axis) * scaled
        rest += scaled
    lifted[0] = rest


@_compiled
@no_type_check
def _enclose(lifted, strides, offset, order):
    """Find the simplex around a lifted point; return the packed key of its corner of remainder 0.

    offset: distances from that corner, in units of d + 1. order: coordinates by falling offset.
    """
    size = len(strides)
    rank = np.empty(size, np.int32)
    whole = np.empty(size, np.int32)
    excess = np.int32(0)
    for axis in range(size):
        nearest = np.rint(lifted[axis] * (_ONE / np.float32(size)))
        whole[axis] = np.int32(nearest)
        excess += whole[axis]
        offset[axis] = lifted[axis] - nearest * np.float32(size)
        rank[axis] = 0
    for axis in range(size):
        for other in range(axis + 1, size):
            behind = np.int32(offset[axis] < offset[other])
            rank[axis] += behind
            rank[other] += 1 - behind
    key = np.int64(0)
    for axis in range(size):  # the nearest remainder-0 points of each axis need not sum to zero: shift the ranks until
        place = rank[axis] + excess
        if place < 0:
            place += size
            whole[axis] += 1
        elif place >= size:
            place -= size
            whole[axis] -= 1
        order[place] = axis
        offset[axis] = (lifted[axis] - np.float32(whole[axis] * size)) * (_ONE / np.float32(size))
        key += strides[axis] * whole[axis] * size
    return key


@_compiled
@no_type_check
def locate(features, scales, strides, keys, weights):
    """Write packed keys [n, d + 1] and barycentric weights [n, d + 1] of the corners around features [n, d]."""
    size = len(strides)
    diagonal = np.int64(0)
    for axis in range(size):
        diagonal += strides[axis]
    lifted, offset, order = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.int32)
    for point in range(len(features)):
        _lift(features[point], scales, lifted)
        key = _enclose(lifted, strides, offset, order)
        keys[point, 0] = key
        weights[point, 0] = _ONE + offset[order[size - 1]] - offset[order[0]]
        for corner in range(1, size):
            turned = order[size - corner]
            key += diagonal - size * strides[turned]
            keys[point, corner] = key
            weights[point, corner] = offset[order[size - 1 - corner]] - offset[turned]


@_compiled
@no_type_check
def _shift(table):
    """Return by how much a spread key is shifted right to be a place in the table, whose size is a power of two."""
    shift = np.uint64(64)
    size = len(table)
    while size > 1:
        size >>= 1
        shift -= np.uint64(1)
    return shift


@_compiled
@no_type_check
def _slot(key, unique, table, shift):
    """Return the place of a key in the table: its own, or the free one where it belongs."""
    slot = np.int64((np.uint64(key) * _SPREAD) >> shift)
    while table[slot] >= 0 and unique[table[slot]] != key:
        slot = (slot + 1) & (len(table) - 1)
    return slot


@_compiled
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


@_compiled
@no_type_check
def fill_table(unique, table):
    """Enter distinct keys into an empty table."""
    shift = _shift(table)
    for number in range(len(unique)):
        table[_slot(unique[number], unique, table, shift)] = number


@_compiled
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


@_compiled
@no_type_check
def splat(numbers, weights, values, reference, splatted, corners):
    """Add what has changed of values [n], compared with what was splatted last, to the lattice [M + 1]."""
    for point in range(len(values)):
        change = values[point] - reference[point]
        if abs(change) > SPLAT_TOLERANCE:
            reference[point] = values[point]
            for corner in range(len(corners)):
                splatted[numbers[point, corner]] += weights[point, corner] * change


@_compiled
@no_type_check
def blur(splatted, before, after, work):
    """Blur lattice values [M + 1] along all axes in turn; return the row of ``work`` [2, M + 1] with the result."""
    source, target = splatted, work[0]
    for axis in range(len(before)):
        target = work[axis % 2]
        for number in range(len(splatted) - 1):
            target[number] = source[number] + _HALF * (source[before[axis, number]] + source[after[axis, number]])
        source = target
    return target


@_compiled
@no_type_check
def slice_onto(numbers, weights, blurred, factor, message, corners):
    """Add ``factor`` times the filtered value of each point to ``message`` [n]."""
    for point in range(len(message)):
        value = _ZERO
        for corner in range(len(corners)):
            value += weights[point, corner] * blurred[numbers[point, corner]]
        message[point] += factor * value


@_compiled
@no_type_check
def _exponential(values, size, powers):
    """Replace ``size`` values by their exponentials, relative error 2e-7; ``powers`` is room for as many int32."""
    as_floats = powers.view(np.float32)
    for i in range(size):
        scaled = min(max(values[i] * _LOG2_E, -_EXPONENT_LIMIT), _EXPONENT_LIMIT)
        whole = np.floor(scaled + _HALF)
        x = scaled - whole
        powers[i] = (np.int32(whole) + _EXPONENT_BIAS) << _FRACTION_BITS
        values[i] = _ONE + x * (_C1 + x * (_C2 + x * (_C3 + x * (_C4 + x * (_C5 + x * _C6)))))
    for i in range(size):
        values[i] *= as_floats[i]


@_compiled
@no_type_check
def _soft_maximum(leads, size, mass, powers):
    """Replace ``size`` leads over the last label [l - 1, ...] by the probabilities of these labels."""
    mass[:size] = _ZERO  # the last label leads itself by nothing
    for label in range(len(leads)):
        lead = leads[label]
        for i in range(size):
            mass[i] = min(mass[i], -lead[i])
    for label in range(len(leads)):
        lead = leads[label]
        for i in range(size):
            lead[i] += mass[i]
        _exponential(lead, size, powers)
    _exponential(mass, size, powers)
    for label in range(len(leads)):
        lead = leads[label]
        for i in range(size):
            mass[i] += lead[i]
    for label in range(len(leads)):
        lead = leads[label]
        for i in range(size):
            lead[i] /= mass[i]


@_compiled
@no_type_check
def normalise(advantage, message, total, probabilities):
    """Turn unary terms and messages into probabilities of all labels but the last [l - 1, n].

    advantage: by how much the last label's unary energy exceeds that of each other label [l - 1, n].
    message: weighted filtered probabilities of those labels [l - 1, n]. total: their sum over all labels [n], which
    does not change, so the last label's message is what is left of it.
    """
    num_leads, num_points = probabilities.shape
    leads = np.empty((num_leads, _BLOCK), np.float32)
    mass, powers = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.int32)
    for start in range(0, num_points, _BLOCK):
        stop = min(start + _BLOCK, num_points)
        own = total[start:stop]
        for i in range(stop - start):
            mass[i] = own[i]
        for label in range(num_leads):
            heard = message[label, start:stop]
            for i in range(stop - start):
                mass[i] -= heard[i]
        for label in range(num_leads):
            lead, unary, heard = leads[label], advantage[label, start:stop], message[label, start:stop]
            for i in range(stop - start):
                lead[i] = unary[i] + heard[i] - mass[i]
        _soft_maximum(leads, stop - start, mass, powers)
        for label in range(num_leads):
            lead, written = leads[label], probabilities[label, start:stop]
            for i in range(stop - start):
                written[i] = lead[i]
