"""What crosses the border of ``model/``: tensors with their shapes, units and ranges checked on construction.

Letters used in every shape of this package: b batch, t frames of a clip, k segments, c channels, h and w rows and
columns of the network's resolution, H and W rows and columns of the optical flow or of the footage.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float, UInt8
from torch import Tensor

from model.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class FramePair:
    """A frame and the optical flow that leads from it to the frame ``gap`` later: one sample before preparation.

    image: RGB, 0..255.
    flow: displacement in pixels of the flow's own grid; channel 0 along columns, channel 1 along rows.
    gap: frames from the first to the second of the pair; negative looks back.
    """

    image: UInt8[Tensor, "3 H W"]
    flow: Float[Tensor, "2 Hf Wf"]
    gap: int

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[0] != 3:
            raise InputError(f"FramePair(image={tuple(self.image.shape)}): expected [3, H, W] RGB")
        if self.flow.ndim != 3 or self.flow.shape[0] != 2:
            raise InputError(f"FramePair(flow={tuple(self.flow.shape)}): expected [2, H, W] in pixels")
        if self.gap == 0:
            raise InputError("FramePair(gap=0): a frame has no motion to itself; use a gap such as 1 or -1")


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation:
    """Soft segments of a batch of images, and whatever the network can offer to tell the segments apart.

    probabilities: one distribution over segments per pixel; they sum to one over k.
    features: any feature map on the same images (decoder features, DINO keys); None when the network has none.
    """

    probabilities: Float[Tensor, "b k h w"]
    features: Float[Tensor, "b c hf wf"] | None = None

    def __post_init__(self) -> None:
        if self.probabilities.ndim != 4 or self.probabilities.shape[1] < 2:
            raise InputError(
                f"Segmentation(probabilities={tuple(self.probabilities.shape)}): expected [b, k >= 2, h, w]"
            )

    @property
    def num_segments(self) -> int:
        """K, the number of segments before merging."""
        return self.probabilities.shape[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class LossTerms:
    """A training loss and the parts it was summed from, for the curves.

    total: what ``backward`` is called on, averaged over the batch.
    parts: detached scalars by name.
    """

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
