"""PWC-lite: the small PWC-Net of ARFlow (Liu et al., CVPR 2020), and the part of it that AMD trains.

Names on the way from a pyramid level to a flow::

    first, second   features of both frames                      192, 128, 96, 64, 32 channels
    correlation     81 similarities, second warped by the flow   81
    reduced         first through a 1x1 convolution              32    together with the flow: 115 channels
    motion          what the estimator makes of those            96    PwcLiteMatcher ends here
    flow            + head(motion)                                2    PwcLite; AMD's head pools over segments first
    flow            + context([last 32 of motion, flow])          2
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from model.networks.correlation import RADIUS, local_correlation
from model.networks.pwc_blocks import (
    LEAK,
    NUM_FLOW_LEVELS,
    FeaturePyramid,
    context_network,
    convolution,
    enlarge_flow,
    start_flow,
)
from model.warp import warp

PYRAMID_CHANNELS = (16, 32, 64, 96, 128, 192)  # this and all below: released code of ARFlow, "reduce_dense"
CONVOLUTIONS_PER_LEVEL = 2
REDUCED_CHANNELS = 32
MOTION_CHANNELS = 96
CONTEXT_INPUT_CHANNELS = 32  # the last of the motion channels
OUTPUT_STRIDE = 4  # of the finest flow


class MotionEstimator(nn.Module):
    """Five convolutions, each from the third on reading the outputs of the two before it."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        channels = [(in_channels, 128), (128, 128), (128 + 128, 96), (128 + 96, 64), (96 + 64, 32)]
        self.convolutions = nn.ModuleList(convolution(before, after) for before, after in channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 96 h w"]:
        """Return the outputs of the fourth and the fifth convolution."""
        first, second, *others = self.convolutions
        older = first(x)
        newer = second(older)
        for layer in others:
            older, newer = newer, layer(torch.cat([older, newer], dim=1))
        return torch.cat([older, newer], dim=1)


class PwcLiteMatcher(nn.Module):
    """What ARFlow and AMD share: the pyramid, and motion features of a pair of levels. The estimator serves all levels.

    With AMD's segment head 1 721 714 parameters, as its released code has.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pyramid = FeaturePyramid(PYRAMID_CHANNELS, CONVOLUTIONS_PER_LEVEL)
        coarse_to_fine = PYRAMID_CHANNELS[: -NUM_FLOW_LEVELS - 1 : -1]
        self.reductions = nn.ModuleList(convolution(channels, REDUCED_CHANNELS, size=1) for channels in coarse_to_fine)
        self.estimator = MotionEstimator((2 * RADIUS + 1) ** 2 + REDUCED_CHANNELS + 2)

    def forward(
        self,
        level: int,
        first: Float[Tensor, "b c h w"],
        second: Float[Tensor, "b c h w"],
        flow: Float[Tensor, "b 2 h w"],
    ) -> Float[Tensor, "b 96 h w"]:
        """Return motion features at ``level``, 0 being the coarsest; ``flow`` is known so far, in pixels of the level.

        The coarsest level starts without motion and is not warped.
        """
        warped = warp(second, flow) if level else second
        similarities = F.leaky_relu(local_correlation(first, warped), LEAK)
        return self.estimator(torch.cat([similarities, self.reductions[level](first), flow], dim=1))


class PwcLite(nn.Module):
    """ARFlow's flow network for two frames: 2.24 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.matcher = PwcLiteMatcher()
        self.head = nn.Conv2d(MOTION_CHANNELS, 2, 3, padding=1)
        self.context = context_network(CONTEXT_INPUT_CHANNELS + 2)

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Return the pyramid of RGB images in 0..1 whose sides are multiples of 64, coarse to fine."""
        return self.matcher.pyramid(images)

    def forward(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> list[Tensor]:
        """Return flows from the first to the second pyramid at strides 64 to 4, in pixels of their own grids."""
        flow, flows = start_flow(first[0]), []
        for level, (here, there) in enumerate(zip(first, second, strict=True)):
            if level:
                flow = enlarge_flow(flow, 2)
            motion = self.matcher(level, here, there, flow)
            flow = flow + self.head(motion)
            flow = flow + self.context(torch.cat([motion[:, -CONTEXT_INPUT_CHANNELS:], flow], dim=1))
            flows.append(flow)
        return flows
