"""What is gathered about a clip's segments, one frame batch at a time and in constant memory, to choose among them.

Every quantity is a sum over the frames, per grouping of the segments. Nothing here decides; ``model/foreground.py``
does, from these sums alone.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor
from torch.nn import functional as F

from model.errors import InputError

BORDER_PX = 2  # strip on each side of the image (GWM's image protocol, released notebook)
CENTRE_SIGMA = 0.25  # of the image's sides: one quarter of the way from the centre, where pictures have their subject
COLOUR_LEVELS = 8  # per channel: 512 colours tell surfaces apart and bear changes of light


@lru_cache(maxsize=8)
def all_groupings(num_segments: int) -> tuple[tuple[int, ...], ...]:
    """Return every proper non-empty set of segments: 2^K - 2 of them."""
    if not 2 <= num_segments <= 8:
        raise InputError(f"num_segments={num_segments}: expected 2 to 8; all 2^K - 2 groupings are tried")
    return tuple(c for size in range(1, num_segments) for c in combinations(range(num_segments), size))


def membership(num_segments: int, *, device: torch.device | None = None) -> Float[Tensor, "g k"]:
    """Return the groupings as rows of zeros and ones, in the order of ``all_groupings``."""
    table = torch.zeros(len(all_groupings(num_segments)), num_segments, device=device)
    for row, segments in zip(table, all_groupings(num_segments), strict=True):
        row[list(segments)] = 1
    return table


def grouping_masks(probabilities: Float[Tensor, "t k h w"]) -> Bool[Tensor, "t g h w"]:
    """Return the hard mask of every grouping: more likely inside than outside."""
    table = membership(probabilities.shape[1], device=probabilities.device)
    return torch.einsum("gk,tkhw->tghw", table, probabilities) > 0.5


def border_strip(height: int, width: int, *, device: torch.device | None = None) -> Bool[Tensor, "h w"]:
    """Return a mask of the strip along the image's border."""
    strip = torch.ones(height, width, dtype=torch.bool, device=device)
    strip[BORDER_PX : height - BORDER_PX, BORDER_PX : width - BORDER_PX] = False
    return strip


def centre_weights(height: int, width: int, *, device: torch.device | None = None) -> Float[Tensor, "h w"]:
    """Return a Gaussian around the image's centre, 1 there, as wide as ``CENTRE_SIGMA`` of each side."""
    rows, columns = (
        torch.exp(-(((torch.arange(size, device=device) + 0.5) / size - 0.5) ** 2) / (2 * CENTRE_SIGMA**2))
        for size in (height, width)
    )
    return rows[:, None] * columns


class ClipEvidence:
    """Sums over the frames of a clip, per grouping [g] unless said otherwise.

    area, border, centre: pixels, those in the border strip, and weighted towards the centre.
    overlap: motion saliency inside; ``salient`` is its sum over the whole clip.
    colours: [k, c] histogram of the colours under each segment; empty as long as no images came.
    """

    def __init__(self, num_segments: int) -> None:
        count = len(all_groupings(num_segments))
        self.num_segments = num_segments
        self.num_frames = 0
        self.num_pixels = 0.0
        self.num_border_pixels = 0.0
        self.centre_weight = 0.0
        self.salient = 0.0
        self.area, self.border, self.centre, self.overlap = torch.zeros(4, count, dtype=torch.float64).unbind()
        self.colours = torch.zeros(num_segments, COLOUR_LEVELS**3, dtype=torch.float64)

    def update(
        self,
        probabilities: Float[Tensor, "t k h w"],
        saliency: Float[Tensor, "t h w"] | None,
        images: Num[Tensor, "t 3 H W"] | None = None,
    ) -> None:
        """Add frames.

        saliency: None where no flow is at hand, as for a still image. images: RGB in 0..255, of any size.
        """
        if probabilities.shape[1] != self.num_segments:
            raise InputError(
                f"got {probabilities.shape[1]} segments, expected {self.num_segments} as in earlier frames"
            )
        masks = grouping_masks(probabilities).double()
        strip = border_strip(*masks.shape[-2:], device=masks.device)
        centre = centre_weights(*masks.shape[-2:], device=masks.device).double()
        self.num_frames += len(masks)
        self.num_pixels += masks[:, 0].numel()
        self.num_border_pixels += float(strip.sum()) * len(masks)
        self.centre_weight += float(centre.sum()) * len(masks)
        self.area = self.area + masks.sum((0, 2, 3)).cpu()
        self.border = self.border + (masks * strip).sum((0, 2, 3)).cpu()
        self.centre = self.centre + (masks * centre).sum((0, 2, 3)).cpu()
        if saliency is not None:
            self.salient += float(saliency.double().sum())
            self.overlap = self.overlap + torch.einsum("tghw,thw->g", masks, saliency.double()).cpu()
        if images is not None:
            self.colours += _colour_histogram(probabilities, images).cpu()

    @property
    def has_motion(self) -> bool:
        """Whether any frame came with saliency."""
        return self.salient > 0

    @property
    def has_colours(self) -> bool:
        """Whether any frame came with its image."""
        return bool(self.colours.any())


def _colour_histogram(probabilities: Float[Tensor, "t k h w"], images: Num[Tensor, "t 3 H W"]) -> Float[Tensor, "k c"]:
    size = (probabilities.shape[-2], probabilities.shape[-1])
    small = F.interpolate(images.float(), size, mode="area")
    levels = (small * (COLOUR_LEVELS / 256)).long().clamp(0, COLOUR_LEVELS - 1)
    bins = (levels[:, 0] * COLOUR_LEVELS + levels[:, 1]) * COLOUR_LEVELS + levels[:, 2]
    histogram = torch.zeros(probabilities.shape[1], COLOUR_LEVELS**3, dtype=torch.float64, device=bins.device)
    return histogram.index_add_(1, bins.flatten(), probabilities.double().transpose(0, 1).flatten(1))
