"""Clips to masks: the known object is found without labels, batches change nothing, memory stays constant."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch

from model.dis import DisEstimator
from model.types import Segmentation
from tasks.errors import InputError
from tasks.probability_spool import ProbabilitySpool
from tasks.segment_clip import ClipOptions, ClipSegmenter, native_mask
from tests.tasks.moving_square import HEIGHT, WIDTH, ColourMethod, overlap, square_clip

pytestmark = pytest.mark.usefixtures("one_thread")


def segmenter(**options: object) -> ClipSegmenter:
    return ClipSegmenter(ColourMethod(), DisEstimator("ultrafast"), ClipOptions(**options))  # type: ignore[arg-type]


def test_what_moves_is_the_foreground():
    frames, masks = square_clip(12)
    with segmenter().segment_clip(frames) as segments:
        assert segments.grouping.segments == (1,)
        assert segments.grouping.rule == "motion"
        assert segments.num_frames == 12
        assert min(overlap(segments.mask(i, (HEIGHT, WIDTH)), mask) for i, mask in enumerate(masks)) > 0.9


def test_masks_are_made_at_the_size_asked_for():
    frames, masks = square_clip(6)
    small = ClipSegmenter(ColourMethod((HEIGHT // 2, WIDTH // 2)), DisEstimator("ultrafast"))
    with small.segment_clip(frames) as segments:
        assert segments.probabilities(0).shape == (3, HEIGHT // 2, WIDTH // 2)
        assert overlap(segments.mask(3, (HEIGHT, WIDTH)), masks[3]) > 0.8
        doubled = np.kron(masks[3], np.ones((2, 2), dtype=bool))
        assert overlap(segments.mask(3, doubled.shape), doubled) > 0.8


def test_native_mask_upsamples_like_opencv_without_aligned_corners():
    logits = torch.randn(3, 9, 13, generator=torch.Generator().manual_seed(1))
    probabilities = (4 * logits).softmax(0)
    expected = cv2.resize((probabilities[0] + probabilities[2]).numpy(), (104, 72), interpolation=cv2.INTER_LINEAR)
    clear = np.abs(expected - 0.5) > 1e-4
    assert np.array_equal(native_mask(probabilities, (0, 2), (72, 104))[clear], (expected > 0.5)[clear])


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_batches_change_nothing(batch_size):
    frames, _ = square_clip(9)
    with segmenter().segment_clip(frames) as expected, segmenter(batch_size=batch_size).segment_clip(frames) as found:
        assert found.grouping.segments == expected.grouping.segments
        assert found.grouping.score == pytest.approx(expected.grouping.score, abs=1e-9)
        for index in range(9):
            assert torch.equal(found.probabilities(index), expected.probabilities(index))


def test_large_frames_go_in_smaller_batches():
    method = ColourMethod((36, 48))
    frames = [np.zeros((1500, 2000, 3), np.uint8)] * 3
    ClipSegmenter(method, None).segment_clip(frames).spool.close()
    assert method.batches == [1, 1, 1]


@pytest.mark.parametrize("num_frames", [1, 5])
def test_without_flow_appearance_decides(num_frames):
    frames, masks = square_clip(num_frames)
    with ClipSegmenter(ColourMethod(), None).segment_clip(frames) as segments:
        assert segments.grouping.rule == "appearance"
        assert overlap(segments.mask(0, (HEIGHT, WIDTH)), masks[0]) > 0.9


def test_a_single_image_needs_no_flow():
    frames, masks = square_clip(1)
    with segmenter().segment_clip(frames) as segments:
        assert segments.grouping.rule == "appearance"
        assert overlap(segments.mask(0, (HEIGHT, WIDTH)), masks[0]) > 0.9


def test_frames_near_the_ends_of_wide_gaps_have_no_flow_and_still_count():
    frames, _ = square_clip(8)
    with segmenter(gaps=(6, -6), batch_size=3).segment_clip(frames) as segments:
        assert segments.evidence.num_frames == 8
        assert segments.grouping.segments == (1,)


def test_frames_too_small_for_optical_flow_are_stretched_for_it():
    frames, _ = square_clip(4, height=28, width=60)
    method = ColourMethod((28, 60))
    with ClipSegmenter(method, DisEstimator("ultrafast")).segment_clip(frames) as segments:
        assert segments.grouping.rule == "motion"


def test_flow_is_found_at_the_reduced_size():
    random = np.random.default_rng(0)
    texture = cv2.GaussianBlur(random.integers(0, 256, (144, 192), dtype=np.uint8), (0, 0), 3) * 2
    first = np.repeat(texture[..., None], 3, axis=2)
    flow = segmenter(flow_max_side=96).flow_between(first, np.roll(first, 6, axis=1))
    assert flow.shape == (2, 72, 96)
    assert np.median(flow[0, 10:-10, 10:-10]) == pytest.approx(3, abs=0.3)  # 6 px at half the size
    assert np.median(flow[1, 10:-10, 10:-10]) == pytest.approx(0, abs=0.3)


def test_observers_see_every_frame_once():
    frames, _ = square_clip(7)
    starts: list[tuple[int, int]] = []
    counts: list[int] = []

    def on_batch(first: int, segmentation: Segmentation) -> None:
        starts.append((first, len(segmentation.probabilities)))

    segmenter(batch_size=3).segment_clip(frames, on_batch=on_batch, on_frame=counts.append).spool.close()
    assert starts == [(0, 3), (3, 3), (6, 1)]
    assert counts == [3, 6, 7]


def test_no_more_frames_are_held_than_two_batches_and_the_gaps_span():
    alive, most = 0, 0

    def freed() -> None:
        nonlocal alive
        alive -= 1

    def stream() -> Iterator[np.ndarray]:
        nonlocal alive, most
        for frame in square_clip(60, height=32, width=48)[0]:
            own = frame.copy()
            weakref.finalize(own, freed)
            alive += 1
            most = max(most, alive)
            yield own

    small = ClipSegmenter(ColourMethod((16, 24)), DisEstimator("ultrafast"), ClipOptions(batch_size=4))
    small.segment_clip(stream()).spool.close()
    # the network's batch, the one that is gathered meanwhile, and the frames around the one whose flow is looked at
    assert most <= 4 + 4 + 3


def test_spool_keeps_probabilities_to_16_bits():
    probabilities = torch.rand(5, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    spool = ProbabilitySpool()
    spool.append(probabilities[:2])
    spool.append(probabilities[2:])
    for index in (4, 0, 2):
        assert (spool.read(index) - probabilities[index]).abs().max() <= 0.5 / 65535 + 1e-7
    with pytest.raises(InputError, match="one clip has one size"):
        spool.append(torch.rand(1, 3, 8, 9))
    with pytest.raises(InputError, match="frames 0 to 4"):
        spool.read(5)
    spool.close()


def test_guards():
    with pytest.raises(InputError, match="no frames"):
        segmenter().segment_clip([])
    with pytest.raises(InputError, match="no optical flow estimator"):
        ClipSegmenter(ColourMethod(), None).flow_between(*square_clip(2)[0])
    with pytest.raises(InputError, match="at least 32 pixels"):
        ClipOptions(flow_max_side=8)
    with pytest.raises(InputError, match="1 frame"):
        ClipOptions(batch_size=0)


def test_an_error_in_the_footage_passes_through():
    def broken() -> Iterator[np.ndarray]:
        yield square_clip(1)[0][0]
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        segmenter().segment_clip(broken())
