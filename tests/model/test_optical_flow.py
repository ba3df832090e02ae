"""Streaming optical flow over a clip, and DIS against known motion."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.dis import MIN_SIDE_PX, PRESETS, DisEstimator
from model.errors import InputError
from model.optical_flow import GAP_PRESETS, OpticalFlowEstimator, clip_flows
from tests.shared import DAVIS, shared_or_skip


class _Encoded:
    def __init__(self, value: float) -> None:
        self.value = value


class ClockEstimator:
    """An estimator whose truth is plain: frame t is filled with t, and the flow from t to s is s - t everywhere."""

    name = "clock"
    weights_sha256: str | None = None

    def __init__(self) -> None:
        self.num_encoded = 0
        self.most_alive = 0
        self._alive: weakref.WeakSet[_Encoded] = weakref.WeakSet()

    def encode(self, frame: Tensor) -> _Encoded:
        self.num_encoded += 1
        encoded = _Encoded(float(frame[0, 0, 0]))
        self._alive.add(encoded)
        gc.collect(0)
        self.most_alive = max(self.most_alive, len(self._alive))
        return encoded

    def flow(self, pairs: Sequence[tuple[object, object]]) -> Tensor:
        values = [second.value - first.value for first, second in pairs]  # type: ignore[attr-defined]
        return torch.stack([torch.full((2, 4, 6), value) for value in values])


def clock_frames(num_frames: int) -> Iterator[Tensor]:
    for index in range(num_frames):
        yield torch.full((3, 4, 6), index, dtype=torch.uint8)


gaps_of_any_kind = st.lists(st.integers(-7, 7).filter(lambda gap: gap != 0), min_size=1, max_size=5, unique=True)


@given(gaps=gaps_of_any_kind, num_frames=st.integers(0, 20))
@settings(deadline=None, max_examples=60)
def test_every_frame_gets_each_gap_and_is_encoded_once(gaps: list[int], num_frames: int) -> None:
    estimator = ClockEstimator()
    rows = list(clip_flows(estimator, clock_frames(num_frames), gaps))
    assert len(rows) == estimator.num_encoded == num_frames
    for index, row in enumerate(rows):
        assert list(row) == gaps
        for gap, flow in row.items():
            if 0 <= index + gap < num_frames:
                assert flow is not None
                assert (flow == gap).all()
            else:
                assert flow is None


@pytest.mark.parametrize("gaps", [(1, -1, 2, -2), (3,), (-6,), (3, -3, 6, -6)])
def test_memory_is_bounded_by_the_gaps_not_by_the_clip(gaps: tuple[int, ...]) -> None:
    estimator = ClockEstimator()
    for _ in clip_flows(estimator, clock_frames(200), gaps):
        pass
    assert estimator.most_alive <= max(0, *gaps) - min(0, *gaps) + 1


def test_runs_only_as_far_ahead_as_the_largest_gap() -> None:
    taken: list[int] = []

    def frames() -> Iterator[Tensor]:
        for index, frame in enumerate(clock_frames(10)):
            taken.append(index)
            yield frame

    next(clip_flows(ClockEstimator(), frames(), (2, -3)))
    assert taken == [0, 1, 2]


@pytest.mark.parametrize("gaps", [(), (0,), (1, 0), (1, 1)])
def test_unusable_gaps_are_refused_at_once(gaps: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="distinct frame gaps other than 0"):
        clip_flows(ClockEstimator(), clock_frames(3), gaps)


def test_a_frame_of_another_size_is_named() -> None:
    frames = [torch.zeros(3, 4, 6, dtype=torch.uint8), torch.zeros(3, 6, 4, dtype=torch.uint8)]
    with pytest.raises(InputError, match=r"frame 1 of the clip is \(3, 6, 4\)"):
        list(clip_flows(ClockEstimator(), iter(frames), (1,)))


def test_gap_presets_are_usable_and_symmetric() -> None:
    for gaps in GAP_PRESETS.values():
        assert len(list(clip_flows(ClockEstimator(), clock_frames(3), gaps))) == 3
        assert sorted(gaps) == sorted(-gap for gap in gaps)


def texture(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 2))


def shifted_pair(columns: int, rows: int, size: int = 160) -> tuple[Tensor, Tensor]:
    """Two crops of one texture, whose content moves right by ``columns`` and down by ``rows``."""
    image, margin = texture(size + 32, size + 32), 16
    first = image[margin : margin + size, margin : margin + size]
    second = image[margin - rows : margin - rows + size, margin - columns : margin - columns + size]
    tensors = [torch.from_numpy(crop.copy()).permute(2, 0, 1) for crop in (first, second)]
    return tensors[0], tensors[1]


def flow_between(estimator: OpticalFlowEstimator, first: Tensor, second: Tensor) -> Tensor:
    return estimator.flow([(estimator.encode(first), estimator.encode(second))])[0]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("columns", "rows"), [(3, 0), (0, 5), (-4, 2)])
def test_dis_finds_a_shift_with_its_sign_and_axis(preset: str, columns: int, rows: int) -> None:
    flow = flow_between(DisEstimator(preset), *shifted_pair(columns, rows))[:, 20:-20, 20:-20]
    assert flow.dtype == torch.float32
    # The finest level of DIS is half or a quarter of the image: a fraction of a pixel is what it can tell.
    assert (flow[0] - columns).abs().median() < 0.25
    assert (flow[1] - rows).abs().median() < 0.25


def test_dis_explains_real_frames() -> None:
    folder = shared_or_skip(DAVIS / "JPEGImages" / "480p" / "car-roundabout")
    first, second = (
        torch.from_numpy(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)).permute(2, 0, 1)
        for path in sorted(folder.glob("*.jpg"))[:2]
    )
    flow = flow_between(DisEstimator(), first, second)
    rows, columns = torch.meshgrid(torch.arange(480.0), torch.arange(854.0), indexing="ij")
    warped = cv2.remap(
        second.permute(1, 2, 0).numpy(),
        (columns + flow[0]).numpy(),
        (rows + flow[1]).numpy(),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    still = (second.float() - first.float()).abs().mean()
    explained = (torch.from_numpy(warped).permute(2, 0, 1).float() - first.float()).abs().mean()
    assert explained < 0.5 * still


def test_dis_gives_equal_bits_whatever_the_threads() -> None:
    estimator, pair = DisEstimator(), shifted_pair(3, 1)
    expected, threads_before = flow_between(estimator, *pair), cv2.getNumThreads()
    try:
        for num_threads in (1, 2, 3):
            cv2.setNumThreads(num_threads)
            assert torch.equal(flow_between(estimator, *pair), expected)
    finally:
        cv2.setNumThreads(threads_before)
    with ThreadPoolExecutor(4) as pool:
        flows = list(pool.map(lambda _: flow_between(estimator, *pair), range(8)))
    assert all(torch.equal(flow, expected) for flow in flows)


@pytest.mark.parametrize(("height", "width"), [(31, 200), (200, 31), (8, 48), (1, 1)])
def test_dis_refuses_frames_that_opencv_would_crash_on(height: int, width: int) -> None:
    with pytest.raises(InputError, match=rf"frame of {height}x{width} .* at least {MIN_SIDE_PX} px"):
        DisEstimator().encode(torch.zeros(3, height, width, dtype=torch.uint8))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 1500), (1500, 32), (33, 47), (101, 35)])
def test_dis_runs_from_its_smallest_size_on(preset: str, height: int, width: int) -> None:
    frame = torch.from_numpy(texture(height, width)).permute(2, 0, 1)
    flow = flow_between(DisEstimator(preset), frame, frame)
    assert flow.shape == (2, height, width)
    assert flow.isfinite().all()


@pytest.mark.parametrize("preset", PRESETS)
def test_dis_does_not_remember_a_smaller_frame(preset: str) -> None:
    small, large = shifted_pair(1, 0, size=33), shifted_pair(3, 1)
    estimator = DisEstimator(preset)
    flow_between(estimator, *small)
    assert torch.equal(flow_between(estimator, *large), flow_between(DisEstimator(preset), *large))


def test_dis_refuses_pairs_that_do_not_belong_together() -> None:
    estimator = DisEstimator()
    small, large = (estimator.encode(torch.zeros(3, side, 64, dtype=torch.uint8)) for side in (40, 48))
    with pytest.raises(InputError, match="expected frames of one size"):
        estimator.flow([(small, large)])
    with pytest.raises(InputError, match=r"expected results of encode\(\)"):
        estimator.flow([(small, "gray")])


def test_dis_preset_is_named_and_travels() -> None:
    with pytest.raises(InputError, match=r"preset='slow'.*expected one of ultrafast, fast, medium"):
        DisEstimator("slow")
    estimator = DisEstimator("fast")
    flow_between(estimator, *shifted_pair(1, 1))
    assert pickle.loads(pickle.dumps(estimator)).name == "dis-fast"
    assert DisEstimator().name == "dis"
