"""One iteration of mean field on placed points, compiled for the CPU.

    splat         what has changed of the probabilities -> lattice
    blur          lattice -> lattice
    hear          which lattice points have moved enough to be heard
    mark_stale    chunks of points that those speak to
    slice_stale   lattice -> messages to these points
    normalise     unary terms and messages -> probabilities

Most points are decided after a few iterations. So that these cost little, work is left out where nothing moves by more
than TOLERANCE, compared with the value that was last passed on: what is missing never adds up over iterations. Points
are handled in chunks; a chunk is stale when one of its messages has changed.

Loops over corners go over a tuple: its length is part of its type, so they are unrolled.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np

from model.compiled import compiled

TOLERANCE = 1e-6
"""Largest change of a probability, or of a lattice point's part in a message, that is not passed on.

About ten steps of float32 below 1. On recorded frames the largest difference of a probability from pydensecrf's is
2.6e-4 with it and without it.
"""

CHUNK = 64  # points
_LOG2_E = np.float32(1 / math.log(2))
_C1, _C2, _C3, _C4, _C5, _C6 = (np.float32(math.log(2) ** n / math.factorial(n)) for n in range(1, 7))  # of 2^x
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_EXPONENT_LIMIT, _EXPONENT_BIAS, _FRACTION_BITS = np.float32(126), np.int32(127), np.int32(23)  # of float32


@compiled
@no_type_check
def find_pairs(numbers, weights, pairs, reach):
    """List which lattice point is beside which chunk, once each, as ``pairs`` [2, ...]; return their number.

    reach: the largest weight [M] by which a lattice point speaks to any point is written here.
    """
    last = np.full(len(reach), -1, np.int32)
    count = 0
    for point in range(numbers.shape[0]):
        chunk = point // CHUNK
        for corner in range(numbers.shape[1]):
            number = numbers[point, corner]
            reach[number] = max(reach[number], weights[point, corner])
            if last[number] != chunk:
                last[number] = chunk
                pairs[0, count], pairs[1, count] = number, chunk
                count += 1
    return count


@compiled
@no_type_check
def sort_pairs(pairs, starts, chunks):
    """Write the chunks beside lattice point i to ``chunks[starts[i]:starts[i + 1]]``; ``starts`` [M + 2] is zero."""
    for place in range(pairs.shape[1]):
        starts[pairs[0, place] + 2] += 1
    for number in range(len(starts) - 1):
        starts[number + 1] += starts[number]
    for place in range(pairs.shape[1]):
        number = pairs[0, place]
        chunks[starts[number + 1]] = pairs[1, place]
        starts[number + 1] += 1


@compiled
@no_type_check
def splat(numbers, weights, values, reference, splatted, stale, corners):
    """Add what has changed of values [n], compared with what was splatted last, to the lattice [M + 1]."""
    for chunk in range(len(stale)):
        if not stale[chunk]:
            continue
        for point in range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(values))):
            change = values[point] - reference[point]
            if abs(change) > TOLERANCE:
                reference[point] = values[point]
                for corner in range(len(corners)):
                    splatted[numbers[point, corner]] += weights[point, corner] * change


@compiled
@no_type_check
def blur(splatted, before, after, blurred, spare):
    """Blur lattice values [M + 1] along all axes in turn, into ``blurred``."""
    source = splatted
    for axis in range(len(before)):
        target = spare if (len(before) - axis) % 2 == 0 else blurred
        for number in range(len(splatted) - 1):
            target[number] = source[number] + _HALF * (source[before[axis, number]] + source[after[axis, number]])
        source = target


@compiled
@no_type_check
def hear(blurred, reach, heard, moved):
    """Take over the lattice values [M] that have moved enough to matter to a point; return how many have."""
    count = 0
    for number in range(len(reach)):
        far = abs(blurred[number] - heard[number]) * reach[number] > TOLERANCE
        moved[number] = far
        heard[number] = blurred[number] if far else heard[number]
        count += far
    return count


@compiled
@no_type_check
def mark_stale(moved, starts, chunks, stale):
    """Mark the chunks beside lattice points that have moved."""
    for number in range(len(moved)):
        if moved[number]:
            for place in range(starts[number], starts[number + 1]):
                stale[chunks[place]] = True


@compiled
@no_type_check
def slice_stale(numbers, weights, values, factor, message, stale, corners):
    """Write ``factor`` times the filtered values of the points in stale chunks."""
    for chunk in range(len(stale)):
        if not stale[chunk]:
            continue
        for point in range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(message))):
            value = _ZERO
            for corner in range(len(corners)):
                value += weights[point, corner] * values[numbers[point, corner]]
            message[point] = factor * value


@compiled
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


@compiled
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


@compiled
@no_type_check
def _sum_leads(advantage, messages, total, start, stop, leads, mass):
    """Write by how much each label leads the last [l - 1, ...] in the points from ``start`` to ``stop``."""
    own = total[start:stop]
    for i in range(stop - start):
        mass[i] = own[i]
    for label in range(len(leads)):
        lead, unary = leads[label], advantage[label, start:stop]
        for i in range(stop - start):
            lead[i] = unary[i]
        for message in messages:
            heard = message[label, start:stop]
            for i in range(stop - start):
                lead[i] += heard[i]
                mass[i] -= heard[i]
    for label in range(len(leads)):
        lead = leads[label]
        for i in range(stop - start):
            lead[i] -= mass[i]


@compiled
@no_type_check
def normalise(advantage, messages, total, probabilities, stale):
    """Turn unary terms and messages into probabilities of all labels but the last [l - 1, n], in stale chunks.

    advantage: by how much the last label's unary energy exceeds that of each other label [l - 1, n].
    messages: of each term, weighted filtered probabilities of those labels [l - 1, n]. total: their sum over terms and
    all labels [n], which does not change, so the last label's message is what is left of it.
    """
    num_leads, num_points = probabilities.shape
    leads = np.empty((num_leads, CHUNK), np.float32)
    mass, powers = np.empty(CHUNK, np.float32), np.empty(CHUNK, np.int32)
    for chunk in range(len(stale)):
        if not stale[chunk]:
            continue
        start, stop = chunk * CHUNK, min((chunk + 1) * CHUNK, num_points)
        _sum_leads(advantage, messages, total, start, stop, leads, mass)
        _soft_maximum(leads, stop - start, mass, powers)
        for label in range(num_leads):
            lead, written = leads[label], probabilities[label, start:stop]
            for i in range(stop - start):
                written[i] = lead[i]
