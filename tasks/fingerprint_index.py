"""Which of a million fingerprints differ from one in a few bits, without looking at all of them.

Multi-index hashing (Norouzi, Punjani and Fleet, "Fast search in Hamming space with multi-index hashing", CVPR 2012):
a fingerprint is cut into 16 words of 16 bits. If two differ in at most ``MAX_DISTANCE`` = 31 bits, then in one word at
least they differ in one bit or none (16 words with 2 each would make 32). So it is enough to compare with fingerprints
that share a word up to one bit: 17 of 65536 values for each of 16 words, one in 240 of all, and none is missed.
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
_PROBES = np.array([0, *(1 << bit for bit in range(16))], np.uint16)  # a word itself, and each of its bits turned
_MIN_UNSORTED = 4096  # the newest fingerprints are compared one by one until there are this many


class FingerprintIndex:
    """Fingerprints by the order in which they were added, 32 bytes each and 64 for the look-up."""

    def __init__(self) -> None:
        self._words = np.empty((0, _NUM_WORDS), np.uint16)
        self._size = 0
        self._num_sorted = 0
        self._order: list[NDArray[np.uint32]] = []  # per word: numbers of the sorted part by value of that word
        self._starts: list[NDArray[np.uint32]] = []  # per word and value: where in ``order`` it begins

    def __len__(self) -> int:
        return self._size

    def add(self, fingerprints: Sequence[bytes]) -> None:
        """Add fingerprints, which get the next numbers. Raises InputError for one of another length."""
        if any(len(one) != NUM_BYTES for one in fingerprints):
            raise InputError(f"a fingerprint has not {NUM_BYTES} bytes: it is of another kind; ingest the clip again")
        new = np.frombuffer(b"".join(fingerprints), np.uint16).reshape(-1, _NUM_WORDS)
        needed = self._size + len(new)
        if needed > len(self._words):
            grown = np.empty((max(needed, 2 * len(self._words)), _NUM_WORDS), np.uint16)
            grown[: self._size] = self._words[: self._size]
            self._words = grown
        self._words[self._size : needed] = new
        self._size = needed
        if self._size - self._num_sorted > max(_MIN_UNSORTED, self._num_sorted // 8):  # sorts 9 times in all at most
            self._sort()

    def find(self, fingerprint: bytes) -> list[tuple[int, int]]:
        """Return (number, distance) of all within MAX_DISTANCE, nearest first, then in the order of their numbers."""
        words = np.frombuffer(fingerprint, np.uint16)
        candidates = np.concatenate([self._sharing_a_word(words), np.arange(self._num_sorted, self._size)])
        different = np.bitwise_count(self._words[candidates] ^ words).sum(axis=1, dtype=np.int64)
        near = different <= MAX_DISTANCE
        found = zip(candidates[near].tolist(), different[near].tolist(), strict=True)
        return sorted(found, key=lambda pair: (pair[1], pair[0]))

    def _sharing_a_word(self, words: NDArray[np.uint16]) -> NDArray[np.int64]:
        parts = []
        for order, starts, word in zip(self._order, self._starts, words, strict=False):
            for value in (_PROBES ^ word).tolist():
                if starts[value] != starts[value + 1]:
                    parts.append(order[starts[value] : starts[value + 1]])
        return np.unique(np.concatenate(parts)).astype(np.int64) if parts else np.empty(0, np.int64)

    def _sort(self) -> None:
        self._num_sorted = self._size
        columns = self._words[: self._size].T
        self._order = [np.argsort(column, kind="stable").astype(np.uint32) for column in columns]
        self._starts = [
            np.concatenate([[0], np.cumsum(np.bincount(column, minlength=1 << 16))]).astype(np.uint32)
            for column in columns
        ]
