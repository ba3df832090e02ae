"""The MaskFormer of GWM: backbone, pixel decoder and query decoder around images of any size.

The default is GWM's main model: DINO ViT-B/8, frozen, whose keys feed a head of 15 901 440 parameters (K=4). The head
is that of ``Cheng et al., Per-Pixel Classification is Not All You Need, NeurIPS 2021`` with GWM's changes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from model.errors import InputError
from model.networks.pixel_decoder import NUM_GROUPS, MaskBranch, PixelDecoder
from model.networks.query_decoder import QueryDecoder

BackboneName = Literal["dino-vit-b8", "dino-vit-s8", "swin-tiny", "resnet50"]

_DIVISIBLE_BY: dict[BackboneName, int] = {"dino-vit-b8": 12, "dino-vit-s8": 6, "swin-tiny": 3, "resnet50": 64}
"""Heads of the first stage, or channels where there are no heads: what ``width_divisor`` must divide."""

CROP_LIMIT = 1.1
"""Logits up to this much larger than the image are cropped about their centre, others resized (released code)."""

BORDER_PX = 4
"""Logits of the clean mask branch lack at most this many rows and columns, since 8x8 patches 4 px apart have no centre
in the outermost 2 px of a side; there the outermost logit is repeated."""


@dataclass(frozen=True, kw_only=True)
class MaskFormerConfig:
    """Backbone and sizes of the MaskFormer. Defaults are GWM's released configuration for DINO."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # else a nested typo is silently dropped

    backbone: BackboneName = "dino-vit-b8"
    """dino-vit-*: keys of blocks 6, 8, 10 and 12 at stride 4; swin-tiny, resnet50: four stages of stride 4 to 32."""
    train_backbone: bool = False
    """False keeps it as loaded, as the released code keeps DINO (the paper does not say so)."""
    backbone_weights: str | None = None
    """Name, path or URI of the weights that a training starts from; none: random, or those of the initial model."""
    backbone_sha256: str | None = None
    """SHA-256 of that file, 64 hex digits; needed for a URI."""
    freeze_batch_norm: bool = True
    """Keep a ResNet's batch norms as loaded even while it is trained (detectron2's default); false from scratch."""
    mask_branch: MaskBranch = "released"
    """How masks come to the image's resolution; see ``model/networks/pixel_decoder.py``."""
    width_divisor: int = 1
    """Divides the backbone's widths and heads; more than 1 makes tiny networks that no published weights fit."""
    channels: int = 256
    """Width of pixel and query decoder (released: 256 for pyramid, masks and queries alike)."""
    num_decoder_layers: int = 6
    num_heads: int = 8
    feedforward_channels: int = 2048
    dropout: float = 0.1
    """Of the query decoder, in training."""

    def __post_init__(self) -> None:
        for count in ("num_decoder_layers", "num_heads", "feedforward_channels", "width_divisor"):
            if getattr(self, count) < 1:
                raise InputError(f"{count}={getattr(self, count)}: expected 1 or more")
        if self.channels < NUM_GROUPS or self.channels % NUM_GROUPS or self.channels % self.num_heads:
            raise InputError(
                f"channels={self.channels}: expected a multiple of the {NUM_GROUPS} groups of the norms "
                f"and of num_heads={self.num_heads}"
            )
        if _DIVISIBLE_BY[self.backbone] % self.width_divisor:
            raise InputError(
                f"width_divisor={self.width_divisor}: expected a divisor of {_DIVISIBLE_BY[self.backbone]} "
                f"for {self.backbone}"
            )
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout={self.dropout}: expected a probability below 1")
        if self.backbone_sha256 is not None and self.backbone_weights is None:
            raise InputError("backbone_sha256 without backbone_weights: expected the weights that it is the hash of")


class Backbone(nn.Module, ABC):
    """What a MaskFormer needs of a backbone.

    channels: of the four levels, finest first. size_divisor: rows and columns must be multiples of it.
    """

    channels: tuple[int, ...]
    size_divisor: int

    @abstractmethod
    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return four feature maps of normalised images, finest first."""

    @abstractmethod
    def load_pretrained(self, state: Mapping[str, Tensor], source: str) -> None:
        """Load published weights under timm's names; raise WeightsError, which names ``source``, if they do not fit."""


