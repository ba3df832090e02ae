"""J and F against a plain implementation of their definitions, closed cases, and the averages that papers print."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.errors import InputError
from model.metrics import (
    PROTOCOLS,
    ScoredFrames,
    average,
    boundary_accuracy,
    boundary_map,
    counted_scores,
    region_similarity,
    statistics,
)


def boundary_by_definition(mask: np.ndarray) -> np.ndarray:
    """A pixel is boundary when it differs from its right, lower or lower-right neighbour, where there is one.

    The last row and column compare only along themselves, so the corner compares with nothing.
    """
    height, width = mask.shape
    boundary = np.zeros_like(mask)
    for row in range(height):
        for column in range(width):
            neighbours = [(row, column + 1), (row + 1, column), (row + 1, column + 1)]
            inside = [(r, c) for r, c in neighbours if r < height and c < width]
            boundary[row, column] = any(mask[row, column] != mask[r, c] for r, c in inside)
    return boundary


def f_by_definition(predicted: np.ndarray, annotation: np.ndarray, radius: int) -> float:
    """F with OpenCV's dilation by a disk, as the DAVIS tool has it."""
    ours, true = (boundary_by_definition(mask) for mask in (predicted, annotation))
    offsets = np.arange(-radius, radius + 1)
    disk = (offsets[:, None] ** 2 + offsets[None] ** 2 <= radius**2).astype(np.uint8)
    near_ours, near_true = (cv2.dilate(mask.astype(np.uint8), disk) > 0 for mask in (ours, true))
    if not ours.any() or not true.any():
        return float(ours.any() == true.any())
    precision, recall = (ours & near_true).sum() / ours.sum(), (true & near_ours).sum() / true.sum()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def random_mask(seed: int, height: int, width: int, density: float) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width)) < density


shapes = st.tuples(st.integers(1, 24), st.integers(1, 24))
densities = st.sampled_from([0.0, 0.01, 0.1, 0.5, 0.9, 1.0])


@given(shape=shapes, density=densities, seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=100)
def test_boundary_map_follows_its_definition(shape: tuple[int, int], density: float, seed: int) -> None:
    mask = random_mask(seed, *shape, density)
    assert np.array_equal(boundary_map(mask), boundary_by_definition(mask))


@given(
    shape=shapes,
    densities=st.tuples(densities, densities),
    seed=st.integers(0, 2**31),
    bound=st.sampled_from([0.008, 0.06, 0.2, 0.5]),
)
@settings(deadline=None, max_examples=150)
def test_f_follows_its_definition(
    shape: tuple[int, int], densities: tuple[float, float], seed: int, bound: float
) -> None:
    predicted, annotation = (random_mask(seed + index, *shape, density) for index, density in enumerate(densities))
    expected = f_by_definition(predicted, annotation, math.ceil(bound * float(np.hypot(*shape))))
    ours = boundary_accuracy(torch.from_numpy(predicted), torch.from_numpy(annotation), bound)
    assert ours.item() == pytest.approx(expected, abs=1e-12)


def masks(*rectangles: tuple[int, int, int, int]) -> Tensor:
    """One 480x854 mask for each (top, bottom, left, right)."""
    filled = torch.zeros(len(rectangles), 480, 854, dtype=torch.bool)
    for mask, (top, bottom, left, right) in zip(filled, rectangles, strict=True):
        mask[top:bottom, left:right] = True
    return filled


def test_j_of_rectangles() -> None:
    predicted = masks((0, 100, 0, 100), (0, 100, 0, 100), (0, 100, 0, 100), (0, 0, 0, 0), (0, 1, 0, 1))
    annotation = masks((0, 100, 50, 150), (0, 100, 0, 100), (200, 300, 0, 100), (0, 9, 0, 9), (0, 480, 0, 854))
    expected = [1 / 3, 1.0, 0.0, 0.0, 1 / (480 * 854)]
    assert region_similarity(predicted, annotation).tolist() == pytest.approx(expected, abs=1e-15)


