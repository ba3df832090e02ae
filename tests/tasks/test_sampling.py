from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import DatasetError
from tasks.sampling import (
    ClipIndex,
    SamplingPlan,
    batch_for,
    gap_weights,
    plan_sampling,
    random_seed_for,
    sample_for,
)

NUM_DRAWS = 12_000
TOLERANCE = 0.02  # four standard deviations of a share of one half over 12 000 draws


def plan_of(
    *num_frames: int, seed: int = 42, gaps: tuple[int, ...] = (1, 2, -1, -2), **options: object
) -> SamplingPlan:
    clips = [ClipIndex(num_frames=length) for length in num_frames]
    return plan_sampling(seed=seed, clips=clips, gaps=gaps, **options)  # type: ignore[arg-type]


def shares(values: list[object]) -> dict[object, float]:
    return {value: count / len(values) for value, count in Counter(values).items()}


def draws(plan: SamplingPlan) -> list[object]:
    return [sample_for(plan, step=step, slot=slot) for step in range(NUM_DRAWS // 8) for slot in range(8)]


def test_the_stream_is_pinned() -> None:
    """The order is part of what a checkpoint stands for: if it changes, begun trainings can not continue."""
    keys = batch_for(plan_of(10, 20, 30), step=7, global_batch_size=3)
    assert [(key.clip, key.frame, key.gap) for key in keys] == [(1, 14, 2), (2, 9, -1), (2, 17, 2)]
    assert keys == batch_for(plan_of(10, 20, 30), step=7, global_batch_size=3)
    assert keys != batch_for(plan_of(10, 20, 30), step=8, global_batch_size=3)
    assert keys != batch_for(plan_of(10, 20, 30, seed=43), step=7, global_batch_size=3)


def test_clips_and_gaps_are_uniform_whatever_their_length() -> None:
    samples = draws(plan_of(5, 50, 500))
    clips, gaps = shares([key.clip for key in samples]), shares([key.gap for key in samples])
    assert set(clips) == {0, 1, 2}
    assert set(gaps) == {1, 2, -1, -2}
    assert all(abs(share - 1 / 3) < TOLERANCE for share in clips.values())
    assert all(abs(share - 1 / 4) < TOLERANCE for share in gaps.values())


def test_frames_are_uniform_among_those_with_a_partner() -> None:
    samples = draws(plan_of(6, gaps=(2,)))
    frames = shares([key.frame for key in samples])
    assert set(frames) == {0, 1, 2, 3}
    assert all(abs(share - 1 / 4) < TOLERANCE for share in frames.values())


@pytest.mark.parametrize("order", [(1, 2, -1, -2), (1, -1, 2, -2)])
def test_released_gaps_have_the_odds_of_the_authors_code(order: tuple[int, ...]) -> None:
    assert gap_weights(order, "released") == pytest.approx({1: 3 / 6, 2: 2 / 6, -1: 1 / 6, -2: 0})
    gaps = shares([key.gap for key in draws(plan_of(40, gaps=order, gap_sampling="released"))])
    assert set(gaps) == {1, 2, -1}
    assert gaps[1] == pytest.approx(1 / 2, abs=TOLERANCE)
    assert gaps[2] == pytest.approx(1 / 3, abs=TOLERANCE)


def test_released_gaps_equal_a_count_over_all_pairs() -> None:
    gaps = (3, 6, -3, -6)
    pairs = [(first, second) for i, first in enumerate(gaps) for second in gaps[i + 1 :]]
    counted = Counter(first for first, _ in pairs)
    assert gap_weights(gaps, "released") == pytest.approx({gap: counted[gap] / len(pairs) for gap in gaps})


def test_mirroring_is_half_of_the_samples_or_none() -> None:
    assert shares([key.flip for key in draws(plan_of(9, flip=True))])[True] == pytest.approx(0.5, abs=TOLERANCE)
    assert not any(key.flip for key in draws(plan_of(9)))


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    gaps=st.lists(st.integers(-4, 4).filter(bool), min_size=1, max_size=4, unique=True),
    released=st.booleans(),
    step=st.integers(0, 10**6),
)
def test_every_sample_exists(lengths: list[int], gaps: list[int], released: bool, step: int) -> None:
    sampling = "released" if released else "uniform"
    possible = any(
        abs(gap) < length and weight for gap, weight in gap_weights(gaps, sampling).items() for length in lengths
    )
    if not possible:
        with pytest.raises(DatasetError, match="none of"):
            plan_of(*lengths, gaps=tuple(gaps), gap_sampling=sampling)
        return
    plan = plan_of(*lengths, gaps=tuple(gaps), gap_sampling=sampling)
    for key in batch_for(plan, step=step, global_batch_size=16):
        assert 0 <= key.frame < lengths[key.clip]
        assert 0 <= key.frame + key.gap < lengths[key.clip]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6])
