"""Which segments of a clip are the object: decided once per clip, without a label.

Segments are numbered consistently over a clip, since one network made them, so the choice is made from sums over all
frames. ``ClipEvidence`` gathers those sums, one frame batch at a time and in constant memory; the rules are pure
functions of them. Choices made with annotations exist for comparison only, in ``tasks/evaluate_sequence.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from model.errors import InputError

ForegroundRule = Literal["motion", "border"]

BORDER_PX = 2  # strip on each side of the image (GWM's image protocol, released notebook)
BORDER_PENALTY = 0.5
CONTRAST_REWARD = 0.5


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Which segments make up the foreground, and how that was decided.

    segments: indices of the foreground's segments, ascending.
    rule: name of the rule.
    score: what the rule maximised; comparable within one clip only.
    """

    segments: tuple[int, ...]
    rule: str
    score: float


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


def group_mask(probabilities: Float[Tensor, "*t k h w"], segments: tuple[int, ...]) -> Float[Tensor, "*t h w"]:
    """Return the probability of belonging to any of ``segments``."""
    return probabilities[..., list(segments), :, :].sum(-3)


def grouping_masks(probabilities: Float[Tensor, "t k h w"]) -> Bool[Tensor, "t g h w"]:
    """Return the hard mask of every grouping: more likely inside than outside."""
    table = membership(probabilities.shape[1], device=probabilities.device)
    return torch.einsum("gk,tkhw->tghw", table, probabilities) > 0.5


class ClipEvidence:
    """Sums over the frames of a clip, per grouping, from which every rule decides. Constant memory."""

    def __init__(self, num_segments: int) -> None:
        count = len(all_groupings(num_segments))
        self.num_segments = num_segments
        self.num_frames = 0
        self.num_pixels = 0.0
        self.num_border_pixels = 0.0
        self.salient = 0.0
        self.area = torch.zeros(count, dtype=torch.float64)
        self.border = torch.zeros(count, dtype=torch.float64)
        self.overlap = torch.zeros(count, dtype=torch.float64)

    def update(self, probabilities: Float[Tensor, "t k h w"], saliency: Float[Tensor, "t h w"] | None) -> None:
        """Add frames; ``saliency`` is None where no flow is at hand, as for a still image."""
        if probabilities.shape[1] != self.num_segments:
            raise InputError(
                f"got {probabilities.shape[1]} segments, expected {self.num_segments} as in earlier frames"
            )
        masks = grouping_masks(probabilities).double()
        strip = border_strip(*masks.shape[-2:], device=masks.device)
        self.num_frames += len(masks)
        self.num_pixels += masks[:, 0].numel()
        self.num_border_pixels += float(strip.sum()) * len(masks)
        self.area += masks.sum((0, 2, 3)).cpu()
        self.border += (masks * strip).sum((0, 2, 3)).cpu()
        if saliency is not None:
            self.salient += float(saliency.double().sum())
            self.overlap += torch.einsum("tghw,thw->g", masks, saliency.double()).cpu()

    @property
    def has_motion(self) -> bool:
        """Whether any frame came with saliency."""
        return self.salient > 0


def border_strip(height: int, width: int, *, device: torch.device | None = None) -> Bool[Tensor, "h w"]:
    """Return a mask of the strip along the image's border."""
    strip = torch.ones(height, width, dtype=torch.bool, device=device)
    strip[BORDER_PX : height - BORDER_PX, BORDER_PX : width - BORDER_PX] = False
    return strip


def choose_grouping(evidence: ClipEvidence, rule: ForegroundRule = "motion") -> Grouping:
    """Choose the foreground of a clip without labels; ``motion`` falls back to ``border`` where nothing moves."""
    if rule not in _RULES:
        raise InputError(f"rule={rule!r}: expected one of {', '.join(get_args(ForegroundRule))}")
    if evidence.num_frames == 0:
        raise InputError("no frames in the clip: update the evidence at least once before choosing")
    if rule == "motion" and not evidence.has_motion:
        rule = "border"
    scores = _RULES[rule](evidence)
    scores = scores.where(evidence.area > 0, -torch.inf)  # a segment that owns no pixel explains nothing
    best = int(scores.argmax())
    return Grouping(segments=all_groupings(evidence.num_segments)[best], rule=rule, score=float(scores[best]))


def motion_scores(evidence: ClipEvidence) -> Float[Tensor, " g"]:
    """Score groupings by how well they cover what moves on its own, and nothing else.

    Soft IoU of mask and saliency, minus half the share of the image's border that the mask owns, plus half the
    difference of mean saliency inside and outside.
    """
    area = evidence.area.clamp_min(1)
    outside = (evidence.num_pixels - evidence.area).clamp_min(1)
    soft_iou = evidence.overlap / (evidence.area + evidence.salient - evidence.overlap).clamp_min(1)
    contrast = evidence.overlap / area - (evidence.salient - evidence.overlap) / outside
    return soft_iou - BORDER_PENALTY * border_share(evidence) + CONTRAST_REWARD * contrast


def border_scores(evidence: ClipEvidence) -> Float[Tensor, " g"]:
    """Score groupings by how little of the border they own: GWM's rule for still images, over all groupings.

    The background is what touches the border. Among groupings, each gains the area it covers and loses border.
    """
    return evidence.area / evidence.num_pixels - 2 * border_share(evidence)


def border_share(evidence: ClipEvidence) -> Float[Tensor, " g"]:
    """Return which share of the border strip each grouping owns, over all frames."""
    return evidence.border / evidence.num_border_pixels


_RULES: dict[str, Callable[[ClipEvidence], Tensor]] = {"motion": motion_scores, "border": border_scores}
