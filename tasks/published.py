"""Numbers from papers, for the column beside ours: each with its source and with how it came about.

They are no targets of equal footing: GWM's were chosen with the labels that they are scored on, twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class PublishedColumn:
    """Published J, 0..1, of one model on one benchmark.

    foreground, checkpoint, protocol: how the numbers were chosen and averaged, in words.
    label_free: whether neither choice saw a label.
    """

    name: str
    source: str
    foreground: str
    checkpoint: str
    protocol: str
    label_free: bool
    overall: float
    note: str = ""
    per_sequence: Mapping[str, float] = field(default_factory=dict)


_NAMES = (
    *("blackswan", "bmx-trees", "breakdance", "camel", "car-roundabout", "car-shadow", "cows"),
    *("dance-twirl", "dog", "drift-chicane", "drift-straight", "goat", "horsejump-high", "kite-surf"),
    *("libby", "motocross-jump", "paragliding-launch", "parkour", "scooter-black", "soapbox"),
)


def _davis(*percent: float) -> dict[str, float]:
    return {name: value / 100 for name, value in zip(_NAMES, percent, strict=True)}


_GWM = "GWM (Choudhury et al., BMVC 2022)"
_GWM_FOREGROUND = "ground truth, per frame: the better of two merged groups"
_GWM_CHECKPOINT = "best J on the labelled validation set (released code)"
_GWM_PROTOCOL = "mean of sequence means, without the first two frames and the last"

PUBLISHED: dict[str, tuple[PublishedColumn, ...]] = {
    "davis16": (
        PublishedColumn(
            name="GWM, MaskFormer + DINO",
            source=f"{_GWM}, Tables 1 and 10",
            foreground=_GWM_FOREGROUND,
            checkpoint=_GWM_CHECKPOINT,
            protocol=_GWM_PROTOCOL,
            label_free=False,
            overall=0.795,
            note="Pretrained on ImageNet without labels (DINO); no CRF.",
            per_sequence=_davis(
                *(67.0, 58.2, 86.2, 89.4, 81.4, 84.3, 90.4, 87.4, 92.9, 78.6),
                *(80.6, 78.6, 84.9, 64.4, 82.9, 74.1, 62.2, 86.1, 82.1, 79.2),
            ),
        ),
        PublishedColumn(
            name="GWM, U-Net",
            source=f"{_GWM}, Table 1",
            foreground=_GWM_FOREGROUND,
            checkpoint=_GWM_CHECKPOINT,
            protocol=_GWM_PROTOCOL,
            label_free=False,
            overall=0.783,
            note="Segments merged on DINO features, flow by RAFT; no numbers per sequence are published.",
        ),
        PublishedColumn(
            name="IMAS + CRF",
            source="IMAS (arXiv 2212.08816), per-sequence table",
            foreground="label-free: one channel per model, by agreement of motion and appearance",
            checkpoint="last step",
            protocol="mean over all frames",
            label_free=True,
            overall=0.798,
            note="Dense CRF after the network; ResNet-50 pretrained on ImageNet without labels.",
            per_sequence=_davis(
                *(66.1, 60.2, 81.0, 83.9, 87.6, 85.3, 87.0, 85.7, 82.8, 78.8),
                *(78.8, 80.1, 87.4, 64.2, 82.8, 72.0, 63.0, 86.2, 82.1, 87.2),
            ),
        ),
    ),
}
"""By benchmark; a benchmark without published numbers is absent."""


def published_columns(benchmark: str) -> tuple[PublishedColumn, ...]:
    """Return the published numbers of a benchmark, none when there are none."""
    return PUBLISHED.get(benchmark, ())
