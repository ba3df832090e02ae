"""Optical flow that was computed on a coarser grid and then enlarged: find that grid again, and enlarge it.

An estimator that works at a fraction of the frame's size ends by enlarging its result bilinearly: DIS at a half
(preset medium) or a quarter (fast, ultrafast) of it, in ``DISOpticalFlow::calc`` of OpenCV. Such a flow has a
quarter or a sixteenth as many unknowns as numbers. Between two nodes of a row it is a straight line, so any two
pixels there give the line, and thereby the node.

Pixel x of n lies at (x + 0.5) m / n - 0.5 of a grid of m nodes, and beyond the outer nodes has their value: OpenCV's
INTER_LINEAR, PyTorch's bilinear interpolation without aligned corners.

The kernels are compiled with numba. Where it is absent numpy does the same, more slowly, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from model.compiled import AVAILABLE, compiled

STRIDES = (4, 2)
"""Pixels between nodes of the grids that are looked for, the coarsest first."""

Flow = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Where the n pixels of one axis lie among the m nodes of a grid, and which pixels tell its nodes.

    node, weight: [n]; a pixel's value is ``nodes[node] + weight * (nodes[node + 1] - nodes[node])``.
    pixel, reach: [m]; a node's value is ``pixels[pixel] - reach * (pixels[pixel + 1] - pixels[pixel])``.
    """

    node: Places
    weight: Flow
    pixel: Places
    reach: Flow


@lru_cache(maxsize=64)
def axis(num_pixels: int, num_nodes: int) -> Axis:
    """Return the axis of so many pixels over so many nodes: at least two, and at most half as many as pixels."""
    step = num_nodes / num_pixels
    # As OpenCV rounds: the place to float32, and only then what is left of it after its node.
    place = ((np.arange(num_pixels) + 0.5) * step - 0.5).astype(np.float32).clip(0, num_nodes - 1)
    node = np.minimum(np.floor(place).astype(np.int64), num_nodes - 2)
    # The outer nodes are seen as they are at the borders; of each other one the two pixels to its right tell.
    inner = np.arange(1, num_nodes - 1)
    first = np.searchsorted(place, inner.astype(np.float32))
    return Axis(
        node=node,
        weight=(place - node).astype(np.float32),
        pixel=np.concatenate([[0], first, [num_pixels - 2]]),
        reach=np.concatenate([[0], (place[first] - inner) / step, [-1]]).astype(np.float32),
    )


