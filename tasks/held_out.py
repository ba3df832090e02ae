"""Footage kept aside from training, so that two models can be compared without a label.

Whether a video is kept aside depends on its bytes alone, so it stays aside in every version of every dataset: neither a
model nor those that are trained on from it have ever seen it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from tasks.catalog import open_dataset
from tasks.dataset import FrameReader
from tasks.errors import DatasetError
from tasks.loader import TrainingLoader
from tasks.model_package import load_model
from tasks.snapshot import DatasetSnapshot

NUM_BATCHES = 16
"""Batches that a held-out loss is the mean of; the same samples for every model that is compared."""


def is_held_out(video_id: str, percent: int) -> bool:
    """Tell whether a video belongs to the ``percent`` of all videos that are kept aside; more percent keep more."""
    return int(video_id[:8], 16) % 100 < percent


def training_part(snapshot: DatasetSnapshot, percent: int) -> DatasetSnapshot:
    """Return what is trained on; raises DatasetError when keeping aside leaves nothing."""
    kept = tuple(video for video in snapshot.videos if not is_held_out(video.video_id, percent))
    if snapshot.videos and not kept:
        raise DatasetError(
            f"all {len(snapshot.videos)} videos of {snapshot.uri} are held out at {percent} %: "
            "ingest more videos, or train with --set data.held_out_percent=0"
        )
    return replace(snapshot, videos=kept)


def held_out_part(snapshot: DatasetSnapshot, percent: int) -> DatasetSnapshot:
    """Return what ``training_part`` leaves out."""
    return replace(snapshot, videos=tuple(video for video in snapshot.videos if is_held_out(video.video_id, percent)))


def held_out_losses(
    model_uris: Sequence[str], dataset_uri: str, version: int, *, percent: int, device: str = "cpu"
) -> list[float] | None:
    """Return each model's mean training loss on the same held-out samples.

    None when nothing is held out that is long enough for a frame pair, or when the models were made differently, so
    that their losses mean different things.
    """
    part = held_out_part(open_dataset(dataset_uri, version), percent)
    models = [load_model(uri, device=device) for uri in model_uris]
    data = models[0].experiment.data
    own = data.gaps_from == "recipe"
    if all(clip.num_frames <= min(map(abs, clip.recipe.gaps if own else data.gaps)) for clip in part.clips):
        return None
    if any(model.experiment.method != models[0].experiment.method for model in models):
        return None
    # One loader for all: samples and their preparation depend on the method's configuration, which is the same.
    loader = TrainingLoader(FrameReader(part), models[0].method.prepare, models[0].experiment)
    totals = [0.0] * len(models)
    with torch.inference_mode():
        for _, batch in loader.iterate(0, NUM_BATCHES):
            on_device = {name: value.to(device) for name, value in batch.items()}
            for index, model in enumerate(models):
                totals[index] += float(model.method.training_loss(on_device).total)
    return [total / NUM_BATCHES for total in totals]
