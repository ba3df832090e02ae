"""GWM's loss, forward and backward: ours against a straightforward QR factorisation per segment.

Batch 8, K=4, masks 128x224, flow 480x854, quadratic motion: the paper's setting. The peer is written the obvious way
from the formulas of the released code: for each segment, mask the 409 920 x 6 design matrix, factor it for each flow
component, reconstruct. A leaner form, which factors once for both components, is timed beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.timing import best_seconds, print_ratios
from model.losses.flow_reconstruction import FoldedFlow, blended_loss, fold_flow, mixture_loss

PEER = "QR per segment and component (peer)"
BATCH, SEGMENTS, MASK_SIZE, FLOW_SIZE = 8, 4, (128, 224), (480, 854)


def qr_per_segment_loss(logits: Tensor, flow: Tensor, *, shared: bool) -> Tensor:
    """Blended loss with one reduced QR per segment and component, or one per segment for both when ``shared``."""
    height, width = flow.shape[-2:]
    masks = F.interpolate(logits.softmax(1), size=(height, width), mode="bilinear", align_corners=False)
    x = (torch.arange(height) / height)[:, None].expand(height, width).flatten()
    y = (torch.arange(width) / width)[None, :].expand(height, width).flatten()
    phi = torch.stack([x, y, x * x, y * y, x * y, torch.ones_like(x)], dim=1)
    reconstruction = torch.zeros_like(flow)
    for k in range(masks.shape[1]):
        mask = masks[:, k].flatten(1)[..., None]
        design = mask * phi  # (B, HW, 6)
        parts = []
        for target in [flow] if shared else flow.split(1, dim=1):
            q, r = torch.linalg.qr(design)
            theta = torch.linalg.inv(r) @ (q.mT @ (mask * target.flatten(2).mT))
            parts.append((design @ theta).mT.unflatten(2, (height, width)))
        reconstruction = reconstruction + torch.cat(parts, dim=1)
    return F.mse_loss(reconstruction, flow)


def fold_samples(flow: Tensor) -> FoldedFlow:
    """Fold one sample after the other, as the loader does."""
    samples = [fold_flow(sample, MASK_SIZE, "quadratic") for sample in flow.split(1)]
    return FoldedFlow(
        products=torch.cat([sample.products for sample in samples]),
        energy=torch.cat([sample.energy for sample in samples]),
        flow_size=FLOW_SIZE,
    )


def main() -> None:
    """Print the ratios; the losses are first checked to agree."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    logits = torch.randn(BATCH, SEGMENTS, *MASK_SIZE).requires_grad_()
    flow = 3 * torch.randn(BATCH, 2, *FLOW_SIZE)
    folded = fold_samples(flow)
    peer, ours = qr_per_segment_loss(logits, flow, shared=True), blended_loss(logits, flow)
    torch.testing.assert_close(ours, peer, rtol=1e-4, atol=0)

    def backward(loss: Tensor) -> None:
        logits.grad = None
        loss.backward()

    seconds = best_seconds(
        {
            PEER: lambda: backward(qr_per_segment_loss(logits, flow, shared=False)),
            "QR per segment, shared by both components": lambda: backward(
                qr_per_segment_loss(logits, flow, shared=True)
            ),
            "blended": lambda: backward(blended_loss(logits, flow)),
            "mixture, folded": lambda: backward(mixture_loss(logits.softmax(1), folded)),
            "mixture, folded, with the loader's share": lambda: backward(
                mixture_loss(logits.softmax(1), fold_samples(flow))
            ),
        },
        rounds=3,
    )
    print_ratios("flow reconstruction loss, forward and backward, 1 thread", seconds, peer=PEER)


if __name__ == "__main__":
    main()
