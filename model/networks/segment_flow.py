"""AMD's motion network: one displacement per segment instead of one per pixel (Liu et al., NeurIPS 2021).

It is PWC-lite with another end. At each level the motion features are averaged over each segment, and a small head
turns each average into the segment's change of motion::

    V   = matcher(phi_t, phi_s, F)                       96 channels
    F_m = 2 * F_m + g(sum_p S_m V / sum_p S_m)           one vector per segment m
    F   = sum_m S_m F_m

What goes on to the next level, to warp and to be read by the estimator, is F enlarged, not F_m.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from model.networks.pwc_blocks import convolution, enlarge_flow, start_flow
from model.networks.pwc_lite import MOTION_CHANNELS, OUTPUT_STRIDE, PwcLiteMatcher

HEAD_CHANNELS = 64  # released code
MIN_MASS = 1e-12
"""Least sum of a mask. The released code has none, and an empty segment makes all flows NaN."""


class SegmentFlow(nn.Module):
    """Flow between two images that is constant in each segment, up to soft borders."""

    def __init__(self) -> None:
        super().__init__()
        self.matcher = PwcLiteMatcher()
        self.head = nn.Sequential(convolution(MOTION_CHANNELS, HEAD_CHANNELS, size=1), nn.Conv2d(HEAD_CHANNELS, 2, 1))

    def forward(
        self,
        first_images: Float[Tensor, "b 3 h w"],
        second_images: Float[Tensor, "b 3 h w"],
        first_masks: Float[Tensor, "b k hm wm"],
        second_masks: Float[Tensor, "b k hm wm"],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return flows from first to second and from second to first, each at five resolutions, finest first.

        images: RGB in 0..1, sides multiples of 64. masks: soft segments of any size that sum to one over k. Flows
        (b, 2, h, w), (b, 2, h/2, w/2), ... are in pixels of their own grids, enlarged four times from the levels.
        A flow uses the masks of the image it leads to, as equations 4 to 7 of the paper say.
        """
        first, second = self.matcher.pyramid(first_images), self.matcher.pyramid(second_images)
        return self.flows(first, second, second_masks), self.flows(second, first, first_masks)

    def flows(
        self, target: Sequence[Tensor], source: Sequence[Tensor], masks: Float[Tensor, "b k hm wm"]
    ) -> list[Tensor]:
        """Return flows from ``target`` to ``source`` pyramid by segments of the source, finest first."""
        flow = start_flow(target[0])
        motions = flow.new_zeros(*masks.shape[:2], 2)
        flows: list[Tensor] = []
        for level, (here, there) in enumerate(zip(target, source, strict=True)):
            if level:
                flow = enlarge_flow(flow, 2)
            segments = F.interpolate(masks, here.shape[-2:], mode="bilinear", align_corners=True)
            motions = 2 * motions + self._motion_changes(self.matcher(level, here, there, flow), segments)
            flow = torch.einsum("bkhw,bkc->bchw", segments, motions)
            flows.insert(0, enlarge_flow(flow, OUTPUT_STRIDE))
        return flows

    def _motion_changes(
        self, motion: Float[Tensor, "b c h w"], segments: Float[Tensor, "b k h w"]
    ) -> Float[Tensor, "b k 2"]:
        mass = segments.sum((2, 3)).clamp_min(MIN_MASS)
        averages = torch.einsum("bchw,bkhw->bck", motion, segments) / mass[:, None]
        return self.head(averages[..., None])[..., 0].mT  # (b, 2, k, 1) -> (b, k, 2)
