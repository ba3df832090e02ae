"""GWM, "Guess What Moves" (Choudhury et al., BMVC 2022): segmentation by anticipating motion.

A network looks at a single image and splits it into K segments such that the optical flow inside each is explained by
a simple parametric motion. Flow is only needed to train; no label is ever seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional as F

from model.errors import InputError, WeightsError
from model.losses.flow_reconstruction import (
    FoldedFlow,
    blended_loss,
    fold_flow,
    mixture_loss,
    unexplained_motion,
)
from model.losses.motion_models import MotionModelName
from model.networks.maskformer import MaskFormer, MaskFormerConfig
from model.networks.unet import UNet
from model.types import FramePair, LossTerms, Segmentation

IMAGENET_MEAN = (123.675, 116.28, 103.53)  # RGB, 0..255; GWM's released configuration
IMAGENET_STD = (58.395, 57.12, 57.375)
LEAST_SIDE = 16  # of an image, in rows and columns: the U-Net halves four times


@dataclass(frozen=True, kw_only=True)
class GwmConfig:
    """What GWM computes. Defaults are the paper's; a deviation states its reason where it is made."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # else a nested typo is silently dropped

    name: Literal["gwm"] = "gwm"
    network: Literal["unet", "maskformer"] = "unet"
    """unet: paper, Table 1, from scratch; maskformer: the paper's main model, sized by ``maskformer``."""
    num_segments: int = 4
    """K (paper, Table 2: 4 is best on DAVIS)."""
    base_channels: int = 64
    """Width of the U-Net at full resolution."""
    bilinear: bool = False
    """Bilinear instead of transposed upsampling in the U-Net."""
    maskformer: MaskFormerConfig = field(default_factory=MaskFormerConfig)
    """Backbone and head of the MaskFormer."""
    objective: Literal["mixture", "blended", "blended_then_mixture"] = "mixture"
    """mixture: the paper's Eq. 3; blended: what the authors' code trains; blended_then_mixture: ours, the first until
    ``mixture_share`` is left, since blended fits better but spreads an object over segments, and mixture gathers it."""
    mixture_share: float = 0.1
    """Last share of the steps that blended_then_mixture trains the mixture (see the experiment log)."""
    motion_model: MotionModelName = "quadratic"
    image_size: tuple[int, int] = (128, 224)
    """Rows and columns that the network sees (section 4.1)."""
    flow_size: tuple[int, int] = (480, 854)
    """Rows and columns at which flow is compared (released code)."""
    flow_resize: Literal["nearest", "area"] = "nearest"
    """How stored flow comes to flow_size: nearest as the released code; area averages, for small flow sizes."""
    flow_clip_px: float = 20.0
    """Flow components are clipped to this many pixels at flow_size (released code; the paper is silent)."""
    flow_scaling: Literal["none", "residual"] = "none"
    """none as published. residual divides the flow of each sample by the rms (floored) of what one global motion of
    the same model leaves unexplained, so that a slow clip counts as much as a fast one; see the experiment log."""
    flow_scaling_floor_px: float = 0.1
    """Least divisor of ``flow_scaling``, px at flow_size: below it, what is left is the estimator's noise."""
    loss_weight: float = 0.03
    """Multiplier of the loss (released code)."""

    def __post_init__(self) -> None:
        if self.num_segments < 2:
            raise InputError(f"num_segments={self.num_segments}: expected 2 or more, foreground and background")
        if self.base_channels < 1:
            raise InputError(f"base_channels={self.base_channels}: expected 1 or more")
        if min(self.image_size) < LEAST_SIDE:
            raise InputError(
                f"image_size={self.image_size}: the U-Net halves four times, so {LEAST_SIDE} rows and columns at least"
            )
        if self.network == "unet" and self.maskformer != MaskFormerConfig():
            raise InputError(
                f"maskformer={self.maskformer} has no effect on network='unet': expected network='maskformer' with it"
            )
        if min(self.flow_size) < 8:
            raise InputError(f"flow_size={self.flow_size}: expected at least 8 rows and columns")
        if not 0 < self.mixture_share < 1:
            raise InputError(f"mixture_share={self.mixture_share}: expected a share of the steps between 0 and 1")
        for limit in ("flow_clip_px", "flow_scaling_floor_px"):
            if getattr(self, limit) <= 0:
                raise InputError(f"{limit}={getattr(self, limit)}: expected a positive number of pixels")


