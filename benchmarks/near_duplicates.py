"""Looking for near-duplicates of a clip among a million: the index against comparing with every fingerprint.

Fingerprints are random, as those of different clips nearly are; half of what is looked for has a copy.
"""

from __future__ import annotations

import numpy as np

from benchmarks.timing import best_seconds, print_ratios
from tasks.fingerprint import NUM_BYTES
from tasks.fingerprint_index import MAX_DISTANCE, FingerprintIndex

PEER = "every fingerprint, numpy (peer)"
NUM_LOOKUPS, NUM_PEER_LOOKUPS = 200, 10


def main() -> None:
    """Print the time of a look-up and its ratio at three sizes."""
    for count in (10_000, 100_000, 1_000_000):
        compare(count)


def compare(count: int) -> None:
    """Look up the same fingerprints both ways, and check that both find the same."""
    random = np.random.default_rng(0)
    data = random.bytes(NUM_BYTES * count)
    index = FingerprintIndex()
    index.add([data[at : at + NUM_BYTES] for at in range(0, len(data), NUM_BYTES)])
    words = np.frombuffer(data, np.uint64).reshape(count, -1)
    copies = [words[number].tobytes() for number in random.integers(0, count, NUM_LOOKUPS // 2)]
    wanted = [fingerprint for copy in copies for fingerprint in (copy, random.bytes(NUM_BYTES))]

    def peer() -> list[list[int]]:
        return [_compare_with_all(words, fingerprint) for fingerprint in wanted[:NUM_PEER_LOOKUPS]]

    def ours() -> list[list[tuple[int, int]]]:
        return [index.find(fingerprint) for fingerprint in wanted]

    assert peer() == [[number for number, _ in found] for found in ours()[:NUM_PEER_LOOKUPS]]
    seconds = best_seconds({PEER: peer, "index": ours}, rounds=3)
    each = {PEER: seconds[PEER] / NUM_PEER_LOOKUPS, "index": seconds["index"] / NUM_LOOKUPS}
    print_ratios(f"near-duplicates of a clip among {count}, 1 thread", each, peer=PEER)


def _compare_with_all(words: np.ndarray, fingerprint: bytes) -> list[int]:
    different = np.bitwise_count(words ^ np.frombuffer(fingerprint, np.uint64)).sum(axis=1, dtype=np.int64)
    return np.flatnonzero(different <= MAX_DISTANCE).tolist()


if __name__ == "__main__":
    main()
