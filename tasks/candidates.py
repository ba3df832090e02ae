"""Compares the checkpoints that a training kept, on frames it was never shown, and makes one of them its model.

The frame pairs and their order are the same for every candidate and in every repetition; no annotation is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from model.agreement import agreement_along_flow, cohens_kappa
from model.methods.base import Method
from model.methods.gwm import resize_flow, resize_image
from tasks.catalog import open_dataset
from tasks.checkpoint_choice import CandidateScores, choose_checkpoint, describe_choice
from tasks.clip_filter import training_clips
from tasks.config import ExperimentConfig
from tasks.dataset import FrameReader
from tasks.errors import TrainingError
from tasks.held_out import training_part
from tasks.model_package import is_model, load_model, publish_copy
from tasks.run_folder import RunFolder
from tasks.sampling import distinct_samples, plan_sampling
from tasks.segment_roles import find_roles
from tasks.snapshot import DatasetPin
from tasks.storage import Location
from tasks.tracking import MetricPoint

NUM_PAIRS = 96
"""Frame pairs that candidates are compared on; 1 to 4 MB each, prepared."""

_SEED = 0
_RECORD = "candidates"

OnScored = Callable[[int, int], None]
"""Called with how many candidates are scored, and of how many."""


@dataclass(frozen=True, kw_only=True)
class CandidateRecord:
    """What comparing the candidates of a training found.

    scores: empty where the last step is taken without looking. measured_ms: when; a curve's points keep that time.
    """

    checkpoint: str
    step: int
    scores: tuple[CandidateScores, ...] = ()
    measured_ms: int = 0

    @property
    def points(self) -> list[MetricPoint]:
        """The scores as curves over the training's steps."""
        return [
            MetricPoint(key=f"candidates/{name}", value=value, step=each.step, timestamp_ms=self.measured_ms)
            for each in self.scores
            for name, value in (*each.model_dump(exclude={"step"}).items(), ("stability", each.stability))
        ]


def publish_chosen(
    run: RunFolder,
    last: Location,
    experiment: ExperimentConfig,
    datasets: Sequence[DatasetPin],
    *,
    device: str = "cpu",
    on_scored: OnScored | None = None,
) -> CandidateRecord:
    """Make the checkpoint that the experiment's rule chooses the run's model; what was done before is not done again.

    last: folder of the last step's checkpoint. Raises TrainingError when a candidate is missing.
    """
    num_steps, rule = experiment.optimisation.num_steps, experiment.recording.checkpoint_choice
    if rule == "last":
        record = CandidateRecord(checkpoint=describe_choice(rule, num_steps, num_steps), step=num_steps)
        _publish(run, last, record, experiment, datasets, device)
        return record
    scores, measured_ms = _recorded_scores(run) or _measured_scores(run, experiment, datasets, device, on_scored)
    chosen = choose_checkpoint(rule, scores)
    sentence = describe_choice(rule, chosen.step, num_steps)
    record = CandidateRecord(checkpoint=sentence, step=chosen.step, scores=scores, measured_ms=measured_ms)
    _publish(run, run.candidate(chosen.step), record, experiment, datasets, device)
    return record


def _publish(
    run: RunFolder,
    source: Location,
    record: CandidateRecord,
    experiment: ExperimentConfig,
    datasets: Sequence[DatasetPin],
    device: str,
) -> None:
    if is_model(run.model):
        return
    held_out = experiment.data.held_out_percent
    roles = find_roles(load_model(source, device=device).method, datasets, held_out_percent=held_out, device=device)
    publish_copy(source, run.model, checkpoint=record.checkpoint, candidates=record.scores, roles=roles)


def _recorded_scores(run: RunFolder) -> tuple[tuple[CandidateScores, ...], int] | None:
    found = run.read(_RECORD)
    if found is None:
        return None
    return tuple(CandidateScores.model_validate(each) for each in found["scores"]), found["measured_ms"]


def _measured_scores(
    run: RunFolder,
    experiment: ExperimentConfig,
    datasets: Sequence[DatasetPin],
    device: str,
    on_scored: OnScored | None,
) -> tuple[tuple[CandidateScores, ...], int]:
    folders = {step: run.candidate(step) for step in experiment.candidate_steps}
    missing = [step for step, folder in folders.items() if not is_model(folder)]
    if missing:
        raise TrainingError(
            f"{run.candidates.uri} lacks the checkpoints after {missing} steps, which the choice compares: "
            "train again under another training id"
        )
    scores = score_candidates(folders, experiment, datasets, device=device, on_scored=on_scored)
    measured_ms = time.time_ns() // 1_000_000
    run.write(_RECORD, {"scores": [each.model_dump() for each in scores], "measured_ms": measured_ms})
    return scores, measured_ms


