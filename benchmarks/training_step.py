"""A training step of the U-Net: how long the network takes in each precision and format, and what the loss adds.

Width 64, batch 16, images 128x224, flow 480x854, K=4: the paper's U-Net setting. Forward, backward and the loss, on
all threads; the optimiser is the same in all. Compiling takes a minute, so it is timed at batch 4, and only where a
C++ compiler is found.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.flow_reconstruction_loss import FLOW_SIZE, MASK_SIZE, fold_samples, qr_per_segment_loss
from benchmarks.timing import best_seconds, print_ratios
from model.losses.flow_reconstruction import blended_loss, mixture_loss
from model.networks.unet import UNet

BATCH, COMPILED_BATCH, SEGMENTS = 16, 4, 4
PEER = "f32, QR per segment and component (peer)"
SWITCHES = {
    "f32": {"bf16": False, "channels_last": False},
    "f32, channels_last": {"bf16": False, "channels_last": True},
    "bf16": {"bf16": True, "channels_last": False},
    "bf16, channels_last": {"bf16": True, "channels_last": True},
}


class Step:
    """Forward and backward of a network in one precision and memory format, with the same weights each time."""

    def __init__(self, images: Tensor, *, bf16: bool, channels_last: bool, compiled: bool = False) -> None:
        torch.manual_seed(0)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.network = UNet(num_segments=SEGMENTS).to(memory_format=layout)
        self.images, self.bf16 = images, bf16
        if compiled:
            self.network.compile(dynamic=False)

    def logits(self) -> Tensor:
        """Return the network's mask logits in float32."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
            logits, _ = self.network(self.images)
        return logits.float()

    def run(self) -> None:
        """Do all of a step but its loss, whose gradient is put in by hand."""
        self.network.zero_grad(set_to_none=True)
        logits = self.logits()
        logits.backward(torch.ones_like(logits))


def time_losses(flow: Tensor) -> dict[str, float]:
    """Return the seconds of forward and backward of each loss alone; the peer, which takes seconds, runs once."""
    logits = torch.randn(len(flow), SEGMENTS, *MASK_SIZE).requires_grad_()
    folded = fold_samples(flow)
    ours = {
        "blended": lambda: blended_loss(logits, flow).backward(),
        "mixture": lambda: mixture_loss(logits.softmax(1), folded).backward(),
    }
    seconds = best_seconds(ours, rounds=5)
    return {**seconds, "QR": _once(lambda: qr_per_segment_loss(logits, flow, shared=False).backward())}


def time_networks(images: Tensor) -> dict[str, float]:
    """Return the seconds of forward and backward of the U-Net in each precision and memory format, run once."""
    seconds = {}
    for name, switches in SWITCHES.items():
        Step(images[:1], **switches).run()
        seconds[name] = _once(Step(images, **switches).run)
    return seconds


def _once(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def time_compiled(images: Tensor, flow: Tensor) -> None:
    """Print what compiling gains, once the losses of a step are seen to agree."""
    eager, compiled = (Step(images, bf16=False, channels_last=True, compiled=compiled) for compiled in (False, True))
    with torch.no_grad():
        loss, expected = (blended_loss(step.logits(), flow) for step in (compiled, eager))
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)
    seconds = best_seconds({"f32, channels_last": eager.run, "the same, compiled": compiled.run}, rounds=2)
    print_ratios(f"U-Net, forward and backward, batch {len(images)}", seconds, peer="f32, channels_last")


def main() -> None:
    """Print the times of whole steps as ratios, and the share of each that is the loss."""
    torch.manual_seed(0)
    images = torch.randn(BATCH, 3, *MASK_SIZE)
    flow = F.interpolate(4 * torch.randn(BATCH, 2, 12, 20), size=FLOW_SIZE, mode="bicubic", align_corners=False)
    losses, networks = time_losses(flow), time_networks(images)
    steps = {PEER: networks["f32"] + losses["QR"]}
    for network, seconds in networks.items():
        for loss in ("blended", "mixture"):
            total = seconds + losses[loss]
            steps[f"{network}, {loss} ({losses[loss] / total:.2%} of it)"] = total
    print_ratios(f"U-Net training step, batch {BATCH}, {torch.get_num_threads()} threads", steps, peer=PEER)
    if shutil.which("g++"):
        time_compiled(images[:COMPILED_BATCH], flow[:COMPILED_BATCH])


if __name__ == "__main__":
    main()
