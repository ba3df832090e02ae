"""Local correlation, the cost volume of PWC-Net: how alike each feature is to the features around its place.

A product per displacement, 81 of them, reads both maps 81 times. Here a row is cut into tiles of eight features, and
one matrix product compares a tile with all it can meet in a row of the other map, sixteen features; of those products
only a band of nine per feature is kept::

    tile 0..7 of ``first`` x features -4..11 of ``second``      0  * * * * * * * * * . . . . . . .
                                                                1  . * * * * * * * * * . . . . . .
                                                                7  . . . . . . . * * * * * * * * *

It multiplies 16/9 as often, and holds ``second`` twice and the volume three times. For 32 channels at 128x224, the
finest level of PWC-Net on 480x854 frames, one thread takes 19 ms forward and 56 ms backward, where a product per
displacement takes 49 and 166 ms; all other work on such a pair of frames takes 2 s.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

RADIUS = 4  # search range in features of PWC-Net (paper, section 4), ARFlow and AMD: 9 x 9 = 81 channels
TILE = 8  # of 8, 16 and 32 the fastest, forward and backward


def local_correlation(
    first: Float[Tensor, "b c h w"], second: Float[Tensor, "b c h w"], radius: int = RADIUS
) -> Float[Tensor, "b d h w"]:
    """Return the mean over channels of first(y, x) * second(y + dy, x + dx) for |dy|, |dx| <= radius; 0 outside.

    Channel (dy + radius) * (2 * radius + 1) + dx + radius holds the displacement (dy, dx), as in the released code of
    PWC-Net and ARFlow. Differentiable.
    """
    channels, height, width = first.shape[1:]
    beyond = -width % TILE  # features that fill the last tile
    tiles = F.pad(first, (0, beyond)).unflatten(3, (-1, TILE)).permute(0, 2, 3, 4, 1)  # (b, h, t, tile, c)
    padded = F.pad(second, (radius, radius + beyond, radius, radius))
    windows = padded.unfold(3, TILE + 2 * radius, TILE).permute(0, 2, 3, 1, 4)  # (b, h + 2r, t, c, tile + 2r)
    tiles, windows = tiles.contiguous(), windows.contiguous()  # once, and not again for each row
    rows = [_band(tiles @ windows[:, row : row + height], radius) for row in range(2 * radius + 1)]
    volume = torch.stack(rows, dim=1).permute(0, 1, 5, 2, 3, 4)  # (b, dy, dx, h, t, tile)
    return volume.flatten(4).flatten(1, 2)[..., :width] / channels


def _band(products: Float[Tensor, "b h t tile window"], radius: int) -> Float[Tensor, "b h t tile d"]:
    """Keep the entries i to i + 2 * radius of row i.

    Reading the rows one after another and breaking them one entry later shifts row i left by i.
    """
    tile, window = products.shape[-2:]
    shifted = F.pad(products.flatten(-2), (0, tile)).unflatten(-1, (tile, window + 1))
    return shifted[..., : 2 * radius + 1]
