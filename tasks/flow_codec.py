"""Optical flow as bytes: at most 1/128 pixel away from the original, in a thirtieth of its size or a thirteenth.

The steps, each undone exactly except for the first:

1. fixed point: ``round(flow * 64)`` as int16, up to +-511.98 px; components beyond are clamped and counted;
2. 2-D delta: each value minus what its left, upper and upper-left neighbours predict, wrapping in 16 bits;
3. zigzag: small negative numbers become small positive ones;
4. byte planes: all low bytes, then all high bytes, which are nearly all zero;
5. zstd, level 1.

Before them: a flow that its estimator enlarged from a coarser grid, as DIS does, is stored as that grid
(tasks/flow_grid.py) and enlarged again when it is read. A pixel is a weighted mean of nodes, so it is no further off
than they are, which is checked for every pixel before it is relied on. Every other flow is stored pixel by pixel.

DIS flows of 480x854 frames took 90 kB, pixel by pixel 245; half floats in byte planes took 727 kB at four times the
error. Every flow starts with a header: magic, version, steps per pixel, height, width, the number of clamped
components, and in version 2 the stride of the grid. Version 1 is stored pixel by pixel.

Steps 1 to 4 are compiled with numba. Where numba is absent numpy does the same, more slowly, byte for byte.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.compiled import AVAILABLE, compiled
from tasks.errors import DatasetError, InputError
from tasks.flow_grid import coarsen, enlarge, grid_size, is_enlarged, possible_strides

STEPS_PER_PIXEL = 64
"""Resolution of stored flow; rounding is off by at most half a step."""

MAX_ERROR_PX = 0.5 / STEPS_PER_PIXEL
"""Largest difference of a decoded component from the original, where it was not clamped."""

_LARGEST_STEP = 32767

MAX_FLOW_PX = _LARGEST_STEP / STEPS_PER_PIXEL
"""Largest component that can be stored; larger ones are clamped to it."""

_MAGIC = b"GWMF"
_BY_PIXEL, _BY_NODE = 1, 2  # versions
_HEADER = struct.Struct("<4sHHIII")  # magic, version, steps per pixel, height, width, number of clamped components
_STRIDE = struct.Struct("<I")  # of version 2, after the header: pixels between the nodes of the grid
_ZSTD_LEVEL = 1
_MAX_PIXELS = 1 << 28

Int16Flow = npt.NDArray[np.int16]
Planes = npt.NDArray[np.uint8]
Flow = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class _Header:
    """What a stored flow tells of itself. data_at: where its values begin."""

    steps_per_pixel: int
    size: tuple[int, int]
    num_clamped: int
    stride: int
    data_at: int


def encode_flow(flow: Flow) -> bytes:
    """Encode optical flow float32 [2, H, W] in pixels.

    Components beyond MAX_FLOW_PX are clamped. Raises InputError for another shape or type, and for NaN or infinity: an
    estimator that gives those has failed, and no number would stand for them.
    """
    _require_flow(flow)
    flow = np.ascontiguousarray(flow)
    stride, planes, num_clamped = _planes_of_grid(flow) or (1, *planes_of_flow(flow))
    version = _BY_PIXEL if stride == 1 else _BY_NODE
    header = _HEADER.pack(_MAGIC, version, STEPS_PER_PIXEL, *flow.shape[1:], num_clamped)
    if version == _BY_NODE:
        header += _STRIDE.pack(stride)
    return header + bytes(pa.Codec("zstd", _ZSTD_LEVEL).compress(planes, asbytes=True))


def decode_flow(data: bytes | memoryview) -> Flow:
    """Decode what ``encode_flow`` wrote to float32 [2, H, W] in pixels.

    Raises DatasetError when the bytes are damaged or of a version that is not known here.
    """
    header = _read_header(data)
    height, width = grid_size(header.size, header.stride)
    num_bytes = 4 * height * width
    try:
        plain = pa.Codec("zstd").decompress(memoryview(data)[header.data_at :], decompressed_size=num_bytes)
    except (OSError, ValueError) as error:
        raise DatasetError(f"stored optical flow is damaged ({error}); ingest the video again") from error
    if plain.size != num_bytes:
        raise DatasetError(
            f"stored optical flow holds {plain.size} bytes, expected {num_bytes}; ingest the video again"
        )
    planes = np.frombuffer(plain, np.uint8).reshape(2, 2, height, width)
    stored = flow_of_planes(planes, header.steps_per_pixel)
    return stored if header.stride == 1 else enlarge(stored, *header.size)


def num_clamped_components(data: bytes | memoryview) -> int:
    """How many components of a stored flow were beyond MAX_FLOW_PX, without decoding it."""
    return _read_header(data).num_clamped


def _planes_of_grid(flow: Flow) -> tuple[int, Planes, int] | None:
    """Stride, byte planes [2 low/high, 2, h, w] and no clamped components, if the flow was enlarged from a grid."""
    for stride in possible_strides(flow, MAX_ERROR_PX):
        planes, num_clamped = planes_of_flow(coarsen(flow, stride))
        if num_clamped == 0 and is_enlarged(flow_of_planes(planes, STEPS_PER_PIXEL), flow, MAX_ERROR_PX):
            return stride, planes, 0
    return None


def _require_flow(flow: Flow) -> None:
    shape = flow.shape
    if flow.dtype != np.float32 or len(shape) != 3 or shape[0] != 2 or 0 in shape:
        raise InputError(f"encode_flow(flow={flow.dtype} {shape}): expected float32 [2, H, W] in pixels")


def _read_header(data: bytes | memoryview) -> _Header:
    if len(data) < _HEADER.size:
        raise DatasetError(f"stored optical flow has {len(data)} bytes, less than its header; ingest the video again")
    magic, version, steps_per_pixel, height, width, num_clamped = _HEADER.unpack_from(data)
    if magic != _MAGIC or version not in (_BY_PIXEL, _BY_NODE):
        raise DatasetError(
            f"stored optical flow starts with {magic!r} version {version}, expected {_MAGIC!r} {_BY_PIXEL} or "
            f"{_BY_NODE}; ingest the video again with this version of the project"
        )
    data_at, stride = _HEADER.size, 1
    if version == _BY_NODE:
        data_at += _STRIDE.size
        stride = _STRIDE.unpack_from(data, _HEADER.size)[0] if len(data) >= data_at else 0
    if steps_per_pixel < 1 or not 0 < height * width <= _MAX_PIXELS or not _is_stride(stride, height, width):
        raise DatasetError(
            f"stored optical flow claims {height}x{width} at 1/{steps_per_pixel} px and a value every {stride} px: "
            "its header is damaged; ingest the video again"
        )
    return _Header(
        steps_per_pixel=steps_per_pixel, size=(height, width), num_clamped=num_clamped, stride=stride, data_at=data_at
    )


def _is_stride(stride: int, height: int, width: int) -> bool:
    return stride == 1 or (stride > 1 and min(grid_size((height, width), stride)) > 1)


def planes_of_flow_numpy(flow: Flow) -> tuple[Planes, int]:
    """Steps 1 to 4 forward: float32 [2, H, W] in pixels to byte planes [2 low/high, 2, H, W]; components clamped."""
    largest = max(float(flow.max()), -float(flow.min())) * STEPS_PER_PIXEL
    if not math.isfinite(largest):
        raise _not_finite()
    with np.errstate(over="ignore"):  # beyond float32 is beyond MAX_FLOW_PX too, and clamped below
        steps = flow * np.float32(STEPS_PER_PIXEL)  # exact otherwise: a power of two
    np.rint(steps, out=steps)
    num_clamped = int(np.count_nonzero(np.abs(steps) > _LARGEST_STEP))
    quantised = np.clip(steps, -_LARGEST_STEP, _LARGEST_STEP).astype(np.int16)
    delta = quantised.copy()
    delta[:, :, 1:] -= quantised[:, :, :-1]
    rows = delta.copy()
    delta[:, 1:] -= rows[:, :-1]
    zigzag = (delta << 1) ^ (delta >> 15)
    planes = np.moveaxis(zigzag.astype("<i2").view(np.uint8).reshape(*delta.shape, 2), -1, 0)
    return np.ascontiguousarray(planes), num_clamped


def _not_finite() -> InputError:
    return InputError("encode_flow(flow): contains NaN or infinity; expected displacements in pixels")


def join_planes_numpy(planes: Planes) -> Int16Flow:
    """Steps 2 to 4 backward: byte planes [2 low/high, 2, H, W] to int16 [2, H, W]."""
    zigzag = np.ascontiguousarray(np.moveaxis(planes, 0, -1)).view("<u2")[..., 0]
    delta = ((zigzag >> 1) ^ -(zigzag & 1)).astype(np.int16)
    rows = np.cumsum(delta, axis=2, dtype=np.int16)
    return np.cumsum(rows, axis=1, dtype=np.int16)


def _split_kernel(flow: Flow, steps_per_pixel: np.float32, planes: Planes) -> int:
    """Return how many components were clamped, -1 where one is no number.

    Three loops a row, none of which waits for its own last column, so that each becomes vector instructions.
    """
    num_columns = flow.shape[2]
    above = np.empty(num_columns, np.int16)
    steps = np.empty(num_columns, np.int16)
    slopes = np.zeros(num_columns + 1, np.int16)
    largest = np.float32(_LARGEST_STEP)
    num_clamped = num_bad = 0
    for channel in range(flow.shape[0]):
        above[:] = 0
        for row in range(flow.shape[1]):
            pixels, low, high = flow[channel, row], planes[0, channel, row], planes[1, channel, row]
            for column in range(num_columns):
                pixel = pixels[column]
                num_bad += pixel - pixel != 0  # of NaN, and of infinity
                step = np.rint(pixel * steps_per_pixel)
                num_clamped += abs(step) > largest
                step = largest if step > largest else step
                steps[column] = np.int16(-largest if step < -largest else step)
            for column in range(num_columns):
                slopes[column + 1] = np.int16(steps[column] - above[column])
                above[column] = steps[column]
            for column in range(num_columns):
                delta = np.int16(slopes[column + 1] - slopes[column])
                zigzag = np.uint16(np.int16(delta << np.int16(1)) ^ np.int16(delta >> np.int16(15)))
                low[column] = np.uint8(zigzag & np.uint16(255))
                high[column] = np.uint8(zigzag >> np.uint16(8))
    return -1 if num_bad else num_clamped


def _join_kernel(planes: Planes, pixels_per_step: np.float32, flow: Flow) -> None:
    """Three loops a row, since only the middle one must go column by column: twice as fast as one loop."""
    num_columns = planes.shape[3]
    above = np.empty(num_columns, np.int16)
    slopes = np.empty(num_columns, np.int16)
    for channel in range(planes.shape[1]):
        above[:] = 0
        for row in range(planes.shape[2]):
            low, high, pixels = planes[0, channel, row], planes[1, channel, row], flow[channel, row]
            for column in range(num_columns):
                zigzag = np.uint16(low[column]) | (np.uint16(high[column]) << np.uint16(8))
                slopes[column] = np.int16((zigzag >> np.uint16(1)) ^ np.uint16(-np.int16(zigzag & np.uint16(1))))
            slope = np.int32(0)
            for column in range(num_columns):
                slope += np.int32(slopes[column])
                slopes[column] = np.int16(slope)
            for column in range(num_columns):
                above[column] = np.int16(above[column] + slopes[column])
                pixels[column] = np.float32(above[column]) * pixels_per_step


_split = compiled(_split_kernel)
_join = compiled(_join_kernel)


def planes_of_flow(flow: Flow) -> tuple[Planes, int]:
    """Steps 1 to 4 forward, in one pass where numba is installed; see ``planes_of_flow_numpy``."""
    if not AVAILABLE:
        return planes_of_flow_numpy(flow)
    planes = np.empty((2, *flow.shape), np.uint8)
    num_clamped = _split(np.ascontiguousarray(flow), np.float32(STEPS_PER_PIXEL), planes)
    if num_clamped < 0:
        raise _not_finite()
    return planes, num_clamped


def flow_of_planes(planes: Planes, steps_per_pixel: int) -> Flow:
    """Steps 1 to 4 backward, in one pass where numba is installed: byte planes to float32 [2, H, W] in pixels."""
    pixels_per_step = np.float32(1 / steps_per_pixel)
    if not AVAILABLE:
        return join_planes_numpy(planes) * pixels_per_step
    flow = np.empty(planes.shape[1:], np.float32)
    _join(planes, pixels_per_step, flow)
    return flow
