"""Which of a million fingerprints differ from one in a few bits, without looking at all of them.

Multi-index hashing (Norouzi, Punjani and Fleet, "Fast search in Hamming space with multi-index hashing", CVPR 2012):
a fingerprint is cut into 8 pairs of words of 16 bits. If two differ in at most ``MAX_DISTANCE`` = 31 bits, then in one
pair at least they differ in 3 or fewer (8 pairs with 4 each would make 32), so in one of its words in one bit or none.
So it is enough to go through the fingerprints that share a word up to one bit, 17 of 65536 values for each of 16 words,
one in 240 of all; and to compare with those whose other word of the pair, which lies beside their number, differs in 3
bits or fewer, one in 94 of them. None is missed.

The newest fingerprints wait unsorted; when there are ``_MAX_WAITING`` they become a sorted part, and a part that has
grown to a sixteenth of the one before it is merged with it. So there are few parts, and each fingerprint is sorted a
few times for every sixteenfold growth, whatever their number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.errors import InputError
from tasks.fingerprint import NUM_BYTES

MAX_DISTANCE = 31
"""Bits of 256 in which near-duplicates differ at most; the larger it is, the more a look-up must compare."""

_NUM_WORDS = NUM_BYTES // 2
_NUM_VALUES = 1 << 16
_PROBES = np.array([0, *(1 << bit for bit in range(16))], np.uint16)  # a word itself, and each of its bits turned
_ROWS = np.arange(_NUM_WORDS)[:, None] * (_NUM_VALUES + 1)  # where a word's values begin in ``_SortedPart._starts``
_MAX_OF_PAIR = 3
_MAX_WAITING = 4096  # compared one by one, in 30 us
_GROWTH = 16

Halves = NDArray[np.uint64]
"""One half of each fingerprint, [N, 2]."""


class _SortedPart:
    """Fingerprints ``first`` to ``end``, findable by the value of each of their words."""

    def __init__(self, halves: Sequence[Halves], first: int, end: int) -> None:
        self.first, self.end = first, end
        words = np.concatenate([half[first:end].view(np.uint16) for half in halves], axis=1).T
        orders = [np.argsort(word, kind="stable").astype(np.uint32) for word in words]
        self._partners = np.concatenate([words[at ^ 1][order] for at, order in enumerate(orders)])
        self._numbers = np.concatenate(orders) + np.uint32(first)
        counts = np.stack([np.bincount(word, minlength=_NUM_VALUES) for word in words])
        starts = np.zeros((_NUM_WORDS, _NUM_VALUES + 1), np.int64)
        np.cumsum(counts, axis=1, out=starts[:, 1:])
        starts += np.arange(_NUM_WORDS)[:, None] * (end - first)
        self._starts = starts.ravel()  # where the numbers with a value of a word begin in ``_numbers``

    def find(self, places: NDArray[np.int64], partners: NDArray[np.uint16]) -> NDArray[np.intp]:
        """Numbers of those with the values at ``places`` of ``_starts``, and nearly the other word of the pair."""
        starts = self._starts[places]
        lengths = self._starts[places + 1] - starts
        ends = np.cumsum(lengths)
        slots = np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1])
        different = np.bitwise_count(self._partners[slots] ^ np.repeat(partners, lengths))
        return self._numbers[slots[different <= _MAX_OF_PAIR]].astype(np.intp)


class FingerprintIndex:
    """Fingerprints by the order in which they were added, 32 bytes each (64 after growth) and 96 for the look-up."""

    def __init__(self) -> None:
        self._halves = [np.empty((0, 2), np.uint64), np.empty((0, 2), np.uint64)]
        self._size = 0
        self._parts: list[_SortedPart] = []

    def __len__(self) -> int:
        return self._size

    def add(self, fingerprints: Sequence[bytes]) -> None:
        """Add fingerprints, which get the next numbers. Raises InputError for one of another length."""
        if any(len(one) != NUM_BYTES for one in fingerprints):
            raise InputError(f"a fingerprint has not {NUM_BYTES} bytes: it is of another kind; ingest the clip again")
        new = np.frombuffer(b"".join(fingerprints), np.uint64).reshape(-1, 4)
        end = self._size + len(new)
        for at, half in enumerate(self._halves):
            if end > len(half):
                grown = np.empty((max(end, 2 * len(half)), 2), np.uint64)
                grown[: self._size] = half[: self._size]
                self._halves[at] = grown
            self._halves[at][self._size : end] = new[:, 2 * at : 2 * at + 2]
        self._size = end
        if end - self._num_sorted >= _MAX_WAITING:
            self._sort()

    def find(self, fingerprint: bytes) -> list[tuple[int, int]]:
        """Return (number, distance) of all within MAX_DISTANCE, nearest first, then in the order of their numbers."""
        wanted = np.frombuffer(fingerprint, np.uint64)
        words = np.frombuffer(fingerprint, np.uint16)
        places = ((words[:, None] ^ _PROBES) + _ROWS).ravel()
        partners = np.repeat(words[np.arange(_NUM_WORDS) ^ 1], len(_PROBES))
        waiting = np.flatnonzero(_distances(self._halves[0][self._num_sorted : self._size], wanted[:2]) <= MAX_DISTANCE)
        parts = [part.find(places, partners) for part in self._parts]
        numbers = np.unique(np.concatenate([*parts, waiting + self._num_sorted]))
        first, second = (_distances(half[numbers], wanted[2 * at :][:2]) for at, half in enumerate(self._halves))
        pairs = zip(numbers.tolist(), (first.astype(np.int64) + second).tolist(), strict=True)
        return sorted((pair for pair in pairs if pair[1] <= MAX_DISTANCE), key=lambda pair: (pair[1], pair[0]))

    @property
    def _num_sorted(self) -> int:
        return self._parts[-1].end if self._parts else 0

    def _sort(self) -> None:
        first = self._num_sorted
        while self._parts and (self._size - first) * _GROWTH >= self._parts[-1].end - self._parts[-1].first:
            first = self._parts.pop().first
        self._parts.append(_SortedPart(self._halves, first, self._size))


def _distances(halves: Halves, wanted: Halves) -> NDArray[np.uint8]:
    """Bits in which each differs from one half of a fingerprint, [N], 128 at most."""
    bits = np.bitwise_count(halves ^ wanted)
    return np.asarray(bits[:, 0] + bits[:, 1], np.uint8)
