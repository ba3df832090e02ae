"""PWC-Net and ARFlow written a second time: plain functions on the authors' state dicts, in their layer names.

Nothing of ``model/`` is used: correlation unfolds neighbourhoods, warping gathers four corners.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
SNIKLAUS = dict(zip(range(1, 7), ("One", "Two", "Thr", "Fou", "Fiv", "Six"), strict=True))


def conv(state: State, name: str, x: Tensor, *, stride: int = 1, dilation: int = 1, leak: float = 0.1) -> Tensor:
    weight = state[f"{name}.weight"]
    padding = dilation * (weight.shape[-1] // 2)
    x = F.conv2d(x, weight, state[f"{name}.bias"], stride=stride, padding=padding, dilation=dilation)
    return torch.where(x > 0, x, leak * x)


def similarities(first: Tensor, second: Tensor) -> Tensor:
    patches = F.unfold(second, 9, padding=4).unflatten(1, (first.shape[1], 81)).unflatten(3, first.shape[2:])
    volume = (first[:, :, None] * patches).mean(1)
    return torch.where(volume > 0, volume, 0.1 * volume)


def sample(image: Tensor, flow: Tensor, *, outside: str) -> Tensor:
    """Bilinear sampling at pixel + flow; outside: repeat the border, or zero wherever a corner is missing."""
    _, _, height, width = image.shape
    x = torch.arange(width) + flow[:, 0]
    y = torch.arange(height)[:, None] + flow[:, 1]
    visible = (x > -1e-3) & (x < width - 1 + 1e-3) & (y > -1e-3) & (y < height - 1 + 1e-3)
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    left, top = x.floor().long(), y.floor().long()
    out = torch.zeros_like(image)
    for column, share_x in ((left, 1 - (x - left)), ((left + 1).clamp(max=width - 1), x - left)):
        for row, share_y in ((top, 1 - (y - top)), ((top + 1).clamp(max=height - 1), y - top)):
            taken = torch.stack([one[:, r, c] for one, r, c in zip(image, row, column, strict=True)])
            out += taken * (share_x * share_y)[:, None]
    return out * visible[:, None] if outside == "zero" else out


def context(state: State, name: Callable[[int], str], x: Tensor) -> Tensor:
    """name: of each of the seven layers, counted from 0."""
    for index, dilation in enumerate((1, 2, 4, 8, 16, 1)):
        x = conv(state, name(index), x, dilation=dilation)
    return conv(state, name(6), x, leak=1)


def nvlabs_names() -> dict[str, Callable[..., str]]:
    def pyramid(level: int, index: int) -> str:
        letters = ("aa", "a", "b") if level == 6 else ("a", "aa", "b")
        return f"conv{level}{letters[index]}.0"

    return {
        "pyramid": pyramid,
        "dense": lambda level, index: f"conv{level}_{index}.0",
        "head": lambda level: f"predict_flow{level}",
        "up_flow": lambda level: f"deconv{level}",  # from this level to the next finer one
        "up_features": lambda level: f"upfeat{level}",
        "context": lambda index: f"dc_conv{index + 1}{'' if index == 6 else '.0'}",
    }


def sniklaus_names(prefix: str = "net") -> dict[str, Callable[..., str]]:
    def name(level: int, part: str) -> str:
        return f"{prefix}{SNIKLAUS[level]}.{prefix}{part}"

    return {
        "pyramid": lambda level, index: f"{prefix}Extractor.{prefix}{SNIKLAUS[level]}.{2 * index}",
        "dense": lambda level, index: name(level, f"{SNIKLAUS[index + 1]}.0"),
        "head": lambda level: name(level, "Six.0"),
        "up_flow": lambda level: name(level - 1, "Upflow"),
        "up_features": lambda level: name(level - 1, "Upfeat"),
        "context": lambda index: f"{prefix}Refiner.{prefix}Main.{2 * index}",
    }


def pwc_net(state: State, names: dict[str, Callable[..., str]], first: Tensor, second: Tensor) -> Tensor:
    """Return the flow of BGR images in 0..1 at a quarter of their size, in their pixels."""
    levels: dict[int, tuple[Tensor, Tensor]] = {}
    for level in range(1, 7):
        first, second = (
            conv(state, names["pyramid"](level, 2), conv(state, names["pyramid"](level, 1), begun))
            for begun in (conv(state, names["pyramid"](level, 0), image, stride=2) for image in (first, second))
        )
        levels[level] = first, second
    flow = x = torch.empty(0)
    for level in (6, 5, 4, 3, 2):
        first, second = levels[level]
        if level == 6:
            x = similarities(first, second)
        else:
            flow, up = (
                F.conv_transpose2d(value, state[f"{layer}.weight"], state[f"{layer}.bias"], stride=2, padding=1)
                for value, layer in ((flow, names["up_flow"](level + 1)), (x, names["up_features"](level + 1)))
            )
            warped = sample(second, flow * 20 / 2**level, outside="zero")
            x = torch.cat([similarities(first, warped), first, flow, up], dim=1)
        for index in range(5):
            x = torch.cat([conv(state, names["dense"](level, index), x), x], dim=1)
        flow = conv(state, names["head"](level), x, leak=1)
    return 20 * (flow + context(state, names["context"], x))


def arflow(state: State, first: Tensor, second: Tensor) -> Tensor:
    """Return the flow of RGB images in 0..1 at a quarter of their size, in pixels of that size."""
    levels = []
    for level in range(6):
        name = f"feature_pyramid_extractor.convs.{level}"
        first, second = (
            conv(state, f"{name}.1.0", conv(state, f"{name}.0.0", image, stride=2)) for image in (first, second)
        )
        levels.append((first, second))
    flow = torch.zeros(1, 2, *levels[-1][0].shape[-2:])
    for index, (first, second) in enumerate(levels[:0:-1]):
        if index:
            flow = F.interpolate(2 * flow, scale_factor=2, mode="bilinear", align_corners=True)
            second = sample(second, flow, outside="border")
        x = torch.cat([similarities(first, second), conv(state, f"conv_1x1.{index}.0", first), flow], dim=1)
        x1 = conv(state, "flow_estimators.conv1.0", x)
        x2 = conv(state, "flow_estimators.conv2.0", x1)
        x3 = conv(state, "flow_estimators.conv3.0", torch.cat([x1, x2], dim=1))
        x4 = conv(state, "flow_estimators.conv4.0", torch.cat([x2, x3], dim=1))
        x5 = conv(state, "flow_estimators.conv5.0", torch.cat([x3, x4], dim=1))
        flow = flow + conv(state, "flow_estimators.predict_flow.0", torch.cat([x4, x5], dim=1), leak=1)
        flow = flow + context(state, lambda i: f"context_networks.convs.{i}.0", torch.cat([x5, flow], dim=1))
    return flow


class RandomWeights:
    """Makes layers under given names; the same seed and order give the same tensors."""

    def __init__(self, seed: int) -> None:
        self.state = State()
        self._generator = torch.Generator().manual_seed(seed)

    def add(self, name: str, before: int, after: int, *, size: int = 3, gain: float = 1.0) -> None:
        """gain: 1 keeps the size of activations; flow and what is added to it want less."""
        scale = gain * (2 / (before * size * size)) ** 0.5
        self.state[f"{name}.weight"] = scale * torch.randn(after, before, size, size, generator=self._generator)
        self.state[f"{name}.bias"] = 0.01 * torch.randn(after, generator=self._generator)

    def add_transposed(self, name: str, before: int, after: int, *, gain: float) -> None:
        self.add(name, before, after, size=4, gain=gain)
        self.state[f"{name}.weight"] = self.state[f"{name}.weight"].transpose(0, 1).contiguous()

    def add_context(self, name: Callable[[int], str], before: int) -> None:
        for index, after in enumerate((128, 128, 128, 96, 64, 32, 2)):
            self.add(name(index), before, after, gain=0.3 if index == 6 else 1.0)
            before = after


def random_pwc_net(names: dict[str, Callable[..., str]], seed: int = 0) -> State:
    """Random weights in a port's names; both ports get the same tensors from the same seed."""
    weights = RandomWeights(seed)
    widths = (3, 16, 32, 64, 96, 128, 196)
    for level in range(1, 7):
        for index in range(3):
            weights.add(names["pyramid"](level, index), widths[level - (index == 0)], widths[level])
    total = 0
    for level in (6, 5, 4, 3, 2):
        if level < 6:
            weights.add_transposed(names["up_flow"](level + 1), 2, 2, gain=0.5)
            weights.add_transposed(names["up_features"](level + 1), total, 2, gain=1.0)
        total = 81 if level == 6 else 81 + widths[level] + 4
        for index, width in enumerate((128, 128, 96, 64, 32)):
            weights.add(names["dense"](level, index), total, width)
            total += width
        weights.add(names["head"](level), total, 2, gain=0.05)
    weights.add_context(names["context"], total)
    return weights.state


def random_arflow(num_frames: int = 2, seed: int = 0) -> State:
    """Random weights in the names of lliuz/ARFlow, of its network for two or for three frames."""
    weights = RandomWeights(seed)
    widths = (3, 16, 32, 64, 96, 128, 192)
    for level in range(6):
        for index in range(2):
            name = f"feature_pyramid_extractor.convs.{level}.{index}.0"
            weights.add(name, widths[level + index], widths[level + 1])
    for index, width in enumerate(widths[:1:-1]):
        weights.add(f"conv_1x1.{index}.0", width, 32, size=1)
    sizes = ((32 + 83 * (num_frames - 1), 128), (128, 128), (256, 96), (224, 64), (160, 32))
    for index, (before, after) in enumerate(sizes):
        weights.add(f"flow_estimators.conv{index + 1}.0", before, after)
    weights.add("flow_estimators.predict_flow.0", 96, 2, gain=0.3)
    weights.add_context(lambda index: f"context_networks.convs.{index}.0", 34 * (num_frames - 1))
    return weights.state
