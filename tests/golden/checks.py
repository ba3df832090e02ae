"""What is known about each archive: a function that recomputes it, and the tolerances it must keep."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from model.losses.flow_reconstruction import blended_loss, blended_reconstruction
from model.metrics import boundary_accuracy, region_similarity, statistics
from model.networks.dino_vit import DinoKeys
from model.networks.pixel_decoder import PixelDecoder
from model.networks.pwc_checkpoints import convert_arflow_checkpoint
from model.networks.query_decoder import QueryDecoder
from model.networks.released import convert_released_head
from model.networks.segment_flow import SegmentFlow
from model.raft import RaftEstimator
from model.warp import occluded, warp
from model.weights import fit_state_dict
from tests.golden.comparison import Comparison, absolute, relative
from tests.golden.dense_crf import check_dense_crf

RAFT_TOLERANCE_PX = 1e-4
J_TOLERANCE, F_TOLERANCE = 1e-9, 1e-6
DINO_TOLERANCE, DINO_HEAD_CHANNELS = 1e-4, 16
MASKFORMER_TOLERANCE, MASKFORMER_HEADS = 1e-4, 8
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-9, 1e-7
SEGMENT_FLOW_TOLERANCE_PX, WARP_TOLERANCE = 1e-4, 1e-6


@dataclass(frozen=True, kw_only=True)
class Check:
    """How to check one archive.

    run: takes the archive's path and the DAVIS root. companions: names of files beside the archive that it uses.
    """

    run: Callable[[Path, Path], list[Comparison]]
    companions: tuple[str, ...] = ()


def check_blended_loss(archive: Path, davis_root: Path) -> list[Comparison]:
    """GWM's released loss in float64: value, gradient and reconstructed flow of every case."""
    arrays = _load(archive)
    comparisons = []
    for case in sorted({name.split(".")[0] for name in arrays}):
        logits = torch.from_numpy(arrays[f"{case}.logits"]).requires_grad_()
        flow = torch.from_numpy(arrays[f"{case}.flow"])
        loss = blended_loss(logits, flow, motion_model="quadratic")
        (gradient,) = torch.autograd.grad(loss, logits)
        with torch.no_grad():
            reconstruction = blended_reconstruction(logits.softmax(dim=1), flow, "quadratic")
        comparisons += [
            relative(f"{case}.loss", loss, arrays[f"{case}.loss"], LOSS_TOLERANCE),
            relative(f"{case}.grad", gradient, arrays[f"{case}.grad"], GRADIENT_TOLERANCE),
            relative(f"{case}.reconstruction", reconstruction, arrays[f"{case}.reconstruction"], GRADIENT_TOLERANCE),
        ]
    return comparisons


def check_raft(archive: Path, davis_root: Path, *, variant: str) -> list[Comparison]:
    """princeton-vl/RAFT with random weights in that repository's format."""
    arrays = _load(archive)
    estimator = RaftEstimator.from_file(
        variant, archive.parent / _checkpoint_of(archive.stem), num_updates=int(arrays["iters"])
    )
    pairs = [
        (estimator.encode(torch.from_numpy(first)), estimator.encode(torch.from_numpy(second)))
        for first, second in zip(arrays["image1"], arrays["image2"], strict=True)
    ]
    return [absolute("flow", estimator.flow(pairs), arrays["flow"], RAFT_TOLERANCE_PX, "px")]


