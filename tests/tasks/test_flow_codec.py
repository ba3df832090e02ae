from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch.nn import functional

from model.dis import DisEstimator
from tasks import flow_codec, flow_grid
from tasks.errors import DatasetError, InputError
from tasks.flow_codec import (
    MAX_ERROR_PX,
    MAX_FLOW_PX,
    decode_flow,
    encode_flow,
    join_planes_numpy,
    num_clamped_components,
    planes_of_flow_numpy,
)
from tests.shared import DAVIS, shared_or_skip

Flow = NDArray[np.float32]

SIZES = st.tuples(st.just(2), st.integers(1, 40), st.integers(1, 40))


def _smooth(height: int, width: int) -> Flow:
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([0.01 * columns - 3, 2 * np.sin(rows / 9)]).astype(np.float32)


def _check_round_trip(flow: Flow) -> None:
    stored = encode_flow(flow)
    decoded = decode_flow(stored)
    expected = np.clip(flow.astype(np.float64), -MAX_FLOW_PX, MAX_FLOW_PX)
    assert decoded.dtype == np.float32
    assert decoded.shape == flow.shape
    assert np.abs(decoded - expected).max() <= MAX_ERROR_PX
    # a component counts as clamped when rounding takes it beyond the range of int16
    assert num_clamped_components(stored) == np.count_nonzero(
        np.abs(flow.astype(np.float64)) > MAX_FLOW_PX + MAX_ERROR_PX
    )


@given(hnp.arrays(np.float32, SIZES, elements=st.floats(-600, 600, width=32)))
@settings(max_examples=60, deadline=None)
def test_any_flow_comes_back_within_half_a_step(flow: Flow) -> None:
    _check_round_trip(flow)


@given(hnp.arrays(np.float32, SIZES, elements=st.floats(allow_nan=False, allow_infinity=False, width=32)))
@example(np.full((2, 1, 1), 5.3e36, np.float32))  # times 64 it is beyond float32
@settings(max_examples=60, deadline=None)
def test_extreme_flow_is_clamped_and_counted(flow: Flow) -> None:
    _check_round_trip(flow)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (33, 17), (48, 85)])
@pytest.mark.parametrize("kind", ["random", "smooth", "extreme", "zero"])
def test_kinds_and_odd_sizes(size: tuple[int, int], kind: str) -> None:
    generator = np.random.default_rng(3)
    flow = {
        "random": generator.normal(0, 20, (2, *size)).astype(np.float32),
        "smooth": _smooth(*size),
        "extreme": generator.choice(np.float32([-1e30, -512, -511.99, 511.99, 512, 3e38, 0]), (2, *size)),
        "zero": np.zeros((2, *size), np.float32),
    }[kind]
    _check_round_trip(flow)


