"""PWC-Net (Sun et al., CVPR 2018) with dense connections and the context network, as NVlabs/PWC-Net has it in PyTorch.

sniklaus/pytorch-pwc is the same network; weights of both convert to ours. They differ in two details: a warped feature
counts when 0.9999 of it comes from inside the frame there, 0.999 here as in the second; and newer versions of the
second stretch each displacement by size / (size - 1), which the weights were not trained with and this does not do.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

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
)
from model.warp import warp

PYRAMID_CHANNELS = (16, 32, 64, 96, 128, 196)  # this and all below: released code
CONVOLUTIONS_PER_LEVEL = 3
DENSE_CHANNELS = (128, 128, 96, 64, 32)
UPWARD_CHANNELS = 4  # flow and features, two channels each, from the level below
FLOW_SCALE_PX = 20.0  # the network was trained on flow divided by 20
OUTPUT_STRIDE = 4
MIN_INSIDE = 0.999


class DenseDecoder(nn.Module):
    """Five convolutions, each reading the input and all outputs before it, and a flow."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        widths = accumulate(DENSE_CHANNELS, initial=in_channels)
        self.convolutions = nn.ModuleList(
            convolution(before, after) for before, after in zip(widths, DENSE_CHANNELS, strict=False)
        )
        self.head = nn.Conv2d(in_channels + sum(DENSE_CHANNELS), 2, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b 2 h w"], Float[Tensor, "b d h w"]]:
        """Return the flow, and everything it was read from: newest features first, the input last."""
        for layer in self.convolutions:
            x = torch.cat([layer(x), x], dim=1)
        return self.head(x), x


class PwcNet(nn.Module):
    """PWC-Net with 9.37 million parameters, for inference: the loss of its training is not part of this project."""

    def __init__(self) -> None:
        super().__init__()
        self.pyramid = FeaturePyramid(PYRAMID_CHANNELS, CONVOLUTIONS_PER_LEVEL)
        correlated = (2 * RADIUS + 1) ** 2
        finer = PYRAMID_CHANNELS[-2 : -NUM_FLOW_LEVELS - 1 : -1]  # 128, 96, 64, 32; the coarsest is only correlated
        inputs = [correlated, *(correlated + channels + UPWARD_CHANNELS for channels in finer)]
        outputs = [channels + sum(DENSE_CHANNELS) for channels in inputs]
        self.decoders = nn.ModuleList(DenseDecoder(channels) for channels in inputs)
        self.flow_upsamplings = nn.ModuleList(_upsampling(2) for _ in finer)
        self.feature_upsamplings = nn.ModuleList(_upsampling(channels) for channels in outputs[:-1])
        self.context = context_network(outputs[-1])

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Return the pyramid of BGR images in 0..1 whose sides are multiples of 64, coarse to fine."""
        return self.pyramid(images)

    def forward(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Float[Tensor, "b 2 h w"]:
        """Return the flow from the first to the second pyramid at stride 4, in pixels of the images."""
        flow, features = self.decoders[0](_similarities(first[0], second[0]))
        stride = 2**NUM_FLOW_LEVELS  # of the second level
        for level in range(1, NUM_FLOW_LEVELS):
            flow = self.flow_upsamplings[level - 1](flow)
            features = self.feature_upsamplings[level - 1](features)
            warped = warp_inside(second[level], flow * (FLOW_SCALE_PX / stride))
            joined = torch.cat([_similarities(first[level], warped), first[level], flow, features], dim=1)
            flow, features = self.decoders[level](joined)
            stride //= 2
        return FLOW_SCALE_PX * (flow + self.context(features))


def warp_inside(features: Float[Tensor, "b c h w"], flow: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b c h w"]:
    """Warp, with 0 wherever the flow leads out of the frame, be it by a fraction of a pixel."""
    marked = torch.cat([features, torch.ones_like(features[:, :1])], dim=1)
    warped = warp(marked, flow, padding="zeros")
    return warped[:, :-1] * (warped[:, -1:] >= MIN_INSIDE)


def _similarities(first: Float[Tensor, "b c h w"], second: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 81 h w"]:
    return F.leaky_relu(local_correlation(first, second), LEAK)


def _upsampling(in_channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(in_channels, 2, 4, stride=2, padding=1)
