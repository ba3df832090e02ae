"""Alternating timing: A B A B in one process, so that the machine's mood hits both alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


def best_seconds(
    candidates: Mapping[str, Callable[[], object]], *, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Run every candidate once to warm up, then ``rounds`` times in turn; return each one's best time in seconds.

    clock: ``time.process_time`` for work of one thread that waits for nothing, where others use the machine too.
    """
    best = dict.fromkeys(candidates, float("inf"))
    for measured in range(rounds + 1):
        for name, run in candidates.items():
            started = clock()
            run()
            if measured:
                best[name] = min(best[name], clock() - started)
    return best


def print_ratios(title: str, seconds: Mapping[str, float], *, peer: str) -> None:
    """Print one line per candidate: milliseconds and how many times faster than ``peer``."""
    print(title)
    for name, value in seconds.items():
        print(f"  {name:<46} {value * 1e3:10.3f} ms   {seconds[peer] / value:8.1f} x")
