from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from tasks import flow_codec
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
    assert flow_codec._split_compiled is not None
    compiled, counted = flow_codec.planes_of_flow(flow)
    assert np.array_equal(compiled, planes)
    assert counted == num_clamped == min(num_beyond, flow.size)
    quantised.reshape(-1)[:num_beyond] = -32767
    assert np.array_equal(join_planes_numpy(planes), quantised)
    assert np.array_equal(flow_codec.flow_of_planes(planes, 64), quantised.astype(np.float32) / 64)


def test_bytes_are_the_same_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = np.random.default_rng(0).normal(0, 30, (2, 31, 45)).astype(np.float32)
    compiled = encode_flow(flow)
    monkeypatch.setattr(flow_codec, "_split_compiled", None)
    monkeypatch.setattr(flow_codec, "_join_compiled", None)
    assert encode_flow(flow) == compiled
    assert np.array_equal(decode_flow(compiled), np.rint(flow * 64).astype(np.float32) / 64)


def test_real_flow_takes_a_fourteenth_of_its_size() -> None:
    folder = shared_or_skip(DAVIS / "JPEGImages" / "480p" / "blackswan")
    paths = sorted(folder.glob("*.jpg"))[:2]
    first, second = (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths)
    estimated = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(first, second, None)
    flow = np.ascontiguousarray(estimated.transpose(2, 0, 1))
    _check_round_trip(flow)
    assert flow.nbytes / len(encode_flow(flow)) > 13  # 3279 kB to 250 kB


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
    monkeypatch.setattr(flow_codec, "_split_compiled", None)
    with pytest.raises(InputError, match="contains NaN or infinity"):
        encode_flow(flow)


GOOD = encode_flow(np.ones((2, 4, 5), np.float32))


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
    ],
)
def test_damaged_bytes_are_told(data: bytes, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        decode_flow(data)
