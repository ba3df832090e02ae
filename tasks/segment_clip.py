"""From the frames of a clip to its masks, label-free, in constant memory: for evaluation and ``segment``.

Two passes::

    pass 1  frames -> network (low resolution, in batches) ------> soft segments, spooled to a temporary file
                   -> optical flow to the neighbouring frames -> motion saliency -> sums per grouping
            then one grouping of the segments is chosen for the whole clip (model/foreground.py)
    pass 2  spool -> soft mask of the chosen group -> bilinear to the frame's size -> mask

The spool is what keeps both the memory constant and the network from running twice. Frames are read and their flow is
found by a thread of its own, one batch ahead of the network.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.clip_evidence import ClipEvidence
from model.features import FeatureSource
from model.foreground import ForegroundRule, Grouping, choose_grouping, group_mask
from model.methods.base import Method
from model.optical_flow import OpticalFlowEstimator, clip_flows
from model.saliency import motion_saliency
from model.segment_roles import SegmentRoles
from model.types import Segmentation
from tasks.errors import InputError
from tasks.pictures import Picture
from tasks.prefetch import prefetched
from tasks.probability_spool import ProbabilitySpool

_BATCH_PIXELS = 4_000_000  # native pixels of one batch, 12 bytes each as float32: bounds memory for 4K footage
_LEAST_FLOW_SIDE = 32


logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ClipOptions:
    """How a clip is looked at; nothing here sees a label.

    gaps: frame gaps whose flow makes the motion saliency (design: +1 and -1 averaged).
    flow_max_side: frames are reduced to this longer side before optical flow; the network sees 224 columns,
        so flow at twice that resolution loses nothing that the saliency could keep.
    batch_size: frames per network call, fewer for large frames.
    rule: how the foreground is chosen; ``motion`` falls back to ``appearance`` where there is no flow.
    """

    gaps: tuple[int, ...] = (1, -1)
    flow_max_side: int = 427
    batch_size: int = 8
    rule: ForegroundRule = "motion"

    def __post_init__(self) -> None:
        if self.flow_max_side < 32 or self.batch_size < 1:
            raise InputError(
                f"ClipOptions(flow_max_side={self.flow_max_side}, batch_size={self.batch_size}): expected at "
                "least 32 pixels and 1 frame"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipSegments:
    """What pass 1 found: soft segments per frame and the foreground grouping. Use ``with`` to close it."""

    spool: ProbabilitySpool
    evidence: ClipEvidence
    grouping: Grouping

    @property
    def num_frames(self) -> int:
        """Frames of the clip."""
        return self.spool.num_frames

    def probabilities(self, frame: int) -> Tensor:
        """Return the soft segments of a frame at the network's resolution, [k, h, w]."""
        return self.spool.read(frame)

    def mask(self, frame: int, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Return the foreground mask of a frame at ``size`` (rows, columns)."""
        return native_mask(self.probabilities(frame), self.grouping.segments, size)

    def __enter__(self) -> ClipSegments:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.spool.close()


def native_mask(probabilities: Tensor, segments: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which pixels belong to ``segments`` at ``size``: bilinear, then more likely inside than not."""
    soft = group_mask(probabilities, tuple(segments))
    enlarged = F.interpolate(soft[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    mask: NDArray[np.bool_] = (enlarged > 0.5).numpy()
    return mask


class ClipSegmenter:
    """Runs a method and an optical flow estimator over clips; built once per process."""

    def __init__(
        self,
        method: Method,
        estimator: OpticalFlowEstimator | None,
        options: ClipOptions | None = None,
        *,
        features: FeatureSource | None = None,
        roles: SegmentRoles | None = None,
        device: str = "cpu",
    ) -> None:
        """Hold the parts.

        estimator: None leaves motion out: the foreground is then chosen by appearance.
        features: what segments are merged by; None leaves the network's own features in its segmentation.
        roles: what the method's segments are for; None knows nothing of it.
        """
        self.method = method
        self.estimator = estimator
        self.features = features
        self.roles = roles
        self.options = options or ClipOptions()
        self.device = torch.device(device)
        if isinstance(method, torch.nn.Module):
            method.to(self.device).eval()

    def with_method(self, method: Method) -> ClipSegmenter:
        """Return a segmenter with another method and all else alike."""
        return ClipSegmenter(
            method,
            self.estimator,
            self.options,
            features=self.features,
            roles=self.roles,
            device=str(self.device),
        )

    def segment_clip(
        self,
        frames: Iterable[Picture],
        *,
        on_batch: Callable[[int, Segmentation], None] | None = None,
        on_frame: Callable[[int], None] | None = None,
    ) -> ClipSegments:
        """Look at all frames of a clip once and choose its foreground.

        on_batch: called with the index of a batch's first frame and its segmentation, before it is spooled.
        on_frame: called with the number of frames seen so far.
        Raises InputError for a clip without frames.
        """
        spool, evidence = ProbabilitySpool(), ClipEvidence(self.method.num_segments)
        try:
            with prefetched(_batches(self._with_flows(frames), self.options.batch_size)) as batches:
                for images, flows in batches:
                    segmentation = self._segment(images, flows)
                    if on_batch:
                        on_batch(spool.num_frames, segmentation)
                    spool.append(segmentation.probabilities)
                    self._gather(evidence, segmentation.probabilities, images, flows)
                    del images, flows  # else this batch stays while the next one is gathered
                    if on_frame:
                        on_frame(spool.num_frames)
            grouping = choose_grouping(evidence, self.options.rule, self.roles)
        except BaseException:
            spool.close()
            raise
        return ClipSegments(spool=spool, evidence=evidence, grouping=grouping)

    def flow_between(self, first: Picture, second: Picture) -> NDArray[np.float32]:
        """Return the optical flow [2, h, w] from one frame to another at the reduced size, in its pixels."""
        if self.estimator is None:
            raise InputError("this segmenter has no optical flow estimator: build it with one, such as 'dis'")
        codes = [self.estimator.encode(self._reduced(frame)) for frame in (first, second)]
        flow: NDArray[np.float32] = self.estimator.flow([(codes[0], codes[1])])[0].float().cpu().numpy()
        return flow

    def _with_flows(self, frames: Iterable[Picture]) -> Iterator[tuple[Picture, dict[int, Tensor | None]]]:
        """Pair every frame with its flows, holding only the frames that a gap spans."""
        if self.estimator is None:
            for frame in frames:
                yield frame, {}
            return
        waiting: deque[Picture] = deque()

        def reduced() -> Iterator[Tensor]:
            for frame in frames:
                waiting.append(frame)
                yield self._reduced(frame)

        for flows in clip_flows(self.estimator, reduced(), self.options.gaps):
            yield waiting.popleft(), flows

    def _reduced(self, frame: Picture) -> Tensor:
        height, width = frame.shape[:2]
        scale = min(1.0, self.options.flow_max_side / max(height, width))
        # DIS can not look at sides under 32 px: what is smaller, or very long, is stretched to that.
        size = (max(_LEAST_FLOW_SIDE, round(width * scale)), max(_LEAST_FLOW_SIDE, round(height * scale)))
        if size != (width, height):
            frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        # decoded pictures may be read-only views, which torch warns of
        return torch.from_numpy(np.require(frame, requirements=["C", "W"])).permute(2, 0, 1)

    @torch.no_grad()
    def _segment(self, frames: Sequence[Picture], flows: Sequence[dict[int, Tensor | None]]) -> Segmentation:
        images = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).to(self.device).float()
        segmentation = self.method.segment(images)
        if self.features is None:
            return segmentation
        features = self.features(images, segmentation, _one_flow_each(flows, self.device))
        return replace(segmentation, features=features)

    @torch.no_grad()
    def _gather(
        self,
        evidence: ClipEvidence,
        probabilities: Tensor,
        frames: Sequence[Picture],
        flows: Sequence[dict[int, Tensor | None]],
    ) -> None:
        """Add a batch to the evidence, frames with flow and frames without apart."""
        size = (int(probabilities.shape[-2]), int(probabilities.shape[-1]))
        images = _small_images(frames, size).to(probabilities.device)
        maps = _saliency_by_frame(flows, size)
        still = [index for index in range(len(flows)) if index not in maps]
        if maps:
            saliency = torch.stack(list(maps.values())).to(probabilities.device)
            evidence.update(probabilities[list(maps)], saliency, images[list(maps)])
        if still:
            evidence.update(probabilities[still], None, images[still])


def _saliency_by_frame(flows: Sequence[dict[int, Tensor | None]], size: tuple[int, int]) -> dict[int, Tensor]:
    """Average the saliency of each frame's flows at ``size``; frames without any flow are left out.

    A flow that is not finite throughout tells nothing: a single such vector would spoil the fit, and the sums over the
    clip with it.
    """
    found = [(index, flow) for index, by_gap in enumerate(flows) for flow in by_gap.values() if flow is not None]
    known = [(index, flow) for index, flow in found if bool(flow.isfinite().all())]
    if len(known) < len(found):
        broken = len(found) - len(known)
        logger.warning("%d of %d optical flow fields are not finite and were left out", broken, len(found))
    if not known:
        return {}
    # Averaged down first: the saliency is compared with masks of this size, and costs a quarter here.
    reduced = F.interpolate(torch.stack([flow for _, flow in known]).float(), size=size, mode="area")
    by_frame: dict[int, list[Tensor]] = {}
    for (index, _), saliency in zip(known, motion_saliency(reduced), strict=True):
        by_frame.setdefault(index, []).append(saliency)
    return {index: torch.stack(maps).mean(0) for index, maps in by_frame.items()}


def _small_images(frames: Sequence[Picture], size: tuple[int, int]) -> Tensor:
    """Return the frames at ``size`` (rows, columns), uint8 [t, 3, h, w]: only their colours are compared."""
    small = [cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA) for frame in frames]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2)


def _one_flow_each(flows: Sequence[dict[int, Tensor | None]], device: torch.device) -> Tensor | None:
    """Return the first known flow of every frame, [t, 2, H, W]; None when a frame has none."""
    known = [next((flow for flow in frame.values() if flow is not None), None) for frame in flows]
    there = [flow for flow in known if flow is not None]
    return torch.stack(there).to(device) if len(there) == len(flows) else None


def _batches(
    frames: Iterator[tuple[Picture, dict[int, Tensor | None]]], batch_size: int
) -> Iterator[tuple[list[Picture], list[dict[int, Any]]]]:
    images: list[Picture] = []
    flows: list[dict[int, Any]] = []
    for image, frame_flows in frames:
        images.append(image)
        flows.append(frame_flows)
        limit = max(1, min(batch_size, _BATCH_PIXELS // (image.shape[0] * image.shape[1])))
        if len(images) >= limit:
            yield images, flows
            images, flows = [], []
    if images:
        yield images, flows
