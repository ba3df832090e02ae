"""Scores and pictures of one annotated still image: what a worker does.

A MaskFormer looks at each image at the image's own size, as GWM's released image evaluation has it. A U-Net does so
only when told: it knows objects by their size in pixels, and one trained at 128x224 fell from an oracle J of 65 to 22
on twenty frames of DAVIS2016 at 480x854. What is scored is always the soft mask at the image's own size; whatever a
network pads, it takes off its result.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.border_rule import foreground_of_two
from model.clip_evidence import ClipEvidence, all_groupings, grouping_masks
from model.features import FeatureSource
from model.foreground import Grouping, choose_grouping, group_mask
from model.image_metrics import ImageScores, score_image
from model.merging import merge_segments
from model.methods.base import AnySizeMethod, Method
from model.metrics import region_similarity
from model.segment_roles import SegmentRoles
from model.types import Segmentation
from tasks.benchmarks.images import BenchmarkImage
from tasks.errors import InputError
from tasks.foreground_choices import BORDER_RULE, GROUND_TRUTH_PER_IMAGE, LABEL_FREE, ORACLE_PER_IMAGE
from tasks.image_scores import ChoiceScores, ImageRow
from tasks.pictures import Picture, jpeg_bytes, mask_picture, overlay, resized, segments_picture
from tasks.refine import MaskRefiner

PICTURE_HEIGHT = 168

NATIVE, OF_MODEL, AUTOMATIC = "native", "model", "auto"


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageResult:
    """What a worker hands back for one image.

    f_curves: F_beta at each threshold, by foreground choice. tiles: JPEG pictures by title.
    """

    row: ImageRow
    f_curves: dict[str, NDArray[np.float64]]
    tiles: dict[str, bytes]


def parse_network_size(text: str) -> str | tuple[int, int]:
    """Return at what size a network looks: ``native``, ``model``, or (rows, columns) of ``256x384``.

    Raises InputError for anything else.
    """
    if text in (NATIVE, OF_MODEL):
        return text
    numbers = re.fullmatch(r"(\d+)x(\d+)", text)
    if numbers is None:
        raise InputError(
            f"network size {text!r}: expected {NATIVE} (each image's own), {OF_MODEL} (that it was trained at), "
            f"{AUTOMATIC}, or rows x columns such as 256x384"
        )
    return int(numbers[1]), int(numbers[2])


def network_size_for(wanted: str, network: str) -> str:
    """Return the size at which a network of a model's experiment looks: ``auto`` decided, anything else as it is.

    Raises InputError when ``wanted`` is none of the sizes that there are.
    """
    if wanted == AUTOMATIC:
        return NATIVE if network == "maskformer" else OF_MODEL
    parse_network_size(wanted)
    return wanted


class ImageSegmenter:
    """Runs a method over still images; built once per process."""

    def __init__(
        self,
        method: Method,
        *,
        features: FeatureSource | None,
        roles: SegmentRoles | None = None,
        network_size: str = NATIVE,
        device: str = "cpu",
    ) -> None:
        """Hold the parts.

        features: what segments are merged by, None leaves the network's own. roles: what segments are for, if known.
        Raises InputError when the method can not look at images at the size that is wanted.
        """
        self.network_size = parse_network_size(network_size)
        if self.network_size != OF_MODEL and not isinstance(method, AnySizeMethod):
            raise InputError(f"this model looks at images of its own size only: expected network size {OF_MODEL}")
        self.method = method
        self.features = features
        self.roles = roles
        self.device = torch.device(device)
        if isinstance(method, torch.nn.Module):
            method.to(self.device).eval()

    def image(self, picture: Picture) -> Tensor:
        """Return a picture as the batch of one that networks take, float [1, 3, H, W], on this segmenter's device."""
        # decoded pictures may be read-only views, which torch warns of
        pixels = torch.from_numpy(np.require(picture, requirements=["C", "W"]))
        return pixels.permute(2, 0, 1)[None].to(self.device).float()

    @torch.no_grad()
    def segment(self, images: Tensor) -> Segmentation:
        """Return the soft segments of an image [1, 3, H, W], at the size at which the network looked."""
        if isinstance(self.method, AnySizeMethod) and self.network_size != OF_MODEL:
            own = (images.shape[-2], images.shape[-1])
            size = own if isinstance(self.network_size, str) else self.network_size
            segmentation = self.method.segment_at(images, size)
        else:
            segmentation = self.method.segment(images)
        if self.features is None:
            return segmentation
        return replace(segmentation, features=self.features(images, segmentation, None))


