"""Resampling against the definition: for every tick the nearest frame, each frame once."""

from __future__ import annotations

import random
from itertools import accumulate

import pytest

from tasks.resampling import resample


def _by_definition(times: list[float], fps: float) -> list[int]:
    """Index of the frame nearest to each tick, the earlier of two as near; exact for times in 64ths of a second."""
    chosen, tick = [], 0
    while (target := times[0] + tick / fps) <= times[-1]:
        chosen.append(min(range(len(times)), key=lambda index: (abs(times[index] - target), index)))
        tick += 1
    return sorted(set(chosen))


@pytest.mark.parametrize("fps", [0.5, 4, 16, 32, 128])  # powers of two, so that ticks are exact and ties are ties
def test_each_tick_gets_its_nearest_frame(fps: float) -> None:
    generator = random.Random(0)
    for _ in range(30):
        steps = [generator.choice([1, 1, 2, 3, 9, 40]) / 64 for _ in range(generator.randrange(1, 40))]
        times = list(accumulate(steps, initial=generator.choice([0.0, 2.5])))
        got = list(resample([(time, index) for index, time in enumerate(times)], fps))
        assert [index for _, index in got] == _by_definition(times, fps)
        assert [time for time, _ in got] == [times[index] for _, index in got]


def test_no_frames_give_none_and_one_gives_itself() -> None:
    assert list(resample([], 10)) == []
    assert list(resample([(7.0, "a")], 10)) == [(7.0, "a")]


@pytest.mark.parametrize(("fps", "last"), [(30.0, 2.0**53), (1e15, 1.0)])
def test_a_timestamp_far_away_costs_no_time(fps: float, last: float) -> None:
    frames = [(0.0, "a"), (0.5, "b"), (last, "c")]
    assert list(resample(frames, fps)) == frames