def test_workers_share_the_same_global_batch(world_size: int) -> None:
    plan = plan_of(10, 20, 30)
    whole = batch_for(plan, step=5, global_batch_size=12)
    shares_of_ranks = [
        batch_for(plan, step=5, global_batch_size=12, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    assert {len(share) for share in shares_of_ranks} == {12 // world_size}
    assert tuple(shares_of_ranks[slot % world_size][slot // world_size] for slot in range(12)) == whole


def test_clips_too_short_are_left_out_and_none_left_is_an_error() -> None:
    assert {key.clip for key in draws(plan_of(3, 1, 9, gaps=(3, -3)))} == {2}
    with pytest.raises(DatasetError, match=r"none of 2 clips.*longest has 3 frames.*\(3, -3\)"):
        plan_of(3, 2, gaps=(3, -3))
    with pytest.raises(DatasetError, match="none of 0 clips"):
        plan_of(gaps=(1,))


def test_random_seeds_differ_between_steps_and_workers() -> None:
    seeds = {random_seed_for(seed, step, rank) for seed in range(3) for step in range(20) for rank in range(3)}
    assert len(seeds) == 180
    assert all(0 <= seed < 2**63 for seed in seeds)


def sets_of(*clips: tuple[int, int, tuple[int, ...]], **options: object) -> SamplingPlan:
    """Clips as (dataset, number of frames, gaps)."""
    indices = [ClipIndex(num_frames=frames, gaps=gaps, dataset=dataset) for dataset, frames, gaps in clips]
    return plan_sampling(seed=42, clips=indices, gaps=None, **options)  # type: ignore[arg-type]


def test_sets_are_drawn_by_their_frames_and_clips_in_them_evenly() -> None:
    samples = draws(sets_of((0, 10, (1,)), (0, 50, (1,)), (1, 180, (3,)), (1, 60, (3,))))
    clips = shares([key.clip for key in samples])
    expected = {0: 0.1, 1: 0.1, 2: 0.4, 3: 0.4}  # 60 frames of 300 in the first set, 240 in the second
    assert all(abs(clips[clip] - share) < TOLERANCE for clip, share in expected.items())


def test_every_clip_keeps_to_its_own_gaps() -> None:
    """GWM trains DAVIS2016 over gaps of 1 and 2 and FBMS59 over 3 and 6, together."""
    plan = sets_of((0, 40, (1, -1, 2, -2)), (1, 40, (3, -3, 6, -6)), (1, 5, (3, -3, 6, -6)))
    samples = draws(plan)
    by_clip = {clip: shares([key.gap for key in samples if key.clip == clip]) for clip in (0, 1, 2)}
    assert set(by_clip[0]) == {1, -1, 2, -2}
    assert set(by_clip[1]) == {3, -3, 6, -6}
    assert set(by_clip[2]) == {3, -3}  # its five frames are too few for 6
    assert all(abs(share - 1 / 4) < 2 * TOLERANCE for share in by_clip[1].values())
    for key in samples:
        assert 0 <= key.frame + key.gap < (40, 40, 5)[key.clip]


def test_released_odds_hold_for_gaps_of_their_own() -> None:
    plan = sets_of((0, 400, (3, -3, 6, -6)), gap_sampling="released")
    gaps = shares([key.gap for key in draws(plan)])
    assert set(gaps) == {3, 6, -3}
    assert abs(gaps[3] - 1 / 2) < TOLERANCE


def test_one_set_draws_what_it_drew_before_there_could_be_several() -> None:
    alone = plan_of(10, 20, 30)
    numbered = [ClipIndex(num_frames=length, gaps=(1, 2, -1, -2), dataset=7) for length in (10, 20, 30)]
    named = plan_sampling(seed=42, clips=numbered, gaps=None)
    assert draws(alone) == draws(named)


def test_sets_without_a_usable_clip_are_left_out() -> None:
    plan = sets_of((0, 3, (6,)), (1, 30, (6,)))
    assert {key.clip for key in draws(plan)} == {1}
    with pytest.raises(DatasetError, match=r"longest has 3 frames and the gaps are \(-6, 6\)"):
        sets_of((0, 3, (6, -6)))
