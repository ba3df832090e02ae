"""Scores and pictures of one annotated sequence: what a worker does.

::

    frames ------> segment_clip: soft segments of every frame, one label-free grouping for the clip
    annotations -> J of *every* grouping of the segments in every frame: a table [frames, groupings]
    table -------> which grouping each foreground choice takes in each frame (pure)
    frames ------> masks of the groupings that were taken, refined by a dense CRF where that is asked for
    annotations -> J and F of these masks
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.clip_evidence import all_groupings, grouping_masks
from model.foreground import group_mask
from model.merging import merge_segments
from model.metrics import boundary_accuracy, region_similarity
from model.types import Segmentation
from tasks.adapt import AdaptationRecord
from tasks.benchmarks import BenchmarkSequence
from tasks.errors import FootageError
from tasks.pictures import Picture, flow_picture, jpeg_bytes, mask_picture, overlay, resized, segments_picture
from tasks.refine import MaskRefiner, foreground_mask
from tasks.rule_scores import score_rules
from tasks.scores import (
    GROUND_TRUTH_PER_FRAME,
    LABEL_FREE,
    ORACLE_PER_CLIP,
    ORACLE_PER_FRAME,
    FrameScores,
    SequenceScores,
)
from tasks.segment_clip import ClipSegmenter, ClipSegments

PICTURE_HEIGHT = 168
_FLOW_FULL_PERCENTILE = 99  # fully saturated; a single wild vector would leave all others pale


@dataclass(frozen=True, kw_only=True)
class PictureRow:
    """Pictures of one frame, JPEG by title, with its label-free scores."""

    frame: int
    j: float
    f: float
    tiles: dict[str, bytes]


@dataclass(frozen=True, kw_only=True)
class SequenceResult:
    """What a worker hands back for one sequence; rows are worst frame first.

    adaptation: what was done to the model before; None where it was scored as it is.
    """

    scores: SequenceScores
    rows: tuple[PictureRow, ...]
    adaptation: AdaptationRecord | None = None


def evaluate_sequence(
    segmenter: ClipSegmenter,
    sequence: BenchmarkSequence,
    *,
    num_pictured: int = 4,
    refiner: MaskRefiner | None = None,
    on_frame: Callable[[int, int], None] | None = None,
) -> SequenceResult:
    """Score one sequence under every foreground choice, at the size of its annotations.

    refiner: refines the masks of all choices before they are scored; choices are made from masks as they are.
    on_frame: called with how many annotated frames are scored, and of how many.
    Raises FootageError when it has no annotations, or an annotation does not fit its frame.
    """
    merged: list[tuple[int, int]] = []

    def merge(_: int, segmentation: Segmentation) -> None:
        if segmentation.features is not None:
            merged.extend(_merged_groupings(segmentation.probabilities, segmentation.features))

    with segmenter.segment_clip(_fitting_frames(sequence), on_batch=merge) as segments:
        frames = [index for index, files in enumerate(sequence.annotations[: segments.num_frames]) if files is not None]
        if not frames:
            raise FootageError("annotation_mismatch", f"sequence {sequence.name} has no annotated frame to score")
        table = _similarity_table(sequence, segments)
        label_free = all_groupings(segments.spool.num_segments).index(segments.grouping.segments)
        candidates = np.array([merged[index] for index in frames]) if merged else None
        chosen = choose_groupings(table, label_free, candidates)
        scores = SequenceScores(
            name=sequence.name,
            num_frames=segments.num_frames,
            size=_annotation_size(sequence, frames[0]),
            frames=tuple(frames),
            foreground=segments.grouping.segments,
            rule=segments.grouping.rule,
            choices=_frame_scores(sequence, segments, chosen, refiner, on_frame),
            rules=score_rules(segments.evidence, table, segmenter.roles),
        )
        rows = _picture_rows(segmenter, sequence, segments, scores, num_pictured, refiner)
    return SequenceResult(scores=scores, rows=rows)


def choose_groupings(
    table: NDArray[np.float64], label_free: int, merged: NDArray[np.int64] | None
) -> dict[str, NDArray[np.int64]]:
    """Return which grouping each foreground choice takes in each frame.

    table: J [t, g] of each grouping in each frame; NaN is not allowed.
    label_free: the grouping that the clip's label-free rule chose.
    merged: the two groups [t, 2] that spectral merging made in each frame; None when there are no features.
    """
    num_frames = len(table)
    chosen = {LABEL_FREE: np.full(num_frames, label_free, dtype=np.int64)}
    if merged is not None:
        scores = np.take_along_axis(table, merged, axis=1)
        chosen[GROUND_TRUTH_PER_FRAME] = merged[np.arange(num_frames), scores.argmax(1)]
    chosen[ORACLE_PER_CLIP] = np.full(num_frames, int(table.mean(0).argmax()), dtype=np.int64)
    chosen[ORACLE_PER_FRAME] = table.argmax(1).astype(np.int64)
    return chosen


def worst_frames(scores: Sequence[float], count: int) -> list[int]:
    """Return positions of low scores, worst first, at least an eighth of the sequence apart; then the best one.

    Neighbouring frames fail alike: the distance makes the pictures tell different things.
    """
    distance = max(1, len(scores) // 8)
    picked: list[int] = []
    for position in np.argsort(scores, kind="stable").tolist():
        if len(picked) < count - 1 and all(abs(position - other) >= distance for other in picked):
            picked.append(position)
    best = int(np.argmax(scores))
    return picked if best in picked else [*picked, best]


def _merged_groupings(probabilities: Tensor, features: Tensor) -> list[tuple[int, int]]:
    """Return the two merged groups of each frame as indices into ``all_groupings``."""
    groupings = all_groupings(int(probabilities.shape[1]))
    pairs = []
    for labels in merge_segments(probabilities, features).tolist():
        members = tuple(index for index, label in enumerate(labels) if label)
        others = tuple(index for index, label in enumerate(labels) if not label)
        pairs.append((groupings.index(members), groupings.index(others)))
    return pairs


def _fitting_frames(sequence: BenchmarkSequence) -> Iterator[Picture]:
    """Yield the frames, making sure that the first annotation has their size."""
    fits = False
    for index, frame in enumerate(sequence.frames()):
        annotation = None if fits else sequence.annotation(index)
        fits = annotation is not None or fits
        if annotation is not None and annotation.shape != frame.shape[:2]:
            raise FootageError(
                "annotation_mismatch",
                f"sequence {sequence.name}: annotation of {annotation.shape} (rows, columns) for a frame of "
                f"{frame.shape[:2]}; expected equal sizes, such as both at 480p",
            )
        yield frame


def _annotated(sequence: BenchmarkSequence, num_frames: int) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    for index in range(num_frames):
        annotation = sequence.annotation(index)
        if annotation is not None:
            yield index, annotation


def _annotation_size(sequence: BenchmarkSequence, frame: int) -> tuple[int, int]:
    annotation = sequence.annotation(frame)
    assert annotation is not None  # callers pass annotated frames
    return int(annotation.shape[0]), int(annotation.shape[1])


def _enlarged(segments: ClipSegments, frame: int, size: tuple[int, ...]) -> Tensor:
    """Return the soft segments of one frame at the size of its annotation, [k, H, W]."""
    return F.interpolate(segments.probabilities(frame)[None], size=size, mode="bilinear", align_corners=False)[0]


def _similarity_table(sequence: BenchmarkSequence, segments: ClipSegments) -> NDArray[np.float64]:
    """Return J [t, g] of every grouping in every annotated frame."""
    rows = []
    for index, annotation in _annotated(sequence, segments.num_frames):
        masks = grouping_masks(_enlarged(segments, index, annotation.shape)[None])[0]
        rows.append(region_similarity(masks, torch.from_numpy(annotation).expand(masks.shape)).numpy())
    return np.stack(rows)


def _frame_scores(
    sequence: BenchmarkSequence,
    segments: ClipSegments,
    chosen: dict[str, NDArray[np.int64]],
    refiner: MaskRefiner | None,
    on_frame: Callable[[int, int], None] | None,
) -> dict[str, FrameScores]:
    """Score the masks of the groupings that were chosen, frame by frame."""
    names = all_groupings(segments.spool.num_segments)
    scored: dict[str, list[tuple[float, float, bool]]] = {name: [] for name in chosen}
    pictures: Iterable[Picture | None] = repeat(None) if refiner is None else sequence.frames()
    row = 0
    for index, picture in zip(range(segments.num_frames), pictures, strict=False):
        annotation = sequence.annotation(index)
        if annotation is None:
            continue
        wanted = sorted({int(groupings[row]) for groupings in chosen.values()})
        soft = _enlarged(segments, index, annotation.shape)
        if refiner is None or picture is None:
            masks = grouping_masks(soft[None])[0, wanted]
        else:
            masks = refiner.masks(picture, torch.stack([group_mask(soft, names[grouping]) for grouping in wanted]))
        scores = dict(zip(wanted, _mask_scores(masks, annotation), strict=True))
        for name, groupings in chosen.items():
            scored[name].append(scores[int(groupings[row])])
        row += 1
        if on_frame:
            on_frame(row, len(chosen[LABEL_FREE]))
    return {
        name: FrameScores(
            j=tuple(j for j, _, _ in scored[name]),
            f=tuple(f for _, f, _ in scored[name]),
            segments=tuple(names[grouping] for grouping in groupings),
            both_empty=tuple(empty for _, _, empty in scored[name]),
        )
        for name, groupings in chosen.items()
    }


def _mask_scores(masks: Tensor, annotation: NDArray[np.bool_]) -> list[tuple[float, float, bool]]:
    """Return J, F and whether both are empty of each mask [m, H, W] of one frame."""
    target = torch.from_numpy(annotation).expand(masks.shape)
    empty = ~masks.flatten(1).any(1) & (not annotation.any())
    j, f = region_similarity(masks, target), boundary_accuracy(masks, target)
    return list(zip(j.tolist(), f.tolist(), empty.tolist(), strict=True))


def _picture_rows(
    segmenter: ClipSegmenter,
    sequence: BenchmarkSequence,
    segments: ClipSegments,
    scores: SequenceScores,
    count: int,
    refiner: MaskRefiner | None,
) -> tuple[PictureRow, ...]:
    """Draw the worst frames in one more pass over the footage, holding a pair of frames at a time."""
    values = scores.choices[LABEL_FREE]
    order = worst_frames(values.j, count) if count else []
    wanted = {scores.frames[position]: position for position in order}
    rows: dict[int, PictureRow] = {}
    previous: Picture | None = None
    for index, frame in enumerate(sequence.frames()):
        if previous is not None and index - 1 in wanted:
            tiles = _tiles(segmenter, sequence, segments, index - 1, previous, frame, refiner)
            rows[wanted[index - 1]] = _row(values, wanted[index - 1], index - 1, tiles)
        if index in wanted and index == segments.num_frames - 1:
            tiles = _tiles(segmenter, sequence, segments, index, frame, None, refiner)
            rows[wanted[index]] = _row(values, wanted[index], index, tiles)
        previous = frame
    return tuple(rows[position] for position in order)


def _row(values: FrameScores, position: int, frame: int, tiles: dict[str, Picture]) -> PictureRow:
    encoded = {title: jpeg_bytes(resized(tile, height=PICTURE_HEIGHT)) for title, tile in tiles.items()}
    return PictureRow(frame=frame, j=values.j[position], f=values.f[position], tiles=encoded)


def _tiles(
    segmenter: ClipSegmenter,
    sequence: BenchmarkSequence,
    segments: ClipSegments,
    index: int,
    frame: Picture,
    following: Picture | None,
    refiner: MaskRefiner | None,
) -> dict[str, Picture]:
    tiles = {"frame": frame}
    if segmenter.estimator is not None and following is not None:
        flow = np.nan_to_num(segmenter.flow_between(frame, following), posinf=0.0, neginf=0.0)  # as it is drawn
        longest = float(np.percentile(np.hypot(flow[0], flow[1]), _FLOW_FULL_PERCENTILE))
        tiles["optical flow"] = flow_picture(flow, max_px=longest, legend=True)
    tiles["segments"] = segments_picture(segments.probabilities(index).numpy(), frame=frame)
    title = "label-free foreground" + (f", CRF {refiner.name}" if refiner else "")
    tiles[title] = overlay(frame, foreground_mask(segments, index, frame, refiner))
    annotation = sequence.annotation(index)
    if annotation is not None:
        tiles["annotation"] = mask_picture(annotation)
    return tiles
