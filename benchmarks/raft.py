"""RAFT large on real frames of 480x854: ours in float32 and in bfloat16 against torchvision, one thread.

A pair alone costs two feature encodings and one context; in a clip with the gaps 1, -1, 2, -2 a frame is encoded once
for up to eight pairs. The weights are random, so that times are right and the differences are those of rounding; how
good the flow of bfloat16 is with trained weights this does not show. Before anything is timed, float32 is checked to be
torchvision's within 1e-4 px.
"""

from __future__ import annotations

import time

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.optical_flow import RAFT, raft_large

from benchmarks.footage import davis_frames
from benchmarks.timing import best_seconds, print_ratios
from model.optical_flow import clip_flows
from model.raft import RaftEstimator, crop_padding, padding_to_multiple

PEER = "torchvision (peer)"
GAPS = (1, -1, 2, -2)
NUM_FRAMES = 4
"""Of the clip: ten pairs. A long clip has nearly four a frame and shares a little more."""


@torch.no_grad()
def torchvision_flow(network: RAFT, first: Tensor, second: Tensor) -> Tensor:
    """Return the flow as torchvision's documentation computes it, padded and cropped as ours."""
    padding = padding_to_multiple(first.shape[-2], first.shape[-1], 8)
    images = [F.pad(2 * (frame[None] / 255) - 1, padding, mode="replicate") for frame in (first, second)]
    return crop_padding(network(*images)[-1], padding)


def read_frames() -> list[Tensor]:
    """Return frames of real footage, uint8 [3, H, W]."""
    images = [cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) for path in davis_frames("blackswan", NUM_FRAMES)]
    return [torch.from_numpy(image).permute(2, 0, 1).contiguous() for image in images]


def clip_pairs() -> list[tuple[int, int]]:
    """Return the pairs of the clip over all gaps."""
    return [(t, t + gap) for t in range(NUM_FRAMES) for gap in GAPS if 0 <= t + gap < NUM_FRAMES]


def main() -> None:
    """Print differences, then the time of a pair alone and of a pair in a clip."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    frames, network = read_frames(), raft_large(weights=None).eval()
    ours = {
        "float32": RaftEstimator("raft-large", network.state_dict()),
        "bfloat16": RaftEstimator("raft-large", network.state_dict(), bf16=True),
    }

    def pair(estimator: RaftEstimator) -> Tensor:
        return estimator.flow([(estimator.encode(frames[0]), estimator.encode(frames[1]))])

    expected = torchvision_flow(network, frames[0], frames[1])
    print(f"mean motion {expected.norm(dim=1).mean():.2f} px; weights are random")
    for name, estimator in ours.items():
        difference = (pair(estimator) - expected).norm(dim=1)
        mean, largest = difference.mean(), difference.max()
        print(f"  {name}: end-point difference from torchvision {mean:.1e} px on average, at most {largest:.1e}")
        assert name != "float32" or largest <= 1e-4, "float32 is to be torchvision's within 1e-4 px"

    seconds = best_seconds(
        {
            PEER: lambda: torchvision_flow(network, frames[0], frames[1]),
            **{name: lambda estimator=estimator: pair(estimator) for name, estimator in ours.items()},
        },
        rounds=2,
        clock=time.process_time,
    )
    print_ratios("RAFT large, 12 updates, 480x854, a pair alone, 1 thread, processor time", seconds, peer=PEER)
    clip = best_seconds(
        {
            name: lambda estimator=estimator: list(clip_flows(estimator, frames, GAPS))
            for name, estimator in ours.items()
        },
        rounds=1,
        clock=time.process_time,
    )
    in_clip = {PEER: seconds[PEER], **{name: value / len(clip_pairs()) for name, value in clip.items()}}
    print_ratios(f"the same, a pair of a clip of {NUM_FRAMES} frames with gaps {GAPS}", in_clip, peer=PEER)


if __name__ == "__main__":
    main()
