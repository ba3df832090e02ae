"""Published numbers on benchmarks of single images: GWM trained on DAVIS2016, SegTrackv2 and FBMS59 together."""

from __future__ import annotations

from tasks.published.types import AMD, GWM, PublishedImageRow

_BORDER = "label-free: of two merged groups the one that touches the border less"
_CHECKPOINT = "best J on the labelled frames of DAVIS2016 (released code)"
_PAPER = f"{GWM}, image segmentation tables"
_NOTEBOOK = f"{GWM}, released notebook"


def _gwm(
    source: str, *, accuracy: float, j: float, f_beta: float | None = None, max_f_beta: float | None = None
) -> PublishedImageRow:
    return PublishedImageRow(
        name="GWM, MaskFormer + DINO",
        source=source,
        foreground=_BORDER,
        checkpoint=_CHECKPOINT,
        label_free=False,
        accuracy=accuracy,
        j=j,
        f_beta=f_beta,
        max_f_beta=max_f_beta,
    )


IMAGE_ROWS: dict[str, tuple[PublishedImageRow, ...]] = {
    "cub": (
        _gwm(_PAPER, accuracy=0.935, j=0.646, max_f_beta=0.809),
        _gwm(_NOTEBOOK, accuracy=0.9358, j=0.6534, max_f_beta=0.8107, f_beta=0.8106),
    ),
    "duts": (
        _gwm(_PAPER, accuracy=0.915, j=0.492, f_beta=0.656),
        _gwm(_NOTEBOOK, accuracy=0.9154, j=0.4910, max_f_beta=0.6559, f_beta=0.6558),
        PublishedImageRow(
            name="AMD",
            source=AMD,
            foreground="one channel per model, by inspection of training frames",
            checkpoint="last step",
            label_free=False,
            f_beta=0.602,
            mean_absolute_error=0.13,
            note="The threshold of F is not said.",
        ),
    ),
    "ecssd": (
        _gwm(_PAPER, accuracy=0.885, j=0.561, f_beta=0.743),
        _gwm(_NOTEBOOK, accuracy=0.8843, j=0.5596, max_f_beta=0.7488, f_beta=0.7420),
    ),
    "dut-omron": (
        _gwm(_PAPER, accuracy=0.893, j=0.4131, f_beta=0.563),
        _gwm(_NOTEBOOK, accuracy=0.8938, j=0.4125, max_f_beta=0.5656, f_beta=0.5633),
    ),
}
