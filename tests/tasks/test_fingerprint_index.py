"""Near fingerprints are all found, and no others: checked against comparing with every one."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.errors import InputError
from tasks.fingerprint import NUM_BITS, NUM_BYTES, distance
from tasks.fingerprint_index import MAX_DISTANCE, FingerprintIndex


def turned(fingerprint: bytes, num_bits: int, random: np.random.Generator) -> bytes:
    """The same with this many bits turned, wherever they are."""
    bits = np.unpackbits(np.frombuffer(fingerprint, np.uint8))
    bits[random.choice(NUM_BITS, num_bits, replace=False)] ^= 1
    return np.packbits(bits).tobytes()


@pytest.mark.parametrize("count", [200, 12_000])  # compared one by one; and mostly looked up
def test_what_is_near_is_found_and_nothing_else(count: int) -> None:
    random = np.random.default_rng(count)
    stored = [random.bytes(NUM_BYTES) for _ in range(count)]
    index = FingerprintIndex()
    for start in range(0, count, 1000):
        index.add(stored[start : start + 1000])
    assert len(index) == count
    for num_bits in (0, 1, 16, MAX_DISTANCE, MAX_DISTANCE + 1, 40):
        for number in random.integers(0, count, 20).tolist():
            wanted = turned(stored[number], num_bits, random)
            by_hand = [(other, distance(one, wanted)) for other, one in enumerate(stored)]
            expected = [(other, bits) for other, bits in by_hand if bits <= MAX_DISTANCE]
            assert index.find(wanted) == expected
            assert bool(expected) == (num_bits <= MAX_DISTANCE)


def test_the_worst_case_is_found() -> None:
    """31 bits spread as evenly as they can be: 15 words differ in two bits, one in a single bit."""
    random = np.random.default_rng(0)
    stored = [random.bytes(NUM_BYTES) for _ in range(9000)]
    index = FingerprintIndex()
    index.add(stored)
    bits = np.unpackbits(np.frombuffer(stored[77], np.uint8))
    bits[np.r_[0:NUM_BITS:16, 5 : NUM_BITS - 16 : 16]] ^= 1
    assert index.find(np.packbits(bits).tobytes()) == [(77, 31)]


def test_the_nearest_come_first_and_equals_in_order() -> None:
    random = np.random.default_rng(1)
    one = random.bytes(NUM_BYTES)
    index = FingerprintIndex()
    index.add([turned(one, 9, random), one, turned(one, 3, random), one])
    assert index.find(one) == [(1, 0), (3, 0), (2, 3), (0, 9)]


def test_an_empty_index_finds_nothing() -> None:
    assert FingerprintIndex().find(bytes(NUM_BYTES)) == []


def test_a_fingerprint_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match="another kind"):
        FingerprintIndex().add([b"short"])
