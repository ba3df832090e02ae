"""Which frame pair trains at which step: a pure function of (seed, step, slot).

Nothing is shuffled and nothing is remembered, so training resumes at any step by starting to count there, and the
global batch is the same for any number of workers: slot s of a batch belongs to rank s % world_size.

A clip is drawn uniformly (not in proportion to its length), then a gap, then a frame among those that have a frame
``gap`` later in the clip (GWM, section 4.1 and its released sampler). Where several sets train together, the set is
drawn first, in proportion to its frames, as the released code does; it counts only frames that have optical flow over
its first two gaps, up to 3 % fewer on SegTrackv2.

The last frames of every clip can be held out: the network is then never shown one of them, and what it makes of them
tells checkpoints apart without a label. Frames in a row, not single ones, since neighbours are nearly the same image.

Draws use raw Philox words: NumPy promises that a bit generator's stream never changes, which it does not promise for
``Generator.integers``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from tasks.errors import DatasetError

GapSampling = Literal["uniform", "released"]
Part = Literal["trained", "held_out"]

_DRAWS_PER_SAMPLE = 4
"""Draws for each distinct sample that is wanted: a small set is then as good as exhausted, where draws repeat."""


@dataclass(frozen=True, kw_only=True)
class ClipIndex:
    """What sampling needs to know of a clip: its length, the gaps it has optical flow over, which set it is of."""

    num_frames: int
    gaps: tuple[int, ...] = ()
    dataset: int = 0


@dataclass(frozen=True, kw_only=True)
class SampleKey:
    """One training sample: indices of clip and frame, the frame gap, and whether it is mirrored."""

    clip: int
    frame: int
    gap: int
    flip: bool


@dataclass(frozen=True, kw_only=True)
class DrawnClip:
    """A clip that can be drawn.

    images: numbers of the frames that may be shown to the network; flow may lead from them to any frame of the clip.
    odds: ((gap, cumulative probability), ...).
    """

    clip: int
    num_frames: int
    images: range
    odds: tuple[tuple[int, float], ...] = ()

    def frames(self, gap: int) -> range:
        """Return which of the images have a frame ``gap`` later in the clip."""
        return range(max(self.images.start, -gap), min(self.images.stop, self.num_frames - max(gap, 0)))


@dataclass(frozen=True, kw_only=True)
class SamplingPlan:
    """Clips that can be drawn, by set, and for each the gaps that fit in it with their cumulative probabilities.

    sets: (cumulative probability of the set, its clips).
    """

    seed: int
    flip: bool
    sets: tuple[tuple[float, tuple[DrawnClip, ...]], ...]


def plan_sampling(
    *,
    seed: int,
    clips: Sequence[ClipIndex],
    gaps: Sequence[int] | None,
    gap_sampling: GapSampling = "uniform",
    flip: bool = False,
    held_out_percent: int = 0,
    part: Part = "trained",
) -> SamplingPlan:
    """Leave out clips that are too short for every gap, and fix the odds of the gaps that remain.

    gaps: of all clips; None takes each clip's own. held_out_percent: of each clip's frames, the last ones, that are
    never shown in training; ``part`` says which of both is drawn from. Raises DatasetError when no clip is left.
    """
    by_set: dict[int, list[DrawnClip]] = {}
    for index, clip in enumerate(clips):
        weights = gap_weights(clip.gaps if gaps is None else gaps, gap_sampling)
        images = split_frames(clip.num_frames, held_out_percent)[part]
        drawn = DrawnClip(clip=index, num_frames=clip.num_frames, images=images)
        odds = _cumulative({gap: weight for gap, weight in weights.items() if drawn.frames(gap)})
        if odds:
            by_set.setdefault(clip.dataset, []).append(replace(drawn, odds=odds))
    if not by_set:
        longest = max((clip.num_frames for clip in clips), default=0)
        shown = sorted({gap for clip in clips for gap in clip.gaps}) if gaps is None else gaps
        aside = f", of which {held_out_percent} % are held out" if held_out_percent else ""
        raise DatasetError(
            f"none of {len(clips)} clips can be {_PARTS[part]}: the longest has {longest} frames{aside} and the gaps "
            f"are {tuple(shown)}; ingest longer clips or train with smaller gaps"
        )
    frames = [sum(len(clip.images) for clip in of_set) for of_set in by_set.values()]
    upto = (np.cumsum(frames) / sum(frames)).tolist()
    return SamplingPlan(
        seed=seed, flip=flip, sets=tuple(zip(upto, (tuple(of_set) for of_set in by_set.values()), strict=True))
    )


_PARTS: dict[Part, str] = {"trained": "trained on", "held_out": "held out from"}


def split_frames(num_frames: int, held_out_percent: int) -> dict[Part, range]:
    """Return which frames of a clip are trained on and which are held out: the last ones, at least one."""
    first = num_frames - math.ceil(num_frames * held_out_percent / 100)
    return {"trained": range(first), "held_out": range(first, num_frames)}


def gap_weights(gaps: Sequence[int], gap_sampling: GapSampling) -> dict[int, float]:
    """Return the probability of each gap.

    uniform: as the paper says.
    released: as the authors' code draws. It picks one of the unordered pairs of gaps, taken in the order 1, 2, -1, -2,
    and trains on the first of the pair: +1 in 3 pairs of 6, +2 in 2, -1 in 1 and -2 in none. Gaps are put in that
    order (forwards, then backwards, near before far) whatever order they are given in.
    """
    if gap_sampling == "uniform" or len(gaps) <= 1:
        return {gap: 1 / len(gaps) for gap in gaps}
    ordered = sorted(gaps, key=lambda gap: (gap < 0, abs(gap)))
    num_pairs = len(ordered) * (len(ordered) - 1) // 2
    return {gap: (len(ordered) - 1 - place) / num_pairs for place, gap in enumerate(ordered)}


def sample_for(plan: SamplingPlan, *, step: int, slot: int) -> SampleKey:
    """Return the sample in ``slot`` of the global batch of ``step``; both count from 0."""
    words = np.random.Philox(np.random.SeedSequence((plan.seed, step, slot))).random_raw(5)
    # uniform in [0, 1); the set comes last, so that one set alone draws what it drew before there could be several
    at_clip, at_gap, at_frame, at_flip, at_set = ((words >> np.uint64(11)) * 2.0**-53).tolist()
    clips = next((clips for cumulative, clips in plan.sets if at_set < cumulative), plan.sets[-1][1])
    clip = clips[int(at_clip * len(clips))]
    gap = next((gap for gap, cumulative in clip.odds if at_gap < cumulative), clip.odds[-1][0])
    frames = clip.frames(gap)
    frame = frames.start + int(at_frame * len(frames))
    return SampleKey(clip=clip.clip, frame=frame, gap=gap, flip=plan.flip and at_flip < 0.5)


def distinct_samples(plan: SamplingPlan, num_wanted: int) -> tuple[SampleKey, ...]:
    """Return up to ``num_wanted`` different samples, the first that are drawn; fewer where there are not so many."""
    drawn = (sample_for(plan, step=0, slot=slot) for slot in range(_DRAWS_PER_SAMPLE * num_wanted))
    return tuple(dict.fromkeys(drawn))[:num_wanted]


def batch_for(
    plan: SamplingPlan, *, step: int, global_batch_size: int, rank: int = 0, world_size: int = 1
) -> tuple[SampleKey, ...]:
    """Return the samples of ``step`` that belong to ``rank``."""
    return tuple(sample_for(plan, step=step, slot=slot) for slot in range(rank, global_batch_size, world_size))


def random_seed_for(seed: int, step: int, rank: int) -> int:
    """Return the seed of torch's generators at one step of one worker, for networks that draw numbers (dropout)."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _cumulative(weights: dict[int, float]) -> tuple[tuple[int, float], ...]:
    return _cumulative_of(tuple((gap, weight) for gap, weight in weights.items() if weight > 0))


@lru_cache(maxsize=64)
def _cumulative_of(weights: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
    total = sum(weight for _, weight in weights)
    sums = np.cumsum([weight / total for _, weight in weights]).tolist() if weights else []
    return tuple((gap, upto) for (gap, _), upto in zip(weights, sums, strict=True))