class MaskFormer(nn.Module):
    """Images to logits of K masks; the parts are passed in, so that each can be tiny, random or frozen."""

    def __init__(self, *, backbone: Backbone, num_segments: int, config: MaskFormerConfig) -> None:
        super().__init__()
        self.train_backbone = config.train_backbone
        self.backbone = backbone
        if not config.train_backbone:
            self.backbone.requires_grad_(False)
        self.pixel_decoder = PixelDecoder(
            in_channels=backbone.channels, channels=config.channels, mask_branch=config.mask_branch
        )
        self.query_decoder = QueryDecoder(
            in_channels=backbone.channels[-1],
            num_segments=num_segments,
            channels=config.channels,
            num_layers=config.num_decoder_layers,
            num_heads=config.num_heads,
            feedforward_channels=config.feedforward_channels,
            dropout=config.dropout,
        )

    def train(self, mode: bool = True) -> MaskFormer:
        """Set the mode of all but a frozen backbone, which always stays in evaluation mode."""
        super().train(mode)
        self.backbone.train(mode and self.train_backbone)
        return self

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b k h w"], Float[Tensor, "b c hf wf"]]:
        """Return mask logits of normalised images, at their size, and the backbone's deepest map.

        Images whose size the backbone does not take are padded on the right and at the bottom with the mean colour.
        The padding is taken off the results; the released code crops about the centre instead, which shifts the masks.
        """
        size = (images.shape[-2], images.shape[-1])
        padded = pad_to_multiple(images, self.backbone.size_divisor)
        padded_size = (padded.shape[-2], padded.shape[-1])
        with nullcontext() if self.train_backbone else torch.no_grad():
            levels = self.backbone(padded)
        logits = self.query_decoder(levels[-1], self.pixel_decoder(levels))
        return (
            fit_to_image(logits, padded_size)[..., : size[0], : size[1]],
            cut_to_image(levels[-1], padded_size, size),
        )


def pad_to_multiple(images: Float[Tensor, "b 3 h w"], divisor: int) -> Float[Tensor, "b 3 H W"]:
    """Pad with zeros on the right and at the bottom until ``divisor`` divides both sides."""
    height, width = images.shape[-2:]
    rows, columns = -height % divisor, -width % divisor
    return F.pad(images, [0, columns, 0, rows]) if rows or columns else images


def fit_to_image(logits: Float[Tensor, "b k h w"], size: tuple[int, int]) -> Float[Tensor, "b k H W"]:
    """Bring logits to an image's size so that they stay above the pixels they were computed for.

    Slightly larger ones are cropped about their centre and all others resized, as the released code does; those that
    lack no more than a ViT's border have it repeated on both sides.
    """
    height, width = logits.shape[-2:]
    excess = (height - size[0], width - size[1])
    if all(e >= 0 and s + e < CROP_LIMIT * s for e, s in zip(excess, size, strict=True)):
        top, left = excess[0] // 2, excess[1] // 2
        return logits[..., top : top + size[0], left : left + size[1]]
    if all(-BORDER_PX <= e <= 0 for e in excess):
        top, left = -excess[0] // 2, -excess[1] // 2
        return F.pad(logits, [left, -excess[1] - left, top, -excess[0] - top], mode="replicate")
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def cut_to_image(
    features: Float[Tensor, "b c h w"], padded_size: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "b c h w"]:
    """Resample features of a padded image so that their grid covers the image alone."""
    if padded_size == size:
        return features
    rows, columns = size[0] / padded_size[0], size[1] / padded_size[1]
    theta = torch.tensor([[columns, 0, columns - 1], [0, rows, rows - 1]], device=features.device)
    grid = F.affine_grid(theta.expand(len(features), 2, 3), list(features.shape), align_corners=False)
    return F.grid_sample(features.float(), grid, padding_mode="border", align_corners=False)  # no kernel for bf16