def test_empty_masks() -> None:
    empty, full, dot = masks((0, 0, 0, 0)), masks((0, 480, 0, 854)), masks((9, 10, 9, 10))
    assert region_similarity(empty, empty).item() == 1  # as the DAVIS tool has it
    assert region_similarity(empty, empty, empty_score=0.0).item() == 0  # as GWM's code has it
    assert boundary_accuracy(empty, empty).item() == 1
    assert boundary_accuracy(empty, full).item() == 1  # neither has a boundary
    assert boundary_accuracy(empty, dot).item() == boundary_accuracy(dot, empty).item() == 0


@pytest.mark.parametrize(("distance", "expected"), [(8, 1.0), (9, 0.5), (10, 0.0)])
def test_f_tolerates_eight_pixels_at_480p(distance: int, expected: float) -> None:
    """A dot's boundary is two columns wide: itself and the pixels that look at it. At nine pixels one is in reach."""
    dot, moved = masks((200, 201, 300, 301)), masks((200, 201, 300 + distance, 301 + distance))
    assert boundary_accuracy(dot, moved).item() == expected


def test_leading_axes_are_kept_and_precision_is_double() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted = torch.rand(2, 3, 20, 30, generator=generator) > 0.5
    annotation = torch.rand(2, 3, 20, 30, generator=generator) > 0.5
    for score in (region_similarity, boundary_accuracy):
        values = score(predicted, annotation)
        assert values.shape == (2, 3)
        assert values.dtype == torch.float64
        single = score(predicted[1, 2], annotation[1, 2])
        assert single.shape == ()
        assert single == values[1, 2]


def test_unusable_masks_and_bounds_are_refused() -> None:
    square, wide = torch.zeros(4, 4, dtype=torch.bool), torch.zeros(4, 5, dtype=torch.bool)
    with pytest.raises(InputError, match="bound=8"):
        boundary_accuracy(square, square, bound=8.0)
    with pytest.raises(InputError, match="bound=0"):
        boundary_accuracy(square, square, bound=0.0)
    for score in (region_similarity, boundary_accuracy):
        with pytest.raises((InputError, TypeError), match=r"\(4, 4\)|\[4,4\]"):  # the shape check of the tests is first
            score(square, wide)


def test_statistics_of_a_falling_score() -> None:
    # 9 frames: quarters with shared borders are frames 0-2, 2-4, 4-6, 6-8
    found = statistics([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert found.mean == pytest.approx(0.5)
    assert found.recall == pytest.approx(4 / 9)  # 0.5 itself does not count
    assert found.decay == pytest.approx(0.8 - 0.2)


def test_statistics_of_one_frame_and_of_long_sequences() -> None:
    assert statistics([0.7]).decay == 0
    assert statistics([1.0] * 500 + [0.0] * 500).decay == pytest.approx(1.0, abs=0.01)  # no eight-bit wrap


@pytest.mark.parametrize("values", [[], [[0.5]]])
def test_statistics_need_a_frame(values: list[float]) -> None:
    with pytest.raises((InputError, TypeError), match=r"at least one frame|values"):
        statistics(values)


SCORES = {"long": [0.0, 0.1, 0.2, 0.4, 0.6, 0.0], "short": [0.0, 0.0, 1.0, 0.0]}


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("gwm", (0.4 + 1.0) / 2),  # long: 0.2, 0.4, 0.6; short: 1.0
        ("davis", (1.3 / 4 + 0.5) / 2),  # long: 0.1, 0.2, 0.4, 0.6; short: 0.0, 1.0
        ("rcf", (1.3 + 1.0) / 10),
        ("gwm-frames", (1.3 + 1.0) / 8),
    ],
)
def test_averages_by_protocol(protocol: str, expected: float) -> None:
    assert average(SCORES, protocol) == pytest.approx(expected)


def test_rcf_leaves_out_frames_without_a_score_and_the_others_refuse_them() -> None:
    scores = {"a": [math.nan, 0.5], "b": [0.1, 0.2, 0.3]}
    assert average(scores, "rcf") == pytest.approx(1.1 / 4)
    with pytest.raises(InputError, match="1 of them NaN"):
        average({"a": [0.5, 0.5, math.nan, 0.5, 0.5]}, "davis")


