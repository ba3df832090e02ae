"""Keys of a DINO vision transformer as dense features, the way GWM's released code extracts them.

The transformer itself is timm's, whose parameter names are DINO's. Three things differ from classification: patches
overlap (stride 4 instead of 8), position embeddings are interpolated to the finer grid, and what comes out are the keys
of chosen blocks instead of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from model.errors import InputError, WeightsError
from model.weights import fit_state_dict

HEAD_CHANNELS = 64  # of every published DINO model: ViT-S has 384 channels and 6 heads, ViT-B 768 and 12
STRIDE = 4  # released extractor; patches are 8x8
_INTERPOLATION_OFFSET = 0.1  # DINO adds it to the grid's size against rounding; it shifts the embeddings slightly


class DinoKeys(nn.Module):
    """A DINO ViT that returns the attention keys of its blocks as feature maps."""

    def __init__(self, *, channels: int, num_blocks: int, num_heads: int, patch_size: int = 8, stride: int = STRIDE):
        super().__init__()
        self.stride = stride
        self.num_heads = num_heads
        self.vit = VisionTransformer(
            patch_size=patch_size, embed_dim=channels, depth=num_blocks, num_heads=num_heads, num_classes=0
        )

    @classmethod
    def from_state(
        cls, state: Mapping[str, Tensor], *, num_heads: int | None = None, source: str = "DINO weights"
    ) -> DinoKeys:
        """Build the network that a DINO checkpoint's tensors describe, and load them.

        num_heads: where it is not one per 64 channels. Raises WeightsError when the tensors are not a DINO ViT's.
        """
        if "patch_embed.proj.weight" not in state or "pos_embed" not in state:
            raise WeightsError(f"{source}: no patch_embed.proj.weight or pos_embed; expected a DINO ViT checkpoint")
        channels, _, patch_size, _ = state["patch_embed.proj.weight"].shape
        num_blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
        keys = cls(
            channels=channels,
            num_blocks=num_blocks,
            num_heads=num_heads or channels // HEAD_CHANNELS,
            patch_size=patch_size,
        )
        fit_state_dict(keys.vit, dict(state), source)
        return keys.eval()

    def forward(
        self, images: Float[Tensor, "b 3 h w"], blocks: Sequence[int] | None = None
    ) -> dict[int, Float[Tensor, "b c hk wk"]]:
        """Return the keys of ``blocks`` (counted from 1; the last one by default) of normalised images.

        Channel d * num_heads + head holds component d of a head's key, as in the released code: its checkpoints rely
        on that order. The map has 1 + (h - patch) // stride rows.
        """
        wanted = blocks or [len(self.vit.blocks)]
        if min(wanted) < 1 or max(wanted) > len(self.vit.blocks):
            raise InputError(f"blocks={list(wanted)}: expected numbers from 1 to {len(self.vit.blocks)}")
        tokens, grid = self._embed(images)
        keys = {}
        for number, block in enumerate(self.vit.blocks, start=1):
            if number in wanted:
                keys[number] = self._keys(block, tokens, grid)
            if number == max(wanted):
                break
            tokens = block(tokens)
        return keys

    def _embed(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b n c"], tuple[int, int]]:
        projection = self.vit.patch_embed.proj
        patches = F.conv2d(images, projection.weight, projection.bias, stride=self.stride)
        grid = (patches.shape[2], patches.shape[3])
        tokens = patches.flatten(2).mT + self._positions(grid)
        first = self.vit.cls_token + self.vit.pos_embed[:, :1]
        return torch.cat([first.expand(len(images), -1, -1), tokens], dim=1), grid

    def _positions(self, grid: tuple[int, int]) -> Float[Tensor, "1 n c"]:
        embedding = self.vit.pos_embed[:, 1:]
        side = math.isqrt(embedding.shape[1])
        square = embedding.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        scale = [(size + _INTERPOLATION_OFFSET) / side for size in grid]
        resized = F.interpolate(square, scale_factor=scale, mode="bicubic", align_corners=False)
        return resized.flatten(2).mT

    def _keys(self, block: Block, tokens: Float[Tensor, "b n c"], grid: tuple[int, int]) -> Float[Tensor, "b c hk wk"]:
        projected = block.attn.qkv(block.norm1(tokens))[:, 1:]  # without the class token
        keys = projected.unflatten(-1, (3, self.num_heads, -1))[:, :, 1]  # (b, n, heads, d)
        return keys.mT.flatten(2).mT.unflatten(2, grid)
