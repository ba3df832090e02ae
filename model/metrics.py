"""Region similarity J and boundary accuracy F of masks, and the ways in which papers average them.

Equal to the public davis2017-evaluation tool (commit ac7c43f), written from its definitions. For ease of
reading the published tables: GWM, IMAS and RCF print J under protocols that differ, see ``PROTOCOLS``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from model.errors import InputError

BOUNDARY_TOLERANCE = 0.008
"""Share of the image diagonal by which boundaries may differ (DAVIS tool, ``bound_th``): 8 px at 480x854."""

RECALL_THRESHOLD = 0.5
"""Recall is the share of frames above this score (Perazzi et al., CVPR 2016, section 4)."""


@dataclass(frozen=True, kw_only=True)
class SequenceStatistics:
    """Statistics of one score over the frames of a sequence, as the DAVIS tool defines them.

    mean: over all frames. recall: share of frames with a score above 0.5. decay: mean of the first quarter of
    the frames minus mean of the last; positive when quality falls.
    """

    mean: float
    recall: float
    decay: float


@dataclass(frozen=True, kw_only=True)
class AveragingProtocol:
    """How the scores of frames become one number for a dataset.

    dropped_at_start, dropped_at_end: frames of each sequence that do not count, annotated or not. by_sequence: mean
    of the means of sequences if true, else mean of all frames, so that long sequences weigh more. empty_score: J of
    a frame where neither mask has a pixel. description: one line for reports.
    """

    dropped_at_start: int
    dropped_at_end: int
    by_sequence: bool
    empty_score: float
    description: str


PROTOCOLS: dict[str, AveragingProtocol] = {
    # GWM's released evaluation: frames with a flow to the next one and with an index above 1.
    "gwm": AveragingProtocol(
        dropped_at_start=2,
        dropped_at_end=1,
        by_sequence=True,
        empty_score=0.0,
        description="mean over sequences without their first two and last frames (GWM)",
    ),
    # The same code on SegTrackv2 and FBMS59: "Frame Avg." over all frames with a flow to the next one. The rows of
    # GWM's Tables 11 and 12 average to its Table 1 in this way only (78.3 and 77.4).
    "gwm-frames": AveragingProtocol(
        dropped_at_start=0,
        dropped_at_end=1,
        by_sequence=False,
        empty_score=0.0,
        description="mean over all frames but the last of each sequence (GWM on SegTrackv2 and FBMS59)",
    ),
    # IMAS and RCF: their printed averages are those of rows weighted by frame counts; the code skips empty unions.
    "rcf": AveragingProtocol(
        dropped_at_start=0,
        dropped_at_end=0,
        by_sequence=False,
        empty_score=math.nan,
        description="mean over all frames of all sequences (IMAS, RCF)",
    ),
    # The tool's semi-supervised task, and DAVIS2016 as published.
    "davis": AveragingProtocol(
        dropped_at_start=1,
        dropped_at_end=1,
        by_sequence=True,
        empty_score=1.0,
        description="mean over sequences without their first and last frames (DAVIS tool)",
    ),
}
"""Averaging protocols by the name that reports print beside every score."""


def region_similarity(
    predicted: Bool[Tensor, "*n H W"], annotation: Bool[Tensor, "*n H W"], empty_score: float = 1.0
) -> Float[Tensor, "*n"]:
    """Return J of each frame in float64: intersection over union of the two masks.

    empty_score: J where both masks are empty; the DAVIS tool gives 1, GWM's code 0, RCF's leaves such frames out (NaN).
    Raises InputError when the shapes differ.
    """
    _check_shapes(predicted, annotation)
    frames = _pixel_rows(predicted), _pixel_rows(annotation)  # (n, H * W) each
    scores = [_intersection_over_union(p, a, empty_score) for p, a in zip(*frames, strict=True)]
    return torch.tensor(scores, dtype=torch.float64).reshape(predicted.shape[:-2])


def boundary_accuracy(
    predicted: Bool[Tensor, "*n H W"], annotation: Bool[Tensor, "*n H W"], bound: float = BOUNDARY_TOLERANCE
) -> Float[Tensor, "*n"]:
    """Return F of each frame in float64: harmonic mean of precision and recall of the boundary pixels.

    A boundary pixel counts as found when the other boundary passes within a disk of ceil(bound * diagonal) px
    around it. F is 1 where neither mask has a boundary and 0 where only one has.
    Raises InputError when the shapes differ or ``bound`` is not a share of the diagonal.
    """
    _check_shapes(predicted, annotation)
    if not 0 < bound < 1:
        raise InputError(f"bound={bound}: expected a share of the image diagonal in (0, 1), such as 0.008")
    height, width = predicted.shape[-2:]
    radius = math.ceil(bound * float(np.linalg.norm((height, width))))
    masks = (mask.reshape(-1, height, width).cpu().numpy() for mask in (predicted, annotation))
    scores = [_boundary_f(p, a, radius) for p, a in zip(*masks, strict=True)]
    return torch.tensor(scores, dtype=torch.float64).reshape(predicted.shape[:-2])


def statistics(values: Sequence[float]) -> SequenceStatistics:
    """Return mean, recall and decay of the scores of one sequence; raise InputError when there are none.

    Quarters share their border frames, as in the tool. It holds frame numbers in eight bits and so garbles
    decay from 257 frames on (DAVIS has at most 104); ours goes on in the same manner.
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or len(scores) == 0:
        raise InputError(f"got scores of shape {scores.shape}: expected one per frame and at least one frame")
    borders = np.round(np.linspace(1, len(scores), 5) + 1e-10).astype(int) - 1
    first_quarter = scores[borders[0] : borders[1] + 1]
    last_quarter = scores[borders[3] : borders[4] + 1]
    return SequenceStatistics(
        mean=float(scores.mean()),
        recall=float((scores > RECALL_THRESHOLD).mean()),
        decay=float(first_quarter.mean() - last_quarter.mean()),
    )


