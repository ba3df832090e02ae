"""Published J on DAVIS2016, validation split."""

from __future__ import annotations

from tasks.benchmarks import DAVIS16_VALIDATION
from tasks.published.types import (
    AMD,
    BEST_ON_LABELS,
    BY_AGREEMENT,
    FRAME_BY_FRAME,
    GWM,
    IMAS,
    LAST_STEP,
    RCF,
    PublishedColumn,
    by_name,
)

_OF_SEQUENCES = "mean of sequence means, without the first two frames and the last"
_OF_FRAMES = "mean over all frames"

DAVIS16_COLUMNS = (
    PublishedColumn(
        name="GWM, MaskFormer + DINO",
        source=f"{GWM}, Tables 1 and 10",
        foreground=FRAME_BY_FRAME,
        checkpoint=BEST_ON_LABELS,
        protocol=_OF_SEQUENCES,
        label_free=False,
        overall=0.795,
        note="Pretrained on ImageNet without labels (DINO); no CRF.",
        per_sequence=by_name(
            DAVIS16_VALIDATION,
            *(67.0, 58.2, 86.2, 89.4, 81.4, 84.3, 90.4, 87.4, 92.9, 78.6),
            *(80.6, 78.6, 84.9, 64.4, 82.9, 74.1, 62.2, 86.1, 82.1, 79.2),
        ),
    ),
    PublishedColumn(
        name="GWM, MaskFormer + DINO, CRF",
        source=f"{GWM}, Tables 1 and 10",
        foreground=FRAME_BY_FRAME,
        checkpoint=BEST_ON_LABELS,
        protocol=_OF_SEQUENCES,
        label_free=False,
        overall=0.807,
        note="Dense CRF after the network, its parameters unpublished.",
        per_sequence=by_name(
            DAVIS16_VALIDATION,
            *(67.4, 59.8, 87.4, 90.6, 81.2, 83.9, 91.3, 88.8, 93.9, 82.0),
            *(82.1, 75.8, 88.0, 67.5, 84.5, 75.1, 64.1, 88.1, 82.1, 81.0),
        ),
    ),
    PublishedColumn(
        name="GWM, U-Net",
        source=f"{GWM}, Table 1",
        foreground=FRAME_BY_FRAME,
        checkpoint=BEST_ON_LABELS,
        protocol=_OF_SEQUENCES,
        label_free=False,
        overall=0.783,
        note="Segments merged on DINO features, flow by RAFT; no numbers per sequence are published.",
    ),
    PublishedColumn(
        name="IMAS + CRF",
        source=f"{IMAS}, per-sequence table",
        foreground=BY_AGREEMENT,
        checkpoint=LAST_STEP,
        protocol=_OF_FRAMES,
        label_free=True,
        overall=0.798,
        note="Dense CRF after the network; ResNet-50 pretrained on ImageNet without labels.",
        per_sequence=by_name(
            DAVIS16_VALIDATION,
            *(66.1, 60.2, 81.0, 83.9, 87.6, 85.3, 87.0, 85.7, 82.8, 78.8),
            *(78.8, 80.1, 87.4, 64.2, 82.8, 72.0, 63.0, 86.2, 82.1, 87.2),
        ),
    ),
    PublishedColumn(
        name="RCF",
        source=f"{RCF}, all stages, no post-processing",
        foreground=BY_AGREEMENT,
        checkpoint=LAST_STEP,
        protocol=_OF_FRAMES,
        label_free=True,
        overall=0.809,
        note="83.0 with a dense CRF.",
    ),
    PublishedColumn(
        name="AMD, adapted per video",
        source=AMD,
        foreground="one channel per model, by inspection of training frames",
        checkpoint=LAST_STEP,
        protocol="mean over all frames; not said how they are weighted",
        label_free=False,
        overall=0.578,
        note="45.7 without adaptation to each video; nothing is pretrained.",
    ),
)