class Gwm(nn.Module):
    """GWM around one segmentation network; implements ``model.methods.base.Method``."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: GwmConfig) -> None:
        super().__init__()
        self.config = config
        self.num_segments = config.num_segments
        self.network = _build_network(config)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def prepare(self, pair: FramePair) -> dict[str, Tensor]:
        """Resize image and flow; for the mixture objective also fold the flow onto the network's grid.

        Returns ``image`` uint8 [3, h, w] and either ``flow`` [2, Hf, Wf] or ``products`` [2, p, h, w] with ``energy``;
        with both objectives ``flow`` only, which is then folded in the step.
        The image is rounded to whole levels, at most half a level from the released code's.
        """
        config = self.config
        image = resize_image(pair.image[None].float(), config.image_size)[0].round().to(torch.uint8)
        flow = resize_flow(pair.flow, config.flow_size, config.flow_resize)
        flow = flow.nan_to_num(0.0).clamp(-config.flow_clip_px, config.flow_clip_px)
        if config.flow_scaling == "residual":
            flow = flow / unexplained_motion(flow[None], config.motion_model).clamp_min(config.flow_scaling_floor_px)
        if config.objective != "mixture":
            return {"image": image, "flow": flow}
        folded = fold_flow(flow[None], config.image_size, config.motion_model)
        return {"image": image, "products": folded.products[0], "energy": folded.energy[0]}

    def training_loss(self, batch: Mapping[str, Tensor], progress: float = 1.0) -> LossTerms:
        """Return the weighted flow reconstruction loss; ``parts`` holds it unweighted, in px^2."""
        logits, _ = self.network(self._normalise(batch["image"].float()))
        with torch.autocast(logits.device.type, enabled=False):  # bf16 moments cost 8 to 200 % of the gradient
            loss = self._flow_reconstruction(logits.float(), batch, progress)
            return LossTerms(
                total=(self.config.loss_weight * loss).float(),
                parts={"flow_reconstruction": loss.detach().float()},
            )

    def forward(self, batch: Mapping[str, Tensor], progress: float = 1.0) -> LossTerms:
        """Return ``training_loss``, so that a distributed wrapper sees the forward pass."""
        return self.training_loss(batch, progress)

    @torch.no_grad()
    def segment(self, images: Num[Tensor, "b 3 H W"]) -> Segmentation:
        """Split RGB images in 0..255 into K soft segments at ``image_size``.

        Features: what a U-Net's decoder ends with, or the deepest map of a MaskFormer's backbone.
        """
        return self.segment_at(images, self.config.image_size)

    @torch.no_grad()
    def segment_at(self, images: Num[Tensor, "b 3 H W"], size: tuple[int, int]) -> Segmentation:
        """Split images like ``segment``, at ``size`` (rows, columns) of 16 at least, such as the images' own."""
        if min(size) < LEAST_SIDE:
            raise InputError(f"size={size}: the network halves four times, so {LEAST_SIDE} rows and columns at least")
        logits, features = self.network(self._normalise(resize_image(images.float(), size)))
        return Segmentation(probabilities=logits.float().softmax(1), features=features.float())

    def load_backbone(self, state: Mapping[str, Tensor], source: str) -> None:
        """Load a MaskFormer's backbone from published weights under timm's names; what follows them is left alone.

        source: where they came from, for messages. Raises WeightsError when they do not fit.
        """
        if not isinstance(self.network, MaskFormer):
            raise WeightsError(f"{source}: a U-Net has no backbone to load; set method.network=maskformer")
        self.network.backbone.load_pretrained(state, source)

    def _flow_reconstruction(
        self, logits: Float[Tensor, "b k h w"], batch: Mapping[str, Tensor], progress: float
    ) -> Float[Tensor, ""]:
        config = self.config
        in_last_phase = progress >= 1 - config.mixture_share
        if config.objective == "blended" or (config.objective == "blended_then_mixture" and not in_last_phase):
            return blended_loss(logits, batch["flow"], config.motion_model)
        if "products" in batch:
            folded = FoldedFlow(products=batch["products"], energy=batch["energy"], flow_size=config.flow_size)
        else:
            folded = fold_flow(batch["flow"], config.image_size, config.motion_model)
        return mixture_loss(logits.softmax(1), folded, config.motion_model)

    def _normalise(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return (images - self.mean) / self.std


def _build_network(config: GwmConfig) -> nn.Module:
    if config.network == "unet":
        return UNet(num_segments=config.num_segments, base_channels=config.base_channels, bilinear=config.bilinear)
    from model.networks.backbones import build_backbone  # timm takes seconds to import, and a U-Net does without

    return MaskFormer(
        backbone=build_backbone(config.maskformer), num_segments=config.num_segments, config=config.maskformer
    )


def resize_image(images: Float[Tensor, "b 3 H W"], size: tuple[int, int]) -> Float[Tensor, "b 3 h w"]:
    """Resize as the released code does: bicubic, align_corners False, **no antialiasing**, clipped to 0..255."""
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bicubic", align_corners=False).clamp(0, 255)


def resize_flow(
    flow: Float[Tensor, "2 H W"], size: tuple[int, int], mode: Literal["nearest", "area"]
) -> Float[Tensor, "2 h w"]:
    """Resize flow and scale its vectors with the grid: twice the columns, twice the horizontal displacement."""
    height, width = flow.shape[-2:]
    if (height, width) == size:
        return flow
    resized = F.interpolate(flow[None], size=size, mode=mode)[0]
    scale = flow.new_tensor([size[1] / width, size[0] / height])
    return resized * scale[:, None, None]
