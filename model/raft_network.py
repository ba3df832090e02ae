"""torchvision's RAFT with its work in another order: per frame, per pair and per update.

::

    features    of every image, and pooled three times
    context     of every image that pairs start at, and what it adds to each recurrent unit
    forward     of every pair: correlation pyramid -> updates -> upsampling, once

The weights are torchvision's, the numbers too, up to rounding. Activations are channels_last, which is what the
convolutions of both CPUs and GPUs are fastest with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.optical_flow import RAFT
from torchvision.models.optical_flow._utils import make_coords_grid

from model.raft_correlation import CorrelationPyramid, pooled_features
from model.raft_updates import ContextTerms, UpdateOperator

_STRIP_ROWS = 8  # 2, 4 and 8 are equally fast and precise

FACTOR = 8  # between pixels and what both encoders give out


@dataclass(frozen=True, kw_only=True, eq=False)
class Context:
    """What the first frame of a pair adds. hidden: where the recurrent units start. terms: their unchanging part."""

    hidden: Float[Tensor, "1 d h w"]
    terms: tuple[ContextTerms, ...]


class RaftNetwork(nn.Module):
    """RAFT for inference, made of a torchvision network that is used up."""

    def __init__(self, network: RAFT, dtype: torch.dtype) -> None:
        """dtype: of weights and activations; correlation and positions are float32 whatever it is."""
        super().__init__()
        width = network.update_block.hidden_state_size
        network.eval()
        _arrange_norms(network.feature_encoder)
        _arrange_norms(network.context_encoder)
        self.feature_encoder = network.feature_encoder
        self.context_encoder = network.context_encoder
        self.update = UpdateOperator(network.update_block, network.context_encoder.output_dim - width)
        self.mask_predictor = network.mask_predictor  # None in raft-small, which upsamples bilinearly
        self.to(dtype).to(memory_format=torch.channels_last).requires_grad_(False)
        self._dtype = dtype
        self._pyramid = CorrelationPyramid(network.corr_block.radius)

    def features(self, image: Float[Tensor, "1 3 H W"]) -> tuple[Float[Tensor, "1 c _ _"], ...]:
        """Return what is correlated, in float32 at all scales; the image is in -1..1, its sides multiples of FACTOR."""
        return pooled_features(self.feature_encoder(self._laid_out(image)))

    def context(self, image: Float[Tensor, "1 3 H W"]) -> Context:
        """Return what any number of pairs need that start at this image."""
        # One output of the context encoder starts the recurrent unit and feeds it (paper, section 3.3).
        both = self.context_encoder(self._laid_out(image))
        hidden, context = both.tensor_split([self.update.hidden_size], dim=1)
        return Context(hidden=hidden.tanh(), terms=self.update.context_terms(context.relu()))

    def forward(
        self,
        first: Sequence[tuple[Float[Tensor, "1 c _ _"], ...]],
        second: Sequence[tuple[Float[Tensor, "1 c _ _"], ...]],
        contexts: Sequence[Context],
        num_updates: int,
    ) -> Float[Tensor, "n 2 H W"]:
        """Return displacements in pixels from each first image to its second, after ``num_updates`` updates.

        first, second: ``features`` of the images. contexts: of the first images.
        """
        levels = zip(*second, strict=True)
        self._pyramid.build(_joined([features[0] for features in first]), [_joined(level) for level in levels])
        hidden = _joined([context.hidden for context in contexts])
        per_unit = zip(*(context.terms for context in contexts), strict=True)
        terms = tuple(ContextTerms(*(_joined(part) for part in zip(*unit, strict=True))) for unit in per_unit)
        start = make_coords_grid(len(first), *hidden.shape[-2:], device=str(hidden.device))
        start = start.contiguous(memory_format=torch.channels_last)
        position = start
        for _ in range(num_updates):
            correlation = self._pyramid.lookup(position).to(self._dtype)
            hidden, step = self.update(hidden, terms, correlation, (position - start).to(self._dtype))
            position = position + step
        weights = None if self.mask_predictor is None else self.mask_predictor(hidden).float()
        return upsample(position - start, weights)

    def _laid_out(self, image: Tensor) -> Tensor:
        return image.to(self._dtype, memory_format=torch.channels_last)


def upsample(flow: Float[Tensor, "n 2 h w"], weights: Float[Tensor, "n k h w"] | None) -> Float[Tensor, "n 2 H W"]:
    """Bring a flow in units of FACTOR pixels to full resolution and to pixels.

    weights: for each of FACTOR^2 fine pixels nine logits, of the coarse pixels around it that it is an average of
    (paper, section 3.3); None interpolates.
    """
    num_pairs, _, height, width = flow.shape
    if weights is None:
        size = (FACTOR * height, FACTOR * width)
        return FACTOR * F.interpolate(flow, size=size, mode="bilinear", align_corners=True)
    shares = weights.permute(0, 2, 3, 1).reshape(-1, 9, FACTOR**2).softmax(dim=1)  # (n h w, 9, fine)
    around = F.unfold(FACTOR * flow, kernel_size=3, padding=1)  # (n, 2 9, h w)
    around = around.mT.reshape(-1, 2, 9)
    fine = torch.bmm(around, shares).view(num_pairs, height, width, 2, FACTOR, FACTOR)
    return fine.permute(0, 3, 1, 4, 2, 5).reshape(num_pairs, 2, FACTOR * height, FACTOR * width)


class _InstanceNorm(nn.Module):
    """Instance normalisation of channels_last activations, which torch would copy to another layout and back.

    Group normalisation knows the layout, but on a CPU it adds up all pixels one after the other in float32, which
    costs 1e-4 of the features at 240x428. So strips of a few rows are normalised, and corrected to the whole.
    """

    def __init__(self, norm: nn.InstanceNorm2d) -> None:
        super().__init__()
        self.num_channels, self.eps = norm.num_features, norm.eps

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        if x.dtype != torch.float32 or x.is_cuda:
            return F.group_norm(x, self.num_channels, eps=self.eps)
        num_images, channels, height, width = x.shape
        rows = math.gcd(height, _STRIP_ROWS)
        strips = x.permute(0, 2, 3, 1).reshape(-1, rows, width, channels).permute(0, 3, 1, 2)
        normed, means, scales = torch.native_group_norm(
            strips, None, None, len(strips), channels, rows * width, channels, self.eps
        )
        means, scales = (values.view(num_images, -1, 1, channels) for values in (means, scales))
        mean = means.mean(dim=1, keepdim=True)
        scale = (scales**-2 + (means - mean) ** 2).mean(dim=1, keepdim=True).rsqrt()  # eps is in scales already
        by_strip = normed.permute(0, 2, 3, 1).reshape(num_images, -1, rows * width, channels)
        whole = torch.addcmul((means - mean) * scale, by_strip, scale / scales, out=by_strip)
        return whole.view(num_images, height, width, channels).permute(0, 3, 1, 2)


def _arrange_norms(encoder: nn.Module) -> None:
    """Fold batch norms into the convolutions before them, and replace instance norms, in place."""
    for module in encoder.modules():
        if not isinstance(module, nn.Sequential) or len(module) < 2:
            continue
        convolution, norm = module[0], module[1]
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            module[0], module[1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
        elif isinstance(norm, nn.InstanceNorm2d):
            module[1] = _InstanceNorm(norm)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