def check_davis_metrics(folder: Path, davis_root: Path) -> list[Comparison]:
    """davis2017-evaluation on binary masks: J and F of frames, and their statistics over sequences."""
    frames: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (folder / "per_frame.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            frames[row["sequence"]].append(row)
    summaries = json.loads((folder / "per_sequence.json").read_text())
    listed, present = set(frames), {path.name for path in folder.iterdir() if path.is_dir()}
    if listed != present or listed != set(summaries):
        raise ValueError(
            f"per_frame.csv lists {sorted(listed)}, per_sequence.json {sorted(summaries)}, "
            f"masks are there of {sorted(present)}: expected the same sequences"
        )
    comparisons = []
    for sequence, rows in frames.items():
        comparisons += _check_sequence(folder, davis_root, sequence, rows, summaries[sequence])
    return comparisons


def check_dino_keys(archive: Path, davis_root: Path) -> list[Comparison]:
    """A DINO ViT through GWM's released extractor at stride 4; the recorded network has 16 channels a head."""
    arrays = _load(archive)
    state = {
        name.removeprefix("state."): torch.from_numpy(a) for name, a in arrays.items() if name.startswith("state.")
    }
    keys = DinoKeys.from_state(state, num_heads=state["cls_token"].shape[-1] // DINO_HEAD_CHANNELS)
    recorded = {int(name.removeprefix("keys.block")): a for name, a in arrays.items() if name.startswith("keys.")}
    with torch.no_grad():
        maps = keys(torch.from_numpy(arrays["image"]), sorted(recorded))
    return [absolute(f"block {block}", maps[block], recorded[block], DINO_TOLERANCE) for block in sorted(recorded)]


def check_maskformer_head(archive: Path, davis_root: Path) -> list[Comparison]:
    """GWM's released pixel decoder and query decoder at small widths: mask features and logits before the crop."""
    arrays = _load(archive)
    state = convert_released_head(
        {name.removeprefix("state."): torch.from_numpy(a) for name, a in arrays.items() if name.startswith("state.")}
    )
    levels = [torch.from_numpy(arrays[f"in.block{block}"]) for block in (6, 8, 10, 12)]
    num_segments, channels = state["query_decoder.queries.weight"].shape
    pixel_decoder = PixelDecoder(in_channels=[level.shape[1] for level in levels], channels=channels)
    query_decoder = QueryDecoder(
        in_channels=levels[-1].shape[1],
        num_segments=num_segments,
        channels=channels,
        num_layers=6,
        num_heads=MASKFORMER_HEADS,
        feedforward_channels=len(state["query_decoder.layers.0.feedforward.0.bias"]),
        dropout=0.1,
    )
    head = nn.ModuleDict({"pixel_decoder": pixel_decoder, "query_decoder": query_decoder}).eval()
    fit_state_dict(head, state, str(archive))
    with torch.no_grad():
        mask_features = pixel_decoder(levels)
        logits = query_decoder(levels[-1], mask_features)
    return [
        absolute("mask features", mask_features, arrays["mask_features"], MASKFORMER_TOLERANCE),
        absolute("logits", logits, arrays["logits"], MASKFORMER_TOLERANCE),
    ]


def check_segment_flow(archive: Path, davis_root: Path) -> list[Comparison]:
    """AMD's motion network with random weights: flows of both directions at five resolutions."""
    arrays = {name: torch.from_numpy(array) for name, array in _load(archive).items()}
    network = SegmentFlow()
    state = {name.removeprefix("state."): array for name, array in arrays.items() if name.startswith("state.")}
    fit_state_dict(network, convert_arflow_checkpoint(state), str(archive))
    with torch.no_grad():
        directions = network(*arrays["images"].split(3, dim=1), arrays["masks1"], arrays["masks2"])
    return [
        absolute(name, flow, arrays[name], SEGMENT_FLOW_TOLERANCE_PX, "px")
        for direction, flows in zip(("forward", "backward"), directions, strict=True)
        for name, flow in ((f"flow_{direction}{level}", flow) for level, flow in enumerate(flows))
    ]


def check_warp(archive: Path, davis_root: Path) -> list[Comparison]:
    """AMD's warping of an image, and its occlusion mask."""
    arrays = {name: torch.from_numpy(array) for name, array in _load(archive).items()}
    hidden = occluded(arrays["flow_backward"]).float()
    return [
        absolute("warped", warp(arrays["image2"], arrays["flow_forward"]), arrays["warped"], WARP_TOLERANCE),
        absolute("occluded pixels", hidden, arrays["occluded_from_backward"], 0),
    ]


def _check_sequence(
    folder: Path, davis_root: Path, sequence: str, rows: list[dict[str, str]], summary: dict[str, object]
) -> list[Comparison]:
    annotations = davis_root / "Annotations" / "480p" / sequence
    predicted = torch.stack([_mask(folder / sequence / f"{row['frame']}.png") for row in rows])
    annotated = torch.stack([_mask(annotations / f"{row['frame']}.png") for row in rows])
    scores = {"J": region_similarity(predicted, annotated), "F": boundary_accuracy(predicted, annotated)}
    tolerances = {"J": J_TOLERANCE, "F": F_TOLERANCE}
    comparisons = [
        absolute(f"{sequence} {measure}", values, [float(row[measure]) for row in rows], tolerances[measure])
        for measure, values in scores.items()
    ]
    for key, recorded in summary.items():
        if key == "frames":
            comparisons.append(absolute(f"{sequence} frames", len(rows), recorded, 0))
            continue
        assert isinstance(recorded, dict)
        measure, _, selection = key.partition("_")
        kept = scores[measure][{"": slice(None), "without_first_and_last": slice(1, -1)}[selection]]
        ours = statistics(kept.tolist())
        comparisons += [
            absolute(f"{sequence} {key} {name}", getattr(ours, name), value, tolerances[measure])
            for name, value in recorded.items()
        ]
    return comparisons


def _checkpoint_of(name: str) -> str:
    return f"{name}_princeton_random.pth"


def _load(archive: Path) -> dict[str, np.ndarray]:
    with np.load(archive, allow_pickle=False) as arrays:
        return dict(arrays)


def _mask(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("L")) > 127)


CHECKS: dict[str, Check] = {
    "gwm_blended_loss": Check(run=check_blended_loss),
    "raft_small": Check(run=partial(check_raft, variant="raft-small"), companions=(_checkpoint_of("raft_small"),)),
    "raft_large": Check(run=partial(check_raft, variant="raft-large"), companions=(_checkpoint_of("raft_large"),)),
    "davis_metrics": Check(run=check_davis_metrics),
    "dino_vit_keys": Check(run=check_dino_keys),
    "dense_crf": Check(run=check_dense_crf),
    "amd_segment_flow": Check(run=check_segment_flow),
    "amd_warp": Check(run=check_warp),
    "maskformer_head": Check(run=check_maskformer_head),
}
"""Checks by the name of the archive: the stem of an ``.npz`` file, or the name of a folder."""
