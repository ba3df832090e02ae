"""The query decoder of GWM's MaskFormer: K learned queries look at the image, and each becomes the kernel of one mask.

A DETR decoder (Carion et al., ECCV 2020) in its post-norm form, without an encoder, as MaskFormer configures it.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from model.networks.pixel_decoder import caffe2_xavier

POSITION_TEMPERATURE = 10_000  # DETR's sine encoding
_POSITION_EPSILON = 1e-6  # likewise, where coordinates are normalised


def sine_positions(
    height: int, width: int, channels: int, *, device: torch.device | None = None
) -> Float[Tensor, "1 c h w"]:
    """Return DETR's sine encoding of rows (first half of the channels) and columns (second half).

    Coordinates count from 1 and are scaled to (0, 2 pi]. Channels 2i and 2i + 1 of a half with N channels are sine and
    cosine of the coordinate over T ** (2i / N).
    """
    half = channels // 2
    divisor = POSITION_TEMPERATURE ** (2 * (torch.arange(half, device=device) // 2) / half)

    def encode(count: int) -> Float[Tensor, "n half"]:
        counted = torch.arange(1, count + 1, device=device, dtype=torch.float32)
        angles = (counted / (count + _POSITION_EPSILON) * 2 * math.pi)[:, None] / divisor
        return torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=2).flatten(1)

    rows = encode(height).T[:, :, None].expand(half, height, width)
    columns = encode(width).T[:, None, :].expand(half, height, width)
    return torch.cat([rows, columns])[None]


class QueryDecoderLayer(nn.Module):
    """Self-attention among the queries, cross-attention to the image, feed-forward; each is added and normalised."""

    def __init__(self, *, channels: int, num_heads: int, feedforward_channels: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(channels, num_heads, dropout=dropout, batch_first=True)
        self.cross_attention = nn.MultiheadAttention(channels, num_heads, dropout=dropout, batch_first=True)
        self.feedforward = nn.Sequential(
            nn.Linear(channels, feedforward_channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(feedforward_channels, channels),
        )
        self.self_norm = nn.LayerNorm(channels)
        self.cross_norm = nn.LayerNorm(channels)
        self.feedforward_norm = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        content: Float[Tensor, "b k c"],
        queries: Float[Tensor, "b k c"],
        memory: Float[Tensor, "b n c"],
        positions: Float[Tensor, "1 n c"],
    ) -> Float[Tensor, "b k c"]:
        """Return the updated content; queries and positions are added where attention compares, not to its values."""
        placed = content + queries
        attended, _ = self.self_attention(placed, placed, content, need_weights=False)
        content = self.self_norm(content + self.dropout(attended))
        attended, _ = self.cross_attention(content + queries, memory + positions, memory, need_weights=False)
        content = self.cross_norm(content + self.dropout(attended))
        return self.feedforward_norm(content + self.dropout(self.feedforward(content)))


class QueryDecoder(nn.Module):
    """Turns the deepest level of a backbone into K kernels and applies them to the mask features.

    in_channels: of the deepest level. channels: of queries and mask features; a multiple of 4 and of num_heads.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_segments: int,
        channels: int,
        num_layers: int,
        num_heads: int,
        feedforward_channels: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.input_projection = caffe2_xavier(nn.Conv2d(in_channels, channels, 1))
        self.queries = nn.Embedding(num_segments, channels)
        self.layers = nn.ModuleList(
            QueryDecoderLayer(
                channels=channels, num_heads=num_heads, feedforward_channels=feedforward_channels, dropout=dropout
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(channels)
        for parameter in self.layers.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)  # DETR; torch's default elsewhere
        self.mask_embedding = nn.Sequential(
            *(nn.Linear(channels, channels), nn.ReLU()),
            *(nn.Linear(channels, channels), nn.ReLU()),
            nn.Linear(channels, channels),
        )

    def forward(
        self, deepest: Float[Tensor, "b i hd wd"], mask_features: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b k h w"]:
        """Return mask logits at the resolution of the mask features."""
        return torch.einsum("bkc,bchw->bkhw", self._kernels(deepest), mask_features)

    def _kernels(self, deepest: Float[Tensor, "b i h w"]) -> Float[Tensor, "b k c"]:
        projected = self.input_projection(deepest)
        batch, channels, height, width = projected.shape
        positions = sine_positions(height, width, channels, device=deepest.device).flatten(2).mT  # (1, hw, c)
        memory = projected.flatten(2).mT  # (b, hw, c)
        queries = self.queries.weight.expand(batch, -1, -1)
        content = torch.zeros_like(queries)
        for layer in self.layers:
            content = layer(content, queries, memory, positions)
        return self.mask_embedding(self.norm(content))
