"""Training samples of one clip that is in no dataset: frames as they are decoded, optical flow as it is needed.

Which pairs are taken is decided before the first frame is read, as training would draw them from a dataset of this clip
alone. So only their frames are encoded, only their flow is computed, and memory does not grow with the clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from model.optical_flow import OpticalFlowEstimator
from model.types import FramePair
from tasks.config import ExperimentConfig
from tasks.frame_images import resize_image, scaled_size
from tasks.loader import mirrored
from tasks.pictures import Picture
from tasks.sampling import ClipIndex, SampleKey, distinct_samples, plan_sampling


def choose_pairs(num_frames: int, config: ExperimentConfig, max_pairs: int) -> tuple[SampleKey, ...]:
    """Draw up to ``max_pairs`` different frame pairs of a clip, by the gaps and odds that training uses.

    Raises DatasetError for a clip that is too short for every gap.
    """
    plan = plan_sampling(
        seed=config.optimisation.seed,
        clips=[ClipIndex(num_frames=num_frames)],
        gaps=config.data.gaps,
        gap_sampling=config.data.gap_sampling,
        flip=config.data.horizontal_flip,
    )
    return distinct_samples(plan, max_pairs)


def clip_samples(
    frames: Iterable[Picture],
    pairs: Iterable[SampleKey],
    prepare: Callable[[FramePair], dict[str, Tensor]],
    estimator: OpticalFlowEstimator,
    *,
    max_side: int,
    is_usable: Callable[[FramePair], bool],
) -> list[dict[str, Tensor]]:
    """Return the prepared samples of ``pairs``, as far as the clip goes and they are usable.

    max_side: frames are reduced to this longer side first. Raises InputError for frames that the estimator can not
    work on.
    """
    made = (mirrored(pair) if key.flip else pair for key, pair in _frame_pairs(frames, pairs, estimator, max_side))
    return [prepare(pair) for pair in made if is_usable(pair)]


def _frame_pairs(
    frames: Iterable[Picture], pairs: Iterable[SampleKey], estimator: OpticalFlowEstimator, max_side: int
) -> Iterator[tuple[SampleKey, FramePair]]:
    """Yield each pair when its later frame has come, holding only frames that a pair still waits for."""
    waiting = list(pairs)
    images: dict[int, Tensor] = {}
    encoded: dict[int, object] = {}
    for index, frame in enumerate(frames):
        if not any(index in _ends(key) for key in waiting):
            continue
        images[index] = _tensor(frame, max_side)
        encoded[index] = estimator.encode(images[index])
        ready = [key for key in waiting if index == max(_ends(key))]
        waiting = [key for key in waiting if index != max(_ends(key))]
        for key in ready:
            flow = estimator.flow([(encoded[key.frame], encoded[key.frame + key.gap])])[0].float().cpu()
            yield key, FramePair(image=images[key.frame], flow=flow, gap=key.gap)
        needed = {end for key in waiting for end in _ends(key)}
        for seen in [seen for seen in images if seen not in needed]:
            del images[seen], encoded[seen]
        if not waiting:
            return  # before the next frame is decoded


def _ends(key: SampleKey) -> tuple[int, int]:
    return key.frame, key.frame + key.gap


def _tensor(frame: Picture, max_side: int) -> Tensor:
    reduced = resize_image(frame, scaled_size(frame.shape[0], frame.shape[1], max_side))
    # decoded pictures may be read-only views, which torch warns of
    return torch.from_numpy(np.require(reduced, requirements=["C", "W"])).permute(2, 0, 1).contiguous()
