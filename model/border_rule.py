"""The background of a still image without a label, as GWM's released image evaluation chooses it.

Of two soft masks the one that touches the image's border more is the background. It stands beside our own rule
(``model/foreground.py``) so that numbers can be compared with GWM's.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from model.clip_evidence import BORDER_PX

TOUCHING = 0.3  # mean above which a mask counts as touching a side all along (released notebook)


def border_contact(masks: Float[Tensor, "n H W"]) -> Float[Tensor, " n"]:
    """Return how much each soft mask touches the border, 0..4: the sum over sides of its mean on their strips.

    A side that a mask touches with more than 0.3 counts 1, so that corners and sides weigh more than strength.
    """
    sides = (masks[:, :, :BORDER_PX], masks[:, :, -BORDER_PX:], masks[:, :BORDER_PX], masks[:, -BORDER_PX:])
    contact = torch.stack([side.flatten(1).mean(1) for side in sides])  # (4, n)
    return torch.where(contact > TOUCHING, 1.0, contact).sum(0)


def foreground_of_two(masks: Float[Tensor, "2 H W"]) -> int:
    """Return which of two soft masks is the foreground: the one that touches the border less, the second in a tie."""
    first, second = border_contact(masks).tolist()
    return 0 if first < second else 1