@dataclass(frozen=True, kw_only=True)
class ScoredFrames:
    """Which frames of a sequence have a score.

    numbers: ascending, from 0. num_frames: frames of the sequence, with those that have no annotation.
    """

    numbers: Sequence[int]
    num_frames: int


def counted_scores(scores: Sequence[float], protocol: str, frames: ScoredFrames | None = None) -> list[float]:
    """Return the scores of one sequence that a protocol counts; none where it leaves no frame.

    frames: which frames the scores belong to; None: every frame has one. Raises InputError for an unknown protocol.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"no averaging protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    rule = PROTOCOLS[protocol]
    frames = frames or ScoredFrames(numbers=range(len(scores)), num_frames=len(scores))
    counted = range(rule.dropped_at_start, frames.num_frames - rule.dropped_at_end)
    kept = [score for number, score in zip(frames.numbers, scores, strict=True) if number in counted]
    return [score for score in kept if not math.isnan(score)] if math.isnan(rule.empty_score) else kept


def average(
    per_sequence: Mapping[str, Sequence[float]], protocol: str, frames: Mapping[str, ScoredFrames] | None = None
) -> float:
    """Return one number for a dataset from the scores of the annotated frames of each sequence.

    protocol: a key of ``PROTOCOLS``. J must have been scored with the protocol's ``empty_score``. frames: which
    frames the scores belong to; None: every frame has one.
    Raises InputError for an unknown protocol, no sequences, a score that is not a number, or where the protocol
    leaves no frame: of a sequence if it averages by sequence, else of all of them.
    """
    if not per_sequence:
        raise InputError("no sequences to average: expected the scores of at least one")
    kept = {
        name: counted_scores(scores, protocol, frames[name] if frames else None)
        for name, scores in per_sequence.items()
    }
    rule = PROTOCOLS[protocol]
    groups = kept if rule.by_sequence else {", ".join(kept): [score for scores in kept.values() for score in scores]}
    for name, scores in groups.items():
        if not scores or np.isnan(scores).any():
            raise InputError(
                f"{name!r} has {len(scores)} scores that count, {np.isnan(scores).sum()} of them NaN: the "
                f"{rule.description} needs at least {rule.dropped_at_start + rule.dropped_at_end + 1} frames, each "
                "with a number; leave the sequence out"
            )
    return float(np.mean([np.mean(scores) for scores in groups.values()]))


def _check_shapes(predicted: Tensor, annotation: Tensor) -> None:
    if predicted.shape != annotation.shape:
        raise InputError(
            f"got predicted masks of {tuple(predicted.shape)} and annotations of {tuple(annotation.shape)}: "
            "expected equal shapes; resize the prediction to the annotation"
        )


def _pixel_rows(masks: Bool[Tensor, "*n H W"]) -> Bool[np.ndarray, "m HW"]:
    return masks.reshape(-1, masks.shape[-2] * masks.shape[-1]).cpu().numpy()


def _intersection_over_union(
    predicted: Bool[np.ndarray, " HW"], annotation: Bool[np.ndarray, " HW"], empty_score: float
) -> float:
    union = np.count_nonzero(predicted | annotation)
    return np.count_nonzero(predicted & annotation) / union if union else empty_score


def _boundary_f(predicted: Bool[np.ndarray, "H W"], annotation: Bool[np.ndarray, "H W"], radius: int) -> float:
    stride = predicted.shape[1] + radius
    found, true = (_pack(boundary_map(mask), stride) for mask in (predicted, annotation))
    if not found or not true:
        return 1.0 if found == true else 0.0
    precision = (found & _dilate(true, radius, stride)).bit_count() / found.bit_count()
    recall = (true & _dilate(found, radius, stride)).bit_count() / true.bit_count()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_map(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Mark pixels that differ from the neighbour to the right, below, or below to the right.

    The last row looks only right, the last column only below, and the corner is never marked (``seg2bmap``).
    """
    boundary = np.zeros_like(mask)
    inner, right, below = mask[:-1, :-1], mask[:-1, 1:], mask[1:, :-1]
    boundary[:-1, :-1] = (inner ^ right) | (inner ^ below) | (inner ^ mask[1:, 1:])
    boundary[-1, :-1] = mask[-1, :-1] ^ mask[-1, 1:]
    boundary[:-1, -1] = mask[:-1, -1] ^ mask[1:, -1]
    return boundary


# Boundaries are dilated as one long integer per image, a bit per pixel: shifting all pixels is then one operation on
# 51 kB, and a frame of 480x854 takes 1.2 ms in all. Rows stand ``stride`` bits apart, ``radius`` more than they are
# wide, so that what is shifted out of a row falls into the gap to the next.


def _pack(image: Bool[np.ndarray, "H W"], stride: int) -> int:
    rows = np.zeros((image.shape[0], stride), dtype=bool)
    rows[:, : image.shape[1]] = image
    return int.from_bytes(np.packbits(rows, bitorder="little").tobytes(), "little")


def _dilate(bits: int, radius: int, stride: int) -> int:
    """Dilate by the disk of x^2 + y^2 <= radius^2, one horizontal stroke for each of its rows."""
    stroke, half_width, dilated = bits, 0, 0
    for rows_away in range(radius, -1, -1):
        while (half_width + 1) ** 2 + rows_away**2 <= radius**2:
            half_width += 1
            stroke |= bits << half_width | bits >> half_width
        dilated |= stroke << rows_away * stride | stroke >> rows_away * stride
    return dilated
