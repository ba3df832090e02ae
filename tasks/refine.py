"""Masks at the size of their frame, refined by it: the dense CRF as evaluation and ``segment`` use it.

Refining comes last: it changes neither which segments are the foreground nor what that is decided from. Every number
and every result that it had a part in says so, by the name of its settings (model/dense_crf.py). On a CPU it takes
0.3 s and 140 MB for a mask of 480x854, both in proportion to the pixels; masks are refined side by side in as many
threads as torch has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.dense_crf import DenseCrf, crf_preset
from model.foreground import group_mask
from tasks.decode import Frame
from tasks.pictures import Picture
from tasks.segment_clip import ClipSegments


class MaskRefiner:
    """A dense CRF by the name of its settings, on a device."""

    def __init__(self, name: str, *, device: str = "cpu") -> None:
        """Build it; raises InputError for a name that is none of the presets'."""
        self.name = name
        self.num_threads = torch.get_num_threads() if device == "cpu" else 1
        self._crf = DenseCrf(crf_preset(name))
        self._device = torch.device(device)

    def soft_mask(self, picture: Picture, soft: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
        """Refine a soft mask of a frame and return how likely each pixel is foreground then; on the CPU."""
        # decoded pictures may be read-only views, which torch warns of
        image = torch.from_numpy(np.require(picture, requirements=["C", "W"])).permute(2, 0, 1)
        return self._crf.refine_mask(image.to(self._device), soft.to(self._device)).cpu()

    def mask(self, picture: Picture, soft: Float[Tensor, "H W"]) -> Bool[Tensor, "H W"]:
        """Refine a soft mask of a frame; returned on the CPU."""
        return self.soft_mask(picture, soft) > 0.5

    def masks(self, picture: Picture, soft: Float[Tensor, "m H W"]) -> Bool[Tensor, "m H W"]:
        """Refine several soft masks of a frame, each by itself; returned on the CPU."""
        with ThreadPoolExecutor(self.num_threads) as pool:
            return torch.stack(list(pool.map(lambda mask: self.mask(picture, mask), soft)))


def build_refiner(name: str | None, *, device: str = "cpu") -> MaskRefiner | None:
    """Return the refiner of that name; None leaves masks as they are."""
    return None if name is None else MaskRefiner(name, device=device)


def foreground_mask(
    segments: ClipSegments, frame: int, picture: Picture, refiner: MaskRefiner | None
) -> NDArray[np.bool_]:
    """Return the clip's foreground in a frame at the picture's size, refined where there is a refiner."""
    if refiner is None:
        return segments.mask(frame, (int(picture.shape[0]), int(picture.shape[1])))
    return _as_array(refiner.mask(picture, _soft_mask(segments, frame, picture)))


def foreground_masks(
    segments: ClipSegments, frames: Iterable[Frame], refiner: MaskRefiner | None
) -> Iterator[tuple[Frame, NDArray[np.bool_]]]:
    """Yield frames with their foreground, in their order, holding one frame per thread."""
    if refiner is None:
        for frame in frames:
            yield frame, foreground_mask(segments, frame.index, frame.image, None)
        return
    ahead: deque[tuple[Frame, Future[Tensor]]] = deque()
    with ThreadPoolExecutor(refiner.num_threads) as pool:
        for frame in frames:
            soft = _soft_mask(segments, frame.index, frame.image)  # here: the spool is for one thread at a time
            ahead.append((frame, pool.submit(refiner.mask, frame.image, soft)))
            if len(ahead) == refiner.num_threads:
                finished, mask = ahead.popleft()
                yield finished, _as_array(mask.result())
        for finished, mask in ahead:
            yield finished, _as_array(mask.result())


def _soft_mask(segments: ClipSegments, frame: int, picture: Picture) -> Tensor:
    soft = group_mask(segments.probabilities(frame), segments.grouping.segments)
    size = (int(picture.shape[0]), int(picture.shape[1]))
    return F.interpolate(soft[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


def _as_array(mask: Tensor) -> NDArray[np.bool_]:
    array: NDArray[np.bool_] = mask.numpy()
    return array