@given(hnp.arrays(np.int16, SIZES, elements=st.integers(-32767, 32767)), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_compiled_and_numpy_agree_byte_for_byte_and_are_exact(quantised: NDArray[np.int16], num_beyond: int) -> None:
    flow = quantised.astype(np.float32) / 64
    flow.reshape(-1)[:num_beyond] = -700
    planes, num_clamped = planes_of_flow_numpy(flow)
    assert flow_codec.AVAILABLE
    compiled, counted = flow_codec.planes_of_flow(flow)
    assert np.array_equal(compiled, planes)
    assert counted == num_clamped == min(num_beyond, flow.size)
    quantised.reshape(-1)[:num_beyond] = -32767
    assert np.array_equal(join_planes_numpy(planes), quantised)
    assert np.array_equal(flow_codec.flow_of_planes(planes, 64), quantised.astype(np.float32) / 64)


def test_bytes_are_the_same_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = np.random.default_rng(0).normal(0, 30, (2, 31, 45)).astype(np.float32)
    compiled = encode_flow(flow)
    from_grid = _enlarged(flow, 62, 91)
    compiled_grid, read = encode_flow(from_grid), decode_flow(encode_flow(from_grid))
    assert (_stride(compiled), _stride(compiled_grid)) == (1, 2)
    monkeypatch.setattr(flow_codec, "AVAILABLE", False)
    monkeypatch.setattr(flow_grid, "AVAILABLE", False)
    assert encode_flow(flow) == compiled
    assert encode_flow(from_grid) == compiled_grid
    assert np.array_equal(decode_flow(compiled), np.rint(flow * 64).astype(np.float32) / 64)
    assert np.array_equal(decode_flow(compiled_grid), read)


def _stride(stored: bytes) -> int:
    """The stride of a stored flow, as the module documents its header: 1 where it is stored pixel by pixel."""
    version = int.from_bytes(stored[4:6], "little")
    return 1 if version == 1 else int.from_bytes(stored[20:24], "little")


def _enlarged(grid: Flow, height: int, width: int) -> Flow:
    """What OpenCV makes of a grid [2, h, w]: of two channels at once, as DIS does; of one it rounds in another way."""
    channels_last = np.ascontiguousarray(grid.transpose(1, 2, 0))
    flow = cv2.resize(channels_last, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(flow.transpose(2, 0, 1))


NODES = st.tuples(st.just(2), st.integers(2, 20), st.integers(2, 20))


@given(
    hnp.arrays(np.float32, NODES, elements=st.floats(-500, 500, width=32)),
    st.sampled_from([2, 4]),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
@settings(max_examples=60, deadline=None)
def test_enlarged_flow_comes_back_within_half_a_step(grid: Flow, stride: int, more: tuple[int, int]) -> None:
    height, width = (nodes * stride + min(odd, stride - 1) for nodes, odd in zip(grid.shape[1:], more, strict=True))
    flow = _enlarged(grid, height, width)
    _check_round_trip(flow)


@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("size", [(240, 426), (135, 241), (50, 33), (9, 8), (719, 1283)])
def test_enlarging_is_that_of_opencv_and_pytorch(size: tuple[int, int], stride: int) -> None:
    nodes = (2, size[0] // stride, size[1] // stride)
    grid = np.random.default_rng(0).uniform(-30, 30, nodes).astype(np.float32)
    ours = flow_grid.enlarge(grid, *size)
    assert np.array_equal(ours, flow_grid.enlarge_numpy(grid, *size))
    assert np.abs(ours - _enlarged(grid, *size)).max() < 1e-5
    by_torch = functional.interpolate(torch.from_numpy(grid)[None], size, mode="bilinear", align_corners=False)[0]
    assert np.abs(ours - by_torch.numpy()).max() < 0.01  # its places are float32 all the way: 4e-5 px of 1283
    found = flow_grid.coarsen(_enlarged(grid, *size), stride)
    assert np.abs(found - grid).max() < 1e-2
    assert np.array_equal(found, flow_grid.coarsen_numpy(_enlarged(grid, *size), stride))


@pytest.mark.parametrize(("preset", "stride"), [("ultrafast", 4), ("fast", 4), ("medium", 2)])
@pytest.mark.parametrize("size", [(480, 854), (240, 427), (101, 135)])
def test_flow_of_dis_is_stored_as_its_grid(preset: str, stride: int, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (size[0] + 6, size[1] + 6, 3), dtype=np.uint8)
    texture = torch.from_numpy(cv2.GaussianBlur(noise, (0, 0), 2)).permute(2, 0, 1)
    estimator = DisEstimator(preset)
    first, second = (estimator.encode(crop) for crop in (texture[:, 2:-4, 3:-3], texture[:, 3:-3, 1:-5]))
    flow = estimator.flow([(first, second)])[0].numpy()
    assert _stride(encode_flow(flow)) == stride
    _check_round_trip(flow)


def test_a_pixel_beside_the_grid_is_kept() -> None:
    flow = _enlarged(np.random.default_rng(0).uniform(-30, 30, (2, 20, 30)).astype(np.float32), 40, 60)
    assert _stride(encode_flow(flow)) == 2
    flow[1, 33, 44] += 0.1
    assert _stride(encode_flow(flow)) == 1
    _check_round_trip(flow)


def test_a_grid_beyond_the_range_is_stored_by_pixel_and_counted() -> None:
    grid = np.random.default_rng(0).uniform(-30, 30, (2, 20, 30)).astype(np.float32)
    grid[0, 4:7, 5:8] = 700
    flow = _enlarged(grid, 40, 60)
    assert _stride(encode_flow(flow)) == 1
    assert num_clamped_components(encode_flow(flow)) > 0
    _check_round_trip(flow)


def test_real_flow_takes_a_thirtieth_of_its_size_and_a_thirteenth_by_pixel() -> None:
    folder = shared_or_skip(DAVIS / "JPEGImages" / "480p" / "blackswan")
    paths = sorted(folder.glob("*.jpg"))[:2]
    first, second = (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths)
    estimated = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(first, second, None)
    flow = np.ascontiguousarray(estimated.transpose(2, 0, 1))
    _check_round_trip(flow)
    assert flow.nbytes / len(encode_flow(flow)) > 30  # 3279 kB to 95 kB
    flow[0, 240] += 0.1  # a row that no grid explains
    _check_round_trip(flow)
    assert flow.nbytes / len(encode_flow(flow)) > 13  # to 250 kB


def test_not_contiguous_flow_is_fine() -> None:
    channels_last = np.random.default_rng(1).normal(0, 5, (9, 11, 2)).astype(np.float32)
    flow = channels_last.transpose(2, 0, 1)
    assert encode_flow(flow) == encode_flow(np.ascontiguousarray(flow))


@pytest.mark.parametrize(
    "flow",
    [
        np.zeros((2, 4, 4), np.float64),
        np.zeros((4, 4, 2), np.float32),
        np.zeros((2, 0, 4), np.float32),
        np.zeros((2, 4), np.float32),
    ],
)
def test_other_shapes_and_types_are_refused(flow: Flow) -> None:
    with pytest.raises(InputError, match=r"expected float32 \[2, H, W\]"):
        encode_flow(flow)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_displacement_is_refused(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = np.zeros((2, 3, 3), np.float32)
    flow[1, 2, 0] = value
    with pytest.raises(InputError, match="contains NaN or infinity"):
        encode_flow(flow)
    monkeypatch.setattr(flow_codec, "AVAILABLE", False)
    monkeypatch.setattr(flow_grid, "AVAILABLE", False)
    with pytest.raises(InputError, match="contains NaN or infinity"):
        encode_flow(flow)


GOOD = encode_flow(np.random.default_rng(0).normal(0, 9, (2, 4, 5)).astype(np.float32))
GRID = encode_flow(np.ones((2, 20, 30), np.float32))
assert (_stride(GOOD), _stride(GRID)) == (1, 4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GWMF", "less than its header"),
        (b"PIEH" + GOOD[4:], "starts with b'PIEH'"),
        (GOOD[:4] + struct.pack("<H", 9) + GOOD[6:], "version 9"),
        (GOOD[:8] + struct.pack("<II", 0, 5) + GOOD[16:], "header is damaged"),
        (GOOD[:8] + struct.pack("<II", 1 << 31, 1 << 31) + GOOD[16:], "header is damaged"),
        (GOOD[:20], "damaged"),
        (GOOD[:-4], "damaged"),
        (GOOD[:8] + struct.pack("<II", 9, 5) + GOOD[16:], "holds 80 bytes|damaged"),
        (GRID[:22], "every 0 px: its header is damaged"),
        (GRID[:20] + struct.pack("<I", 0) + GRID[24:], "every 0 px: its header is damaged"),
        (GRID[:20] + struct.pack("<I", 11) + GRID[24:], "every 11 px: its header is damaged"),
        (GRID[:20] + struct.pack("<I", 2) + GRID[24:], "holds 280 bytes|damaged"),
        (GRID[:8] + struct.pack("<II", 24, 30) + GRID[16:], "holds 280 bytes|damaged"),
    ],
)
def test_damaged_bytes_are_told(data: bytes, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        decode_flow(data)