def evaluate_image(
    segmenter: ImageSegmenter, image: BenchmarkImage, *, pictured: bool = True, refiner: MaskRefiner | None = None
) -> ImageResult:
    """Score one image under every foreground choice, at its own size; draw it when ``pictured``.

    refiner: refines the masks of all choices before they are scored; choices are made from masks as they are.
    """
    picture, annotation = image.load()
    pixels = segmenter.image(picture)
    segmentation = segmenter.segment(pixels)
    grouping = label_free_grouping(segmentation, pixels, segmenter.roles)
    target = torch.from_numpy(np.ascontiguousarray(annotation)).to(segmentation.probabilities.device)
    height, width = annotation.shape
    # (k, H, W): the image's own size, in which nothing of a network's padding is left
    soft = F.interpolate(segmentation.probabilities, (height, width), mode="bilinear", align_corners=False)[0]
    chosen = _choose(segmentation, soft, target, grouping)
    masks = {segments: _mask(picture, group_mask(soft, segments), refiner) for segments in set(chosen.values())}
    scores = {name: score_image(masks[segments], target) for name, segments in chosen.items()}
    row = ImageRow(
        name=image.name,
        size=(height, width),
        rule=grouping.rule,
        choices={name: _choice_scores(chosen[name], score) for name, score in scores.items()},
    )
    return ImageResult(
        row=row,
        f_curves={name: score.f_curve.numpy() for name, score in scores.items()},
        tiles=_tiles(picture, segmentation, masks[chosen[LABEL_FREE]], annotation) if pictured else {},
    )


def _mask(picture: Picture, soft: Tensor, refiner: MaskRefiner | None) -> Tensor:
    return soft if refiner is None else refiner.soft_mask(picture, soft.float()).to(soft.device)


def label_free_grouping(segmentation: Segmentation, images: Tensor, roles: SegmentRoles | None = None) -> Grouping:
    """Choose the foreground of a single image [1, 3, H, W] without labels and without motion of its own."""
    evidence = ClipEvidence(segmentation.num_segments)
    evidence.update(segmentation.probabilities, None, images)
    return choose_grouping(evidence, "appearance", roles)


def _choose(
    segmentation: Segmentation, soft: Tensor, annotation: Tensor, grouping: Grouping
) -> dict[str, tuple[int, ...]]:
    """Return the segments that each foreground choice takes; merged ones only where there is something to merge by."""
    groupings = all_groupings(segmentation.num_segments)
    masks = grouping_masks(soft[None])[0]
    j = region_similarity(masks, annotation.expand(masks.shape), empty_score=0.0)
    chosen = {LABEL_FREE: grouping.segments}
    if segmentation.features is not None or segmentation.num_segments == 2:
        pair = _merged_pair(segmentation)
        chosen[BORDER_RULE] = pair[foreground_of_two(torch.stack([group_mask(soft, group) for group in pair]))]
        chosen[GROUND_TRUTH_PER_IMAGE] = max(pair, key=lambda group: float(j[groupings.index(group)]))
    chosen[ORACLE_PER_IMAGE] = groupings[int(j.argmax())]
    return chosen


def _merged_pair(segmentation: Segmentation) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the two groups of segments that merging by features makes."""
    probabilities, features = segmentation.probabilities, segmentation.features
    labels = merge_segments(probabilities, probabilities if features is None else features)[0].tolist()
    return (
        tuple(index for index, label in enumerate(labels) if label),
        tuple(index for index, label in enumerate(labels) if not label),
    )


def _choice_scores(segments: tuple[int, ...], scores: ImageScores) -> ChoiceScores:
    return ChoiceScores(
        segments=segments,
        accuracy=scores.accuracy,
        j=scores.j,
        f_beta=scores.f_beta,
        mean_absolute_error=scores.mean_absolute_error,
    )


def _tiles(
    picture: Picture, segmentation: Segmentation, foreground: Tensor, annotation: NDArray[np.bool_]
) -> dict[str, bytes]:
    tiles = {
        "image": picture,
        "segments": segments_picture(segmentation.probabilities[0].cpu().numpy(), frame=picture),
        "label-free foreground": overlay(picture, (foreground > 0.5).cpu().numpy()),
        "annotation": mask_picture(annotation),
    }
    return {title: jpeg_bytes(resized(tile, height=PICTURE_HEIGHT)) for title, tile in tiles.items()}