def score_candidates(
    folders: dict[int, Location],
    experiment: ExperimentConfig,
    datasets: Sequence[DatasetPin],
    *,
    device: str = "cpu",
    on_scored: OnScored | None = None,
) -> tuple[CandidateScores, ...]:
    """Score the models in ``folders``, by step, on the frames that ``experiment`` holds out of ``datasets``."""
    pairs: _Pairs | None = None
    losses, agreements, labels = [], [], []
    for count, folder in enumerate(folders.values(), start=1):
        method = load_model(folder, device=device).method
        pairs = pairs or _read_pairs(method, experiment, datasets)
        loss, agreement, segments = _measure(method, pairs, experiment.optimisation.global_batch_size, device)
        losses.append(loss)
        agreements.append(agreement)
        labels.append(segments)
        if on_scored is not None:
            on_scored(count, len(folders))
    between = [
        _mean(cohens_kappa(first.long(), second.long(), experiment.method.num_segments, torch.ones_like(first).bool()))
        for first, second in pairwise(labels)
    ]
    return tuple(
        CandidateScores(
            step=step,
            held_out_loss=losses[place],
            temporal_agreement=agreements[place],
            neighbour_agreement=_beside(between, place),
        )
        for place, step in enumerate(folders)
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pairs:
    """Held-out frame pairs, prepared for the loss, and at the network's size for the agreement of segments.

    images, later: uint8 [n, 3, h, w]. flow: from the first to the second, [n, 2, h, w].
    """

    samples: list[dict[str, Tensor]]
    images: Tensor
    later: Tensor
    flow: Tensor


def _read_pairs(method: Method, experiment: ExperimentConfig, datasets: Sequence[DatasetPin]) -> _Pairs:
    data, size = experiment.data, experiment.method.image_size
    snapshots = [open_dataset(pin.uri, pin.version) for pin in datasets]
    kept = [training_clips(training_part(snapshot, data.held_out_percent), data) for snapshot in snapshots]
    reader = FrameReader(*kept)
    plan = plan_sampling(
        seed=_SEED,
        clips=reader.clips,
        gaps=data.gaps if data.gaps_from == "experiment" else None,
        gap_sampling=data.gap_sampling,
        held_out_percent=experiment.held_out_frames_percent,
        part="held_out",
    )
    samples, images, later, flows = [], [], [], []
    for key in distinct_samples(plan, NUM_PAIRS):
        pair = reader.read_pair(key.clip, key.frame, key.gap)
        samples.append(method.prepare(pair))
        images.append(_reduced(pair.image, size))
        later.append(_reduced(reader.read_image(key.clip, key.frame + key.gap), size))
        flows.append(resize_flow(pair.flow, size, "area"))
    return _Pairs(samples=samples, images=torch.stack(images), later=torch.stack(later), flow=torch.stack(flows))


def _reduced(image: Tensor, size: tuple[int, int]) -> Tensor:
    return resize_image(image[None].float(), size)[0].round().to(torch.uint8)


@torch.inference_mode()
def _measure(method: Method, pairs: _Pairs, batch_size: int, device: str) -> tuple[float, float, Tensor]:
    """Return the loss, the agreement along optical flow, and the segment of every pixel, uint8 [n, h, w]."""
    losses, agreements, labels = [], [], []
    for start in range(0, len(pairs.samples), batch_size):
        part = slice(start, start + batch_size)
        samples = pairs.samples[part]
        batch = {name: torch.stack([sample[name] for sample in samples]).to(device) for name in samples[0]}
        losses.append(method.training_loss(batch).total.double().cpu() * len(samples))
        flow = pairs.flow[part].to(device)
        now, then = (_probabilities(method, images[part].to(device)) for images in (pairs.images, pairs.later))
        agreements.append(agreement_along_flow(now, then, flow).cpu())
        labels.append(now.argmax(1).to(torch.uint8).cpu())
    loss = float(torch.stack(losses).sum()) / len(pairs.samples)
    return loss, _mean(torch.cat(agreements)), torch.cat(labels)


def _probabilities(method: Method, images: Tensor) -> Tensor:
    found = method.segment(images.float()).probabilities
    return F.interpolate(found, size=images.shape[-2:], mode="bilinear", align_corners=False)


def _beside(between: Sequence[float], place: int) -> float:
    """Return the mean agreement with the candidates before and after; 1 for one that has neither."""
    near = between[max(0, place - 1) : place + 1]
    return sum(near) / len(near) if near else 1.0


def _mean(values: Tensor) -> float:
    return cast(float, values.double().mean().item())
