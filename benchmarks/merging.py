"""Merging segments into two groups: ours in one batch against scikit-learn's spectral clustering, frame by frame.

K=4 segments with 384 features each, as DINO ViT-S/8 keys have; scikit-learn runs as the released code calls it.
"""

from __future__ import annotations

import torch
from sklearn.cluster import SpectralClustering
from torch.nn import functional as F

from benchmarks.timing import best_seconds, print_ratios
from model.merging import affinity_matrix, spectral_bipartition

PEER = "scikit-learn, frame by frame (peer)"
NUM_FRAMES, NUM_PEER_FRAMES, SEGMENTS, CHANNELS = 1024, 64, 4, 384


def main() -> None:
    """Print the ratio per frame and how many groupings are the same."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    affinity = affinity_matrix(F.normalize(torch.rand(NUM_FRAMES, SEGMENTS, CHANNELS), dim=2))
    graphs = affinity[:NUM_PEER_FRAMES].double().numpy()

    def peer() -> list[list[bool]]:
        labels = [SpectralClustering(2, affinity="precomputed", random_state=0).fit_predict(graph) for graph in graphs]
        return [(found != found[0]).tolist() for found in labels]

    ours = spectral_bipartition(affinity)[:NUM_PEER_FRAMES].tolist()
    same = sum(mine == theirs for mine, theirs in zip(ours, peer(), strict=True))
    seconds = best_seconds({PEER: peer, "batched": lambda: spectral_bipartition(affinity)}, rounds=3)
    per_frame = {PEER: seconds[PEER] / NUM_PEER_FRAMES, "batched": seconds["batched"] / NUM_FRAMES}
    print_ratios(
        f"merging 4 segments, per frame, 1 thread; {same} of {NUM_PEER_FRAMES} groupings equal", per_frame, peer=PEER
    )


if __name__ == "__main__":
    main()
