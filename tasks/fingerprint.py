"""The perceptual fingerprint of a clip: alike for copies that were re-encoded, rescaled, re-rated or trimmed a little.

A clip is parted into ``NUM_PARTS`` parts of equal length, the frames of each part are averaged, and the averages are
hashed by pHash (64 bits: signs of the low frequencies of a 32x32 picture). Averages over time, after Esmaeili,
Fatourechi and Ward, "A robust and fast video copy detection system using content-based fingerprinting" (IEEE TIFS
2011), do not care which frames a copy kept.

Two fingerprints are compared by the number of bits that differ, of ``NUM_BITS``. On ten real sequences these were at
most 20 for copies, at least 100 for different ones, and 58 or more for the two halves of one
(``pipelines/experiments/LOG.md``).
"""

from __future__ import annotations

import cv2
import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

NUM_PARTS = 4
NUM_BITS = 64 * NUM_PARTS
NUM_BYTES = NUM_BITS // 8

SIDE = 32
"""Rows and columns of the pictures that are averaged: what pHash works on."""

MIN_CONTRAST = 2.0
"""Standard deviation, in grey levels, of the flattest average that can be told from another; black has none."""

_MAX_BINS = 16 * NUM_PARTS  # how finely a clip of unknown length is kept; a part is off by half a bin at most

Picture = NDArray[np.float32]


class FingerprintBuilder:
    """Sees the frames of a clip, one by one, and holds ``_MAX_BINS`` small pictures however many there are."""

    def __init__(self) -> None:
        self._bins: list[tuple[Picture, int]] = []
        self._span = 1  # frames of a full bin

    def add(self, grey: NDArray[np.uint8]) -> None:
        """Take the next frame, uint8 [H, W], of any size."""
        picture = np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), dtype=np.float32)
        if self._bins and self._bins[-1][1] < self._span:
            self._bins[-1] = _sum(self._bins[-1], (picture, 1))
        else:
            if len(self._bins) == _MAX_BINS:
                self._bins = [_sum(*self._bins[at : at + 2]) for at in range(0, _MAX_BINS, 2)]
                self._span *= 2
            self._bins.append((picture, 1))

    def finish(self) -> bytes | None:
        """The fingerprint, NUM_BYTES long; None for a clip without frames, or with too little to see in some part."""
        if not self._bins:
            return None
        averages = _averages(self._bins)
        if min(float(average.std()) for average in averages) < MIN_CONTRAST:
            return None
        return b"".join(np.packbits(_phash(average)).tobytes() for average in averages)


def distance(first: bytes, second: bytes) -> int:
    """How many bits of two fingerprints differ."""
    return (int.from_bytes(first) ^ int.from_bytes(second)).bit_count()


def _phash(picture: Picture) -> NDArray[np.bool_]:
    image = Image.fromarray(np.rint(picture).clip(0, 255).astype(np.uint8))
    return np.asarray(imagehash.phash(image, hash_size=8, highfreq_factor=SIDE // 8).hash, dtype=np.bool_)


def _averages(bins: list[tuple[Picture, int]]) -> list[Picture]:
    """One average per part. A bin belongs to the part that its middle is in; a clip of few frames repeats them."""
    counts = np.array([count for _, count in bins])
    middles = (np.cumsum(counts) - counts / 2) / counts.sum()
    parts = np.minimum((middles * NUM_PARTS).astype(int), NUM_PARTS - 1)
    averages = []
    for part in range(NUM_PARTS):
        inside = np.flatnonzero(parts == part)
        if not len(inside):
            inside = np.array([np.abs(middles - (part + 0.5) / NUM_PARTS).argmin()])
        total = sum(bins[at][0] for at in inside)
        averages.append(np.asarray(total / counts[inside].sum(), dtype=np.float32))
    return averages


def _sum(first: tuple[Picture, int], second: tuple[Picture, int]) -> tuple[Picture, int]:
    return first[0] + second[0], first[1] + second[1]
