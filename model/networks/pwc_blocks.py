"""What PWC-Net, ARFlow's lighter version of it and AMD's motion network are made of.

All three estimate flow coarse to fine on a pyramid of features: warp the second frame's features by the flow so far,
correlate them with the first frame's in a small neighbourhood, and let a network read the rest of the motion off.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from model.errors import InputError

LEAK = 0.1  # negative slope everywhere (released code of PWC-Net, ARFlow and AMD)
PYRAMID_STRIDE = 64  # of the coarsest of six levels
NUM_FLOW_LEVELS = 5  # strides 64, 32, 16, 8 and 4; the finest level of the pyramid, stride 2, carries no flow
CONTEXT_CHANNELS = (128, 128, 128, 96, 64, 32)
CONTEXT_DILATIONS = (1, 2, 4, 8, 16, 1)  # PWC-Net, section 3, "Context network"


def convolution(in_channels: int, out_channels: int, *, size: int = 3, stride: int = 1, dilation: int = 1) -> nn.Module:
    """Return a convolution that keeps the resolution (but for ``stride``), and a leaky ReLU."""
    padding = dilation * (size - 1) // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, size, stride=stride, padding=padding, dilation=dilation),
        nn.LeakyReLU(LEAK, inplace=True),
    )


class FeaturePyramid(nn.Module):
    """Six levels, each half the resolution of the one before.

    channels: of each level, finest first. num_convolutions: per level; the first of them has stride 2.
    """

    def __init__(self, channels: Sequence[int], num_convolutions: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(
                convolution(before, after, stride=2),
                *(convolution(after, after) for _ in range(num_convolutions - 1)),
            )
            for before, after in pairwise((3, *channels))
        )

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Return features at strides 64, 32, 16, 8 and 4, coarse to fine.

        Raises InputError unless both sides are multiples of 64.
        """
        if images.shape[-2] % PYRAMID_STRIDE or images.shape[-1] % PYRAMID_STRIDE or images.numel() == 0:
            raise InputError(
                f"images of {images.shape[-2]}x{images.shape[-1]} (rows x columns): the pyramid halves them six times, "
                f"so both sides must be multiples of {PYRAMID_STRIDE}; resize them"
            )
        features = []
        for level in self.levels:
            images = level(images)
            features.append(images)
        return features[: -NUM_FLOW_LEVELS - 1 : -1]


def context_network(in_channels: int) -> nn.Sequential:
    """Return dilated convolutions that correct a flow by what surrounds each pixel; two channels come out."""
    channels = pairwise((in_channels, *CONTEXT_CHANNELS))
    layers = [convolution(a, b, dilation=d) for (a, b), d in zip(channels, CONTEXT_DILATIONS, strict=True)]
    return nn.Sequential(*layers, nn.Conv2d(CONTEXT_CHANNELS[-1], 2, 3, padding=1))


def enlarge_flow(flow: Float[Tensor, "b 2 h w"], factor: int) -> Float[Tensor, "b 2 H W"]:
    """Return the flow on a grid ``factor`` times finer, bilinear with aligned corners, in pixels of that grid."""
    return F.interpolate(flow * factor, scale_factor=factor, mode="bilinear", align_corners=True)


def start_flow(coarsest: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 2 h w"]:
    """Return no motion, on the grid of the coarsest level."""
    return coarsest.new_zeros(len(coarsest), 2, *coarsest.shape[-2:])
