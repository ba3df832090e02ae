"""Masks at the size of their frame, refined by it: the dense CRF as evaluation and ``segment`` use it.

Refining comes last: it changes neither which segments are the foreground nor what that is decided from. Every number
and every result that it had a part in says so, by the name of its settings (model/dense_crf.py). It takes about 0.3 s
a frame of 480x854 on a CPU and 300 bytes a pixel, both in proportion to the pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.dense_crf import DenseCrf, crf_preset
from model.foreground import group_mask
from tasks.pictures import Picture
from tasks.segment_clip import ClipSegments


class MaskRefiner:
    """A dense CRF by the name of its settings, on a device."""

    def __init__(self, name: str, *, device: str = "cpu") -> None:
        """Build it; raises InputError for a name that is none of the presets'."""
        self.name = name
        self._crf = DenseCrf(crf_preset(name))
        self._device = torch.device(device)

    def masks(self, picture: Picture, soft: Float[Tensor, "m H W"]) -> Bool[Tensor, "m H W"]:
        """Refine each soft mask of a frame by itself; returned on the CPU."""
        return (self.soft_masks(picture, soft) > 0.5).cpu()

    def soft_masks(self, picture: Picture, soft: Float[Tensor, "m H W"]) -> Float[Tensor, "m H W"]:
        """Return the refined probabilities of soft masks in 0..1, on this refiner's device."""
        # decoded pictures may be read-only views, which torch warns of
        image = torch.from_numpy(np.require(picture, requirements=["C", "W"])).permute(2, 0, 1).to(self._device)
        return torch.stack([self._crf.refine_mask(image, mask) for mask in soft.to(self._device)])


def build_refiner(name: str | None, *, device: str = "cpu") -> MaskRefiner | None:
    """Return the refiner of that name; None leaves masks as they are."""
    return None if name is None else MaskRefiner(name, device=device)


def foreground_mask(
    segments: ClipSegments, frame: int, picture: Picture, refiner: MaskRefiner | None
) -> NDArray[np.bool_]:
    """Return the clip's foreground in a frame at the picture's size, refined where there is a refiner."""
    size = (int(picture.shape[0]), int(picture.shape[1]))
    if refiner is None:
        return segments.mask(frame, size)
    soft = group_mask(segments.probabilities(frame), segments.grouping.segments)
    enlarged = F.interpolate(soft[None, None], size=size, mode="bilinear", align_corners=False)[0]
    mask: NDArray[np.bool_] = refiner.masks(picture, enlarged)[0].numpy()
    return mask
