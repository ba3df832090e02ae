"""Published J on SegTrackv2; papers use two copies of it (``tasks/benchmarks/segtrackv2.py``)."""

from __future__ import annotations

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

_GWM_FRAMES = "mean over all frames but the last of each sequence, copy of 1066 frames"
_ALL_FRAMES = "mean over all frames, copy of 976 frames"
_PRINTED_ORDER = (
    *("drift", "birdfall", "girl", "cheetah", "worm", "parachute", "monkeydog", "hummingbird", "soldier"),
    *("bmx", "frog", "penguin", "monkey", "bird_of_paradise"),
)

SEGTRACKV2_COLUMNS = (
    PublishedColumn(
        name="GWM, MaskFormer + DINO",
        source=f"{GWM}, Tables 1 and 11",
        foreground=FRAME_BY_FRAME,
        checkpoint=BEST_ON_LABELS,
        protocol=_GWM_FRAMES,
        label_free=False,
        overall=0.783,
        note="Pretrained on ImageNet without labels (DINO); no CRF, 78.9 with one.",
        per_sequence=by_name(
            _PRINTED_ORDER,
            *(86.1, 67.8, 84.5, 57.0, 83.7, 90.6, 22.9, 57.3, 77.4, 76.4, 84.1, 77.7, 75.0, 92.3),
        ),
    ),
    PublishedColumn(
        name="GWM, U-Net",
        source=f"{GWM}, Table 1",
        foreground=FRAME_BY_FRAME,
        checkpoint=BEST_ON_LABELS,
        protocol=_GWM_FRAMES,
        label_free=False,
        overall=0.768,
        note="No numbers per sequence are published.",
    ),
    PublishedColumn(
        name="IMAS + CRF",
        source=f"{IMAS}, per-sequence table",
        foreground=BY_AGREEMENT,
        checkpoint=LAST_STEP,
        protocol=_ALL_FRAMES,
        label_free=True,
        overall=0.727,
        note="Dense CRF after the network; 68.6 without.",
        per_sequence=by_name(
            _PRINTED_ORDER,
            *(87.1, 1.9, 83.2, 50.6, 85.6, 93.8, 15.4, 54.6, 82.0, 75.1, 77.1, 64.5, 86.4, 86.7),
        ),
    ),
    PublishedColumn(
        name="RCF",
        source=f"{RCF}, all stages, no post-processing",
        foreground=BY_AGREEMENT,
        checkpoint=LAST_STEP,
        protocol=_ALL_FRAMES,
        label_free=True,
        overall=0.767,
        note="79.6 with a dense CRF.",
    ),
    PublishedColumn(
        name="AMD, adapted per video",
        source=AMD,
        foreground="one channel per model, by inspection of training frames",
        checkpoint=LAST_STEP,
        protocol="mean over all frames; not said how they are weighted",
        label_free=False,
        overall=0.570,
        note="28.7 without adaptation to each video; nothing is pretrained.",
    ),
)
