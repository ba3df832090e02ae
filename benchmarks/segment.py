"""``segment`` on a clip of 480x854: its stages beside each other against the same stages one after the other.

48 frames as JPEG files, DIS optical flow, a U-Net of width 16 (1/12 of the paper's work per frame, so that decoding and
encoding weigh as they do beside a GPU), all threads. Both write the same files, which is checked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import torch

from benchmarks.timing import best_seconds, print_ratios
from model.dis import DisEstimator
from model.methods import build_method
from tasks.config import resolve_experiment
from tasks.model_package import LoadedModel, Provenance
from tasks.segment import segment

PEER = "one stage after the other (peer)"
NUM_FRAMES, SIZE, WIDTH_OF_NETWORK = 48, (480, 854), 16
STAGES = ("tasks.segment", "tasks.segment_clip", "tasks.clip_writer")


def write_footage(folder: Path) -> None:
    """Write frames with texture and noise, so that JPEG and H.264 have the work of real ones; a patch moves."""
    random = np.random.default_rng(0)
    background, patch_ = (
        cv2.GaussianBlur(random.integers(0, 256, (*size, 3), dtype=np.uint8), (0, 0), 2) for size in (SIZE, (160, 200))
    )
    for index in range(NUM_FRAMES):
        frame = np.roll(background, index, axis=1)
        frame[150:310, 80 + 9 * index : 280 + 9 * index] = 255 - patch_
        noisy = frame + random.normal(0, 4, frame.shape)
        cv2.imwrite(str(folder / f"{index:05d}.jpg"), noisy.clip(0, 255).astype(np.uint8))


def untrained_model() -> LoadedModel:
    """Return a U-Net of random weights: its masks mean nothing and take as long."""
    experiment = resolve_experiment({"name": "benchmark", "method": {"base_channels": WIDTH_OF_NETWORK}})
    method = build_method(experiment.method).eval()
    return LoadedModel(
        method=method, experiment=experiment, provenance=Provenance(step=0), weights_sha256="", uri="benchmark"
    )


@contextmanager
def in_turn(source: Iterable[object], depth: int = 1) -> Iterator[Iterator[object]]:
    """Stand in for ``prefetched``: nothing is made ahead."""
    yield iter(source)


def main() -> None:
    """Print the ratio, once both are seen to write the same masks."""
    torch.manual_seed(0)
    model = untrained_model()
    with tempfile.TemporaryDirectory() as name:
        footage, beside, after = (Path(name) / folder for folder in ("clip", "beside", "after"))
        footage.mkdir()
        write_footage(footage)

        def run(out: Path) -> None:
            segment([str(footage)], model, out, estimator=DisEstimator())

        def run_in_turn() -> None:
            with ExitStack() as stack:
                for module in STAGES:
                    stack.enter_context(patch(f"{module}.prefetched", in_turn))
                run(after)

        seconds = best_seconds({PEER: run_in_turn, "beside each other": lambda: run(beside)}, rounds=3)
        for mask in sorted((after / "clip/masks").iterdir()):
            if mask.read_bytes() != (beside / "clip/masks" / mask.name).read_bytes():
                raise AssertionError(f"mask {mask.name} depends on the order of the work")
    print_ratios(f"segment, {NUM_FRAMES} frames of 480x854, {torch.get_num_threads()} threads", seconds, peer=PEER)


if __name__ == "__main__":
    main()
