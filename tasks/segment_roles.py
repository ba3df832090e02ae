"""Finds what a model's segments are for, from motion in the footage that it was trained on; no annotation is read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.clip_evidence import ClipEvidence
from model.foreground import choose_grouping
from model.methods.base import Method
from model.methods.gwm import resize_image
from model.saliency import motion_saliency
from model.segment_roles import SegmentRoles, count_roles
from tasks.catalog import open_dataset
from tasks.dataset import FrameReader
from tasks.held_out import training_part
from tasks.sampling import ClipIndex
from tasks.snapshot import DatasetPin

MAX_CLIPS = 64
"""Clips looked at, spread evenly over the footage: shares of segments are then known to about 6 % (one deviation)."""

FRAMES_PER_CLIP = 6
"""Spread evenly over a clip."""


def find_roles(
    method: Method, datasets: Sequence[DatasetPin], *, held_out_percent: int = 0, device: str = "cpu"
) -> SegmentRoles:
    """Let motion choose the foreground of clips of the training footage, and count which segments it takes."""
    snapshots = [open_dataset(pin.uri, pin.version) for pin in datasets]
    reader = FrameReader(*(training_part(snapshot, held_out_percent) for snapshot in snapshots))
    evidences = (_evidence(method, reader, clip, device) for clip in spread(len(reader.clips), MAX_CLIPS))
    moving = (evidence for evidence in evidences if evidence is not None and evidence.has_motion)
    return count_roles(method.num_segments, (choose_grouping(evidence, "motion").segments for evidence in moving))


def spread(count: int, wanted: int) -> list[int]:
    """Return up to ``wanted`` of the numbers 0 to ``count`` - 1, evenly spread."""
    return sorted(set(np.linspace(0, count - 1, min(count, wanted)).round().astype(int).tolist())) if count else []


def _evidence(method: Method, reader: FrameReader, number: int, device: str) -> ClipEvidence | None:
    """Gather a few frames of a clip; None where it is too short for any gap."""
    clip = reader.clips[number]
    gap = min(clip.gaps, key=abs)
    frames = _frames(clip, gap)
    if not frames:
        return None
    pairs = [reader.read_pair(number, frame, gap) for frame in frames]
    with torch.inference_mode():
        images = torch.stack([pair.image for pair in pairs]).to(device)
        probabilities = method.segment(images.float()).probabilities
        size = (int(probabilities.shape[-2]), int(probabilities.shape[-1]))
        # area averages, as tasks/segment_clip.py compares saliency with masks of the network's size
        flow: Tensor = F.interpolate(torch.stack([pair.flow for pair in pairs]).float(), size=size, mode="area")
        evidence = ClipEvidence(method.num_segments)
        evidence.update(probabilities, motion_saliency(flow).to(device), resize_image(images.float(), size))
    return evidence


def _frames(clip: ClipIndex, gap: int) -> list[int]:
    first, num_frames = max(0, -gap), clip.num_frames - abs(gap)
    return [first + frame for frame in spread(max(0, num_frames), FRAMES_PER_CLIP)]
