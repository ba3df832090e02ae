"""Which segments of a clip are the object: decided once per clip, without a label.

Segments are numbered consistently over a clip, since one network made them, so the choice is made from sums over all
frames (``model/clip_evidence.py``); the rules are pure functions of them. Choices made with annotations exist for
comparison only, in ``tasks/evaluate_sequence.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from model.clip_evidence import ClipEvidence, all_groupings, membership
from model.errors import InputError
from model.segment_roles import SegmentRoles

ForegroundRule = Literal["motion", "appearance", "border"]

BORDER_PENALTY = 0.5  # weights of the motion rule: a prototype's on 20 sequences, never tuned on our own models
CONTRAST_REWARD = 0.5
APPEARANCE_REWARD = 0.5  # frames of ten DAVIS sequences as stills; 0.5 to 1.5 differ by 1 J (log of results)

ROLES_IN_CLIPS = 0.05  # weight of what segments are for: where motion decides clearly it changes nothing
ROLES_IN_IMAGES = 0.125  # both: 13 models, each sequence by the roles found in the nine others (log of results)


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


def group_mask(probabilities: Float[Tensor, "*t k h w"], segments: tuple[int, ...]) -> Float[Tensor, "*t h w"]:
    """Return the probability of belonging to any of ``segments``."""
    return probabilities[..., list(segments), :, :].sum(-3)


def choose_grouping(
    evidence: ClipEvidence, rule: ForegroundRule = "motion", roles: SegmentRoles | None = None
) -> Grouping:
    """Choose the foreground of a clip without labels.

    roles: what the model's segments are for, where that is known; the border rule, which is GWM's own, ignores it.
    Where nothing moves ``motion`` falls back to ``appearance``, and that to ``border`` where no images came.
    """
    if rule not in _RULES:
        raise InputError(f"rule={rule!r}: expected one of {', '.join(get_args(ForegroundRule))}")
    if evidence.num_frames == 0:
        raise InputError("no frames in the clip: update the evidence at least once before choosing")
    if rule == "motion" and not evidence.has_motion:
        rule = "appearance"
    if rule == "appearance" and not evidence.has_colours:
        rule = "border"
    scores = _RULES[rule](evidence)
    if roles is not None and rule in _ROLE_WEIGHTS:
        scores = scores + _ROLE_WEIGHTS[rule] * _prior_of(roles, evidence)
    scores = scores.where(evidence.area > 0, -torch.inf)  # a segment that owns no pixel explains nothing
    best = int(scores.argmax())
    return Grouping(segments=all_groupings(evidence.num_segments)[best], rule=rule, score=float(scores[best]))


def _prior_of(roles: SegmentRoles, evidence: ClipEvidence) -> Float[Tensor, " g"]:
    if roles.num_segments != evidence.num_segments:
        raise InputError(
            f"roles of {roles.num_segments} segments for a clip of {evidence.num_segments}: expected those of the "
            "model that made the segments"
        )
    return roles.log_prior()


def motion_scores(evidence: ClipEvidence) -> Float[Tensor, " g"]:
    """Score groupings by how well they cover what moves on its own, and nothing else.

    Soft IoU of mask and saliency, minus half the share of the image's border that the mask owns, plus half the
    difference of mean saliency inside and outside.
    """
    soft_iou = evidence.overlap / (evidence.area + evidence.salient - evidence.overlap).clamp_min(1)
    contrast = _contrast(evidence, evidence.overlap, evidence.salient)
    return soft_iou - BORDER_PENALTY * border_share(evidence) + CONTRAST_REWARD * contrast


def appearance_scores(evidence: ClipEvidence) -> Float[Tensor, " g"]:
    """Score groupings of still images: what is photographed lies in the centre, off the border, in colours of its own.

    The border rule, plus half the contrast between inside and outside of what lies near the centre, plus half that of
    the colours.
    """
    centre = _contrast(evidence, evidence.centre, evidence.centre_weight)
    return border_scores(evidence) + APPEARANCE_REWARD * (centre + colour_contrast(evidence))


def border_scores(evidence: ClipEvidence) -> Float[Tensor, " g"]:
    """Score groupings by how little of the border they own: GWM's rule for still images, over all groupings.

    The background is what touches the border. Among groupings, each gains the area it covers and loses border.
    """
    return evidence.area / evidence.num_pixels - 2 * border_share(evidence)


def border_share(evidence: ClipEvidence) -> Float[Tensor, " g"]:
    """Return which share of the border strip each grouping owns, over all frames."""
    return evidence.border / evidence.num_border_pixels


def colour_contrast(evidence: ClipEvidence) -> Float[Tensor, " g"]:
    """Return how far the colours inside and outside differ: half the L1 distance of their histograms, 0..1."""
    inside = membership(evidence.num_segments).double() @ evidence.colours
    outside = evidence.colours.sum(0) - inside
    shares = (part / part.sum(1, keepdim=True).clamp_min(1) for part in (inside, outside))
    first, second = shares
    return (first - second).abs().sum(1) / 2


def _contrast(evidence: ClipEvidence, inside: Float[Tensor, " g"], total: float) -> Float[Tensor, " g"]:
    """Return the mean of a quantity inside each grouping minus its mean outside."""
    outside_area = (evidence.num_pixels - evidence.area).clamp_min(1)
    return inside / evidence.area.clamp_min(1) - (total - inside) / outside_area


_ROLE_WEIGHTS = {"motion": ROLES_IN_CLIPS, "appearance": ROLES_IN_IMAGES}

_RULES: dict[str, Callable[[ClipEvidence], Tensor]] = {
    "motion": motion_scores,
    "appearance": appearance_scores,
    "border": border_scores,
}
