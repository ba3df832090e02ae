"""Optical flow estimators know one protocol, and one generator runs any of them over a clip.

::

    frames      0   1   2   3   4      gaps (1, -2)
    yields      t=0 {1: 0->1, -2: None}
                t=1 {1: 1->2, -2: None}
                t=2 {1: 2->3, -2: 2->0}      each frame is encoded once, when it arrives,
                t=3 {1: 3->4, -2: 3->1}      and forgotten when no pair can need it any more
                t=4 {1: None, -2: 4->2}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from torch import Tensor

from model.errors import InputError

GAP_PRESETS: dict[str, tuple[int, ...]] = {
    "davis": (1, -1, 2, -2),  # GWM, section 4.1: {-2, -1, 1, 2} for DAVIS2016 and SegTrackv2
    "segtrack": (1, -1, 2, -2),
    "fbms": (3, -3, 6, -6),  # the same section: {-6, -3, 3, 6}, since FBMS59 moves less from frame to frame
}
"""Frame gaps by dataset; negative gaps look back."""


@runtime_checkable
class OpticalFlowEstimator(Protocol):
    """Anything that finds where each pixel of one frame lies in another.

    What a single frame costs is paid in ``encode`` once, however many pairs the frame is part of.
    """

    @property
    def name(self) -> str:
        """Name in recipes; with ``weights_sha256`` it says which optical flow comes out."""
        ...

    @property
    def weights_sha256(self) -> str | None:
        """SHA-256 of the weights file, or None for an estimator that learned nothing."""
        ...

    def encode(self, frame: UInt8[Tensor, "3 H W"]) -> object:
        """Prepare one RGB frame in 0..255 for any number of pairs.

        Only ``flow`` of the same estimator reads the result.
        """
        ...

    def flow(self, pairs: Sequence[tuple[object, object]]) -> Float[Tensor, "n 2 H W"]:
        """Return displacements from the first to the second frame of each pair, in pixels, on the CPU.

        Channel 0 runs along columns, channel 1 along rows: the content of pixel (row, column) of the first
        frame is at (row + flow[1], column + flow[0]) of the second.
        """
        ...


def clip_flows(
    estimator: OpticalFlowEstimator, frames: Iterable[UInt8[Tensor, "3 H W"]], gaps: Sequence[int]
) -> Iterator[dict[int, Float[Tensor, "2 H W"] | None]]:
    """Yield, for each frame of a clip, its optical flow to the frame of each gap; None outside the clip.

    Runs ``max(0, *gaps)`` frames behind ``frames``. Holds at most ``max(0, *gaps) - min(0, *gaps) + 1`` encoded
    frames, however long the clip is. Raises InputError for unusable gaps at once, and for a frame of another
    size when it arrives.
    """
    _check_gaps(gaps)
    return _stream(estimator, frames, tuple(gaps))


def _stream(
    estimator: OpticalFlowEstimator, frames: Iterable[UInt8[Tensor, "3 H W"]], gaps: tuple[int, ...]
) -> Iterator[dict[int, Float[Tensor, "2 H W"] | None]]:
    reach_ahead, reach_back = max(0, *gaps), max(0, *(-gap for gap in gaps))
    encoded: dict[int, object] = {}
    num_frames, size = 0, None
    for frame in frames:
        size = size or frame.shape
        if frame.shape != size:
            raise InputError(
                f"frame {num_frames} of the clip is {tuple(frame.shape)}, those before it {tuple(size)}: "
                "expected one size per clip; resize them or split the clip"
            )
        encoded[num_frames] = estimator.encode(frame)
        num_frames += 1
        ready = num_frames - 1 - reach_ahead
        if ready >= 0:
            yield _flows_of(estimator, encoded, ready, gaps)
            encoded.pop(ready - reach_back, None)
    for ready in range(max(0, num_frames - reach_ahead), num_frames):
        yield _flows_of(estimator, encoded, ready, gaps)
        encoded.pop(ready - reach_back, None)


def _flows_of(
    estimator: OpticalFlowEstimator, encoded: dict[int, object], index: int, gaps: tuple[int, ...]
) -> dict[int, Float[Tensor, "2 H W"] | None]:
    flows: dict[int, Tensor | None] = dict.fromkeys(gaps)
    inside = [gap for gap in gaps if index + gap in encoded]
    if inside:
        estimated = estimator.flow([(encoded[index], encoded[index + gap]) for gap in inside])
        flows.update(zip(inside, estimated, strict=True))
    return flows


def _check_gaps(gaps: Sequence[int]) -> None:
    if not gaps or 0 in gaps or len(set(gaps)) != len(gaps):
        raise InputError(f"gaps={tuple(gaps)}: expected distinct frame gaps other than 0, such as (1, -1, 2, -2)")