def grid_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Height and width of the grid of an image of this height and width."""
    return size[0] // stride, size[1] // stride


def possible_strides(flow: Flow, max_error_px: float) -> Iterator[int]:
    """Yield strides of grids that flow float32 [2, H, W] may have been enlarged from, the coarsest first.

    Only a row through the middle is looked at, so that it costs little to see that there is none.
    """
    height, width = flow.shape[1:]
    middle = flow[:, height // 2]
    for stride in STRIDES:
        num_rows, num_columns = grid_size((height, width), stride)
        if min(num_rows, num_columns) < 2:
            continue
        columns = axis(width, num_columns)
        with np.errstate(invalid="ignore", over="ignore"):  # numbers for which no grid will be found
            again = _widen_numpy(_narrow_numpy(middle, columns), columns)
            if np.abs(again - middle).max() <= max_error_px:
                yield stride


def coarsen(flow: Flow, stride: int) -> Flow:
    """Return the nodes float32 [2, h, w] of a flow float32 [2, H, W] that was enlarged from a grid of this stride."""
    if not AVAILABLE:
        return coarsen_numpy(flow, stride)
    size = grid_size((flow.shape[1], flow.shape[2]), stride)
    rows, columns = axis(flow.shape[1], size[0]), axis(flow.shape[2], size[1])
    grid = np.empty((flow.shape[0], *size), np.float32)
    _coarsen(flow, rows.pixel, rows.reach, columns.pixel, columns.reach, grid)
    return grid


def coarsen_numpy(flow: Flow, stride: int) -> Flow:
    """Return what ``coarsen`` does, with numpy alone."""
    height, width = grid_size((flow.shape[1], flow.shape[2]), stride)
    rows = axis(flow.shape[1], height)
    with np.errstate(invalid="ignore", over="ignore"):
        upper, lower = flow[:, rows.pixel], flow[:, rows.pixel + 1]
        return _narrow_numpy(upper - rows.reach[:, None] * (lower - upper), axis(flow.shape[2], width))


def enlarge(grid: Flow, height: int, width: int) -> Flow:
    """Enlarge a grid float32 [2, h, w] bilinearly to float32 [2, height, width]."""
    if not AVAILABLE:
        return enlarge_numpy(grid, height, width)
    rows, columns = axis(height, grid.shape[1]), axis(width, grid.shape[2])
    flow = np.empty((grid.shape[0], height, width), np.float32)
    _enlarge(grid, rows.node, rows.weight, columns.node, columns.weight, flow)
    return flow


def enlarge_numpy(grid: Flow, height: int, width: int) -> Flow:
    """Return what ``enlarge`` does, with numpy alone."""
    rows = axis(height, grid.shape[1])
    wide = _widen_numpy(grid, axis(width, grid.shape[2]))
    upper, lower = wide[:, rows.node], wide[:, rows.node + 1]
    flow: Flow = upper + rows.weight[:, None] * (lower - upper)
    return flow


def is_enlarged(grid: Flow, flow: Flow, max_error_px: float) -> bool:
    """Whether ``enlarge`` makes of the grid what is within max_error_px of every component of flow [2, H, W]."""
    height, width = flow.shape[1:]
    if not AVAILABLE:
        return bool(np.abs(enlarge_numpy(grid, height, width) - flow).max() <= max_error_px)
    rows, columns = axis(height, grid.shape[1]), axis(width, grid.shape[2])
    return not _differ(grid, rows.node, rows.weight, columns.node, columns.weight, flow, max_error_px)


def _narrow_numpy(values: Flow, columns: Axis) -> Flow:
    left, right = values[..., columns.pixel], values[..., columns.pixel + 1]
    narrow: Flow = left - columns.reach * (right - left)
    return narrow


def _widen_numpy(values: Flow, columns: Axis) -> Flow:
    left, right = values[..., columns.node], values[..., columns.node + 1]
    wide: Flow = left + columns.weight * (right - left)
    return wide


def _coarsen_kernel(
    flow: Flow, row_pixel: Places, row_reach: Flow, column_pixel: Places, column_reach: Flow, grid: Flow
) -> None:
    row_of_nodes = np.empty(flow.shape[2], np.float32)
    for channel in range(flow.shape[0]):
        for row in range(grid.shape[1]):
            upper, lower = flow[channel, row_pixel[row]], flow[channel, row_pixel[row] + 1]
            reach, nodes = row_reach[row], grid[channel, row]
            for column in range(len(row_of_nodes)):
                row_of_nodes[column] = upper[column] - reach * (lower[column] - upper[column])
            for column in range(len(nodes)):
                left = row_of_nodes[column_pixel[column]]
                right = row_of_nodes[column_pixel[column] + 1]
                nodes[column] = left - column_reach[column] * (right - left)


def _widen_kernel(
    nodes: Flow, num_wide: int, num_wanted: int, column_node: Places, column_weight: Flow, wide: Flow
) -> int:
    """Widen further rows of nodes [h, w], the i-th into wide[i % 2], until so many were; none is widened twice."""
    steps = np.empty(nodes.shape[1], np.float32)
    for row in range(num_wide, num_wanted):
        values, pixels = nodes[row], wide[row % 2]
        for column in range(len(values) - 1):  # first, so that each pixel asks for one place of two short rows
            steps[column] = values[column + 1] - values[column]
        for column in range(len(pixels)):
            pixels[column] = values[column_node[column]] + column_weight[column] * steps[column_node[column]]
    return num_wanted


def _enlarge_kernel(
    grid: Flow, row_node: Places, row_weight: Flow, column_node: Places, column_weight: Flow, flow: Flow
) -> None:
    wide = np.empty((2, flow.shape[2]), np.float32)
    for channel in range(flow.shape[0]):
        num_wide = 0
        for row in range(flow.shape[1]):
            node, weight, pixels = row_node[row], row_weight[row], flow[channel, row]
            if num_wide < node + 2:
                num_wide = _widen(grid[channel], num_wide, node + 2, column_node, column_weight, wide)
            upper, lower = wide[node % 2], wide[(node + 1) % 2]
            for column in range(len(pixels)):
                pixels[column] = upper[column] + weight * (lower[column] - upper[column])


def _differ_kernel(
    grid: Flow, row_node: Places, row_weight: Flow, column_node: Places, column_weight: Flow, flow: Flow, limit: float
) -> bool:
    """Whether any pixel is further off than limit, or is no number, up to the first row that has one."""
    wide = np.empty((2, flow.shape[2]), np.float32)
    for channel in range(flow.shape[0]):
        num_wide = 0
        for row in range(flow.shape[1]):
            node, weight, pixels = row_node[row], row_weight[row], flow[channel, row]
            if num_wide < node + 2:
                num_wide = _widen(grid[channel], num_wide, node + 2, column_node, column_weight, wide)
            upper, lower = wide[node % 2], wide[(node + 1) % 2]
            num_off = 0
            for column in range(len(pixels)):
                made = upper[column] + weight * (lower[column] - upper[column])
                num_off += not abs(made - pixels[column]) <= limit
            if num_off:
                return True
    return False


_widen = compiled(_widen_kernel)
_coarsen = compiled(_coarsen_kernel)
_enlarge = compiled(_enlarge_kernel)
_differ = compiled(_differ_kernel)
