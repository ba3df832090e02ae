"""What a number from a paper needs to be read: its source, and how it came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class PublishedColumn:
    """Published J, 0..1, of one model on one video benchmark.

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


@dataclass(frozen=True, kw_only=True)
class PublishedImageRow:
    """Published numbers, 0..1, of one model on one benchmark of images; None where a measure is not printed.

    foreground, checkpoint, label_free: as for videos. Measures: see ``model/image_metrics.py``.
    """

    name: str
    source: str
    foreground: str
    checkpoint: str
    label_free: bool
    accuracy: float | None = None
    j: float | None = None
    f_beta: float | None = None
    max_f_beta: float | None = None
    mean_absolute_error: float | None = None
    note: str = ""


GWM = "GWM (Choudhury et al., BMVC 2022)"
IMAS = "IMAS (arXiv 2212.08816)"
RCF = "RCF (Lian et al., CVPR 2023)"
AMD = "AMD (Liu et al., NeurIPS 2021)"

FRAME_BY_FRAME = "ground truth, per frame: the better of two merged groups"
BEST_ON_LABELS = "best J on the labelled validation set (released code)"
BY_AGREEMENT = "label-free: one channel per model, by agreement of motion and appearance"
LAST_STEP = "last step"


def by_name(names: tuple[str, ...], *percent: float) -> dict[str, float]:
    """Return scores printed in percent, 0..1 by the names in the order in which they are printed."""
    return {name: value / 100 for name, value in zip(names, percent, strict=True)}