def test_a_sequence_of_empty_frames_counts_for_nothing_under_rcf_and_alone_has_no_average() -> None:
    empty = [math.nan, math.nan]
    assert average({"a": empty, "b": [0.1, 0.2]}, "rcf") == pytest.approx(0.15)
    assert counted_scores(empty, "rcf") == []
    with pytest.raises(InputError, match="'a' has 0 scores that count"):
        average({"a": empty}, "rcf")


def test_frames_are_dropped_by_their_number_not_by_their_place_among_the_annotated() -> None:
    """GWM on FBMS59: the last frame of a video has no flow; it is annotated in 29 of 30 videos, not in marple4."""
    scores = {"camel01": [0.2, 0.4, 0.9], "marple4": [0.6, 0.8]}
    frames = {
        "camel01": ScoredFrames(numbers=(0, 19, 39), num_frames=40),
        "marple4": ScoredFrames(numbers=(0, 19), num_frames=30),
    }
    assert average(scores, "gwm-frames", frames) == pytest.approx((0.2 + 0.4 + 0.6 + 0.8) / 4)
    assert counted_scores(scores["camel01"], "gwm", frames["camel01"]) == [0.4]
    assert counted_scores(scores["camel01"], "rcf", frames["camel01"]) == scores["camel01"]


def test_averages_refuse_what_they_can_not_average() -> None:
    with pytest.raises(InputError, match="expected one of gwm, gwm-frames, rcf, davis"):
        average(SCORES, "mean")
    with pytest.raises(InputError, match="no sequences"):
        average({}, "rcf")
    with pytest.raises(InputError, match=r"'tiny' has 0 scores.*needs at least 4"):
        average(SCORES | {"tiny": [0.1, 0.2, 0.3]}, "gwm")


def test_published_sequences_of_gwm_average_to_the_published_numbers() -> None:
    """GWM prints 78.3 for SegTrackv2 and 77.4 for FBMS59 (Table 1): means over all frames but the last of each."""
    # J without CRF per sequence (Tables 11 and 12) and frames of GWM's copies; FBMS59: annotated frames
    segtrack = [
        (86.1, 74), (67.8, 30), (84.5, 21), (57.0, 29), (83.7, 243), (90.6, 51), (22.9, 71), (57.3, 29), (77.4, 32),
        (76.4, 36), (84.1, 279), (77.7, 42), (75.0, 31), (92.3, 98),
    ]  # fmt: skip
    scores = {str(index): [score] * num_frames for index, (score, num_frames) in enumerate(segtrack)}
    assert sum(len(values) for values in scores.values()) == 1066
    assert average(scores, "gwm-frames") == pytest.approx(78.3, abs=0.05)
    assert average(scores, "gwm") == pytest.approx(73.8, abs=0.05)  # which is not what it prints


def test_published_sequences_of_imas_average_to_the_published_numbers() -> None:
    """IMAS prints 79.8 for DAVIS: the mean over frames of its table; the mean over sequences would be 79.1."""
    # J with CRF per sequence (IMAS, appendix) and frames of each DAVIS2016 validation sequence
    published = {
        "blackswan": (66.1, 50), "bmx-trees": (60.2, 80), "breakdance": (81.0, 84), "camel": (83.9, 90),
        "car-roundabout": (87.6, 75), "car-shadow": (85.3, 40), "cows": (87.0, 104), "dance-twirl": (85.7, 90),
        "dog": (82.8, 60), "drift-chicane": (78.8, 52), "drift-straight": (78.8, 50), "goat": (80.1, 90),
        "horsejump-high": (87.4, 50), "kite-surf": (64.2, 50), "libby": (82.8, 49), "motocross-jump": (72.0, 40),
        "paragliding-launch": (63.0, 80), "parkour": (86.2, 100), "scooter-black": (82.1, 43), "soapbox": (87.2, 99),
    }  # fmt: skip
    scores = {name: [score] * num_frames for name, (score, num_frames) in published.items()}
    assert sum(len(values) for values in scores.values()) == 1376
    assert round(average(scores, "rcf"), 1) == 79.8
    assert round(average(scores, "davis"), 1) == 79.1
    assert PROTOCOLS["rcf"].by_sequence is False
