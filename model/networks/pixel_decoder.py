"""The pixel decoder of GWM's MaskFormer: a feature pyramid, then a mask branch that brings it to full resolution.

Follows the released "BigPixelDecoder": every convolution but the last has no bias and is followed by group norm and
ReLU, and the norm behind the deepest level is the same module as the four of the mask branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

NUM_GROUPS = 32  # of every group norm (released configuration)

MaskBranch = Literal["released", "clean", "none"]


def caffe2_xavier(layer: nn.Conv2d) -> nn.Conv2d:
    """Draw the weights of a convolution from U(-sqrt(3 / fan_in), sqrt(3 / fan_in)), biases 0, as caffe2 does."""
    nn.init.kaiming_uniform_(layer.weight, a=1)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class NormedConvolution(nn.Module):
    """Convolution without bias and group norm; as many rows and columns come out as go in."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.convolution = caffe2_xavier(nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=False))
        self.norm = nn.GroupNorm(NUM_GROUPS, out_channels)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h w"]:
        """Return normalised features, without an activation."""
        return self.norm(self.convolution(x))


class PixelDecoder(nn.Module):
    """Feature pyramid over the levels of a backbone, and a mask branch on top of its finest level.

    in_channels: of the backbone's levels, finest first. channels: of everything that comes out; a multiple of 32.
    mask_branch:
        released: twice up by nearest neighbour, each time followed by a 1x1 convolution **with padding 1**. That adds a
            ring of zeros at both scales, which is how 31x55 keys of a 128x224 image become 130x226 mask features.
        clean: ours, with the same parameters: bilinear upsampling and no padding of 1x1 convolutions, 124x220.
        none: the released "BasePixelDecoder" of the Swin and ResNet configurations: one 3x3 convolution.
    """

    def __init__(self, *, in_channels: Sequence[int], channels: int, mask_branch: MaskBranch = "released") -> None:
        super().__init__()
        *finer, deepest = in_channels
        self.mask_branch = mask_branch
        self.laterals = nn.ModuleList(NormedConvolution(width, channels, 1) for width in finer)
        self.outputs = nn.ModuleList(NormedConvolution(channels, channels, 3) for _ in finer)
        self.deepest = caffe2_xavier(nn.Conv2d(deepest, channels, 3, padding=1, bias=False))
        self.shared_norm = nn.GroupNorm(NUM_GROUPS, channels)
        # The released code means caffe2's initialisation for the mask branch too, but a test of names keeps it from
        # being applied there: torch's default stays.
        num_doublings = 0 if mask_branch == "none" else 2
        ring = 1 if mask_branch == "released" else 0
        self.before = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(num_doublings)
        )
        self.after = nn.ModuleList(
            nn.Conv2d(channels, channels, 1, padding=ring, bias=False) for _ in range(num_doublings)
        )
        self.mask_features = nn.Conv2d(channels, channels, 3, padding=1)
        if mask_branch == "none":
            caffe2_xavier(self.mask_features)

    def forward(self, levels: Sequence[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b c h w"]:
        """Return mask features of the backbone's levels, which come finest first."""
        y = F.relu(self.shared_norm(self.deepest(levels[-1])))
        for level, lateral, output in reversed(list(zip(levels[:-1], self.laterals, self.outputs, strict=True))):
            across = lateral(level)
            y = F.relu(output(across + F.interpolate(y, size=across.shape[-2:], mode="nearest")))
        for before, after in zip(self.before, self.after, strict=True):
            y = self._double(F.relu(self.shared_norm(before(y))))
            y = F.relu(self.shared_norm(after(y)))
        return self.mask_features(y)

    def _double(self, y: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c H W"]:
        if self.mask_branch == "clean":
            return F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
        return F.interpolate(y, scale_factor=2, mode="nearest")
