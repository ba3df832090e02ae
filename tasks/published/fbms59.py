"""Published J on the test set of FBMS59, over its annotated frames."""

from __future__ import annotations

from tasks.benchmarks import FBMS59_TEST
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

_GWM_FRAMES = "mean over all annotated frames but the last of each video: 338"
_ALL_FRAMES = "mean over all 367 annotated frames"

FBMS59_COLUMNS = (
    PublishedColumn(
        name="GWM, MaskFormer + DINO",
        source=f"{GWM}, Tables 1 and 12",
        foreground=FRAME_BY_FRAME,
        checkpoint=BEST_ON_LABELS,
        protocol=_GWM_FRAMES,
        label_free=False,
        overall=0.774,
        note="Pretrained on ImageNet without labels (DINO); no CRF.",
        per_sequence=by_name(
            FBMS59_TEST,
            *(86.8, 86.9, 64.6, 81.5, 81.6, 87.7, 69.4, 66.5, 76.3, 85.3, 90.8, 82.1, 79.9, 80.4, 59.8),
            *(72.8, 75.1, 81.9, 84.4, 81.1, 95.1, 76.6, 95.4, 90.1, 85.3, 88.1, 91.2, 81.5, 43.8, 73.3),
        ),
    ),
    PublishedColumn(
        name="GWM, MaskFormer + DINO, CRF",
        source=f"{GWM}, Tables 1 and 12",
        foreground=FRAME_BY_FRAME,
        checkpoint=BEST_ON_LABELS,
        protocol=_GWM_FRAMES,
        label_free=False,
        overall=0.784,
        note="Dense CRF after the network, its parameters unpublished.",
        per_sequence=by_name(
            FBMS59_TEST,
            *(91.0, 86.8, 64.8, 82.4, 82.1, 89.5, 63.2, 67.4, 75.6, 86.4, 90.5, 83.9, 83.7, 83.6, 60.5),
            *(74.5, 75.0, 81.6, 85.9, 82.4, 95.1, 77.6, 96.3, 91.0, 87.2, 89.7, 91.2, 84.4, 44.1, 74.2),
        ),
    ),
    PublishedColumn(
        name="GWM, U-Net",
        source=f"{GWM}, Table 1",
        foreground=FRAME_BY_FRAME,
        checkpoint=BEST_ON_LABELS,
        protocol=_GWM_FRAMES,
        label_free=False,
        overall=0.720,
        note="No numbers per sequence are published.",
    ),
    PublishedColumn(
        name="IMAS + CRF",
        source=f"{IMAS}, per-sequence table",
        foreground=BY_AGREEMENT,
        checkpoint=LAST_STEP,
        protocol=_ALL_FRAMES,
        label_free=True,
        overall=0.690,
        note="Dense CRF after the network; 67.4 without.",
        per_sequence=by_name(
            FBMS59_TEST,
            *(89.8, 85.4, 32.4, 83.9, 80.0, 90.4, 69.8, 56.9, 61.7, 84.4, 80.5, 58.5, 78.1, 82.4, 77.3),
            *(53.5, 78.1, 76.3, 85.4, 87.2, 54.4, 78.6, 49.6, 81.2, 79.8, 83.6, 74.0, 55.8, 0.5, 78.5),
        ),
    ),
    PublishedColumn(
        name="RCF",
        source=f"{RCF}, all stages, no post-processing",
        foreground=BY_AGREEMENT,
        checkpoint=LAST_STEP,
        protocol=_ALL_FRAMES,
        label_free=True,
        overall=0.699,
        note="72.4 with a dense CRF.",
    ),
    PublishedColumn(
        name="AMD, adapted per video",
        source=AMD,
        foreground="one channel per model, by inspection of training frames",
        checkpoint=LAST_STEP,
        protocol="mean over annotated frames; neither which nor how they are weighted is said",
        label_free=False,
        overall=0.475,
        note="42.9 without adaptation to each video; nothing is pretrained.",
    ),
)
