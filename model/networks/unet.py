"""The U-Net of GWM's Table 1: trained from scratch, four levels deep.

GWM's released code has no U-Net; the paper names milesial/Pytorch-UNet, whose structure and parameter counts this
follows: 31 037 828 parameters with transposed convolutions, 17 263 172 with bilinear upsampling, for K=4 and 64 base
channels. Which of the two variants the paper used is not known.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class DoubleConvolution(nn.Sequential):
    """Twice: 3x3 convolution without bias, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, middle_channels: int | None = None) -> None:
        middle = middle_channels or out_channels
        super().__init__(
            nn.Conv2d(in_channels, middle, 3, padding=1, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class UpBlock(nn.Module):
    """Double the resolution, join the encoder's map of that resolution, convolve."""

    def __init__(self, in_channels: int, out_channels: int, *, bilinear: bool) -> None:
        super().__init__()
        self.up: nn.Module
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.convolution = DoubleConvolution(in_channels, out_channels, in_channels // 2)
        else:
            self.up = nn.ConvTranspose2d(in_channels, in_channels // 2, 2, stride=2)
            self.convolution = DoubleConvolution(in_channels, out_channels)

    def forward(self, x: Float[Tensor, "b c h w"], skip: Float[Tensor, "b s H W"]) -> Float[Tensor, "b o H W"]:
        """Return features at the resolution of ``skip``; sizes not divisible by 16 are padded, as in the original."""
        x = self.up(x)
        rows, columns = skip.shape[-2] - x.shape[-2], skip.shape[-1] - x.shape[-1]
        if rows or columns:
            x = F.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        return self.convolution(torch.cat([skip, x], dim=1))


class UNet(nn.Module):
    """Encoder of four max-pools, decoder of four up-blocks, 1x1 convolution to K mask logits.

    base_channels: width at full resolution; it doubles at every level (paper: 64).
    """

    def __init__(self, *, num_segments: int, base_channels: int = 64, bilinear: bool = False) -> None:
        super().__init__()
        shrink = 2 if bilinear else 1
        widths = [base_channels * 2**level for level in range(5)]
        widths[-1] //= shrink
        self.stem = DoubleConvolution(3, widths[0])
        self.down = nn.ModuleList(DoubleConvolution(a, b) for a, b in pairwise(widths))
        ins = [base_channels * 2**level for level in (4, 3, 2, 1)]
        outs = [base_channels * 2**level // (shrink if level else 1) for level in (3, 2, 1, 0)]
        self.up = nn.ModuleList(UpBlock(a, b, bilinear=bilinear) for a, b in zip(ins, outs, strict=True))
        self.head = nn.Conv2d(widths[0], num_segments, 1)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b k h w"], Float[Tensor, "b c h w"]]:
        """Return mask logits and the decoder features they were read from, both at the images' resolution."""
        x = self.stem(images)
        skips = []
        for block in self.down:
            skips.append(x)
            x = block(F.max_pool2d(x, 2))
        for block in self.up:
            x = block(x, skips.pop())
        return self.head(x), x
