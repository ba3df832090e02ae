"""What is known of a clip when its last frame has passed: how much moves in it, and what it looks like.

Everything is taken from the rows as they are stored, so that it says the same whoever made them and can be made again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import hypot

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.errors import FootageError
from tasks.fingerprint import SIDE, FingerprintBuilder
from tasks.flow_codec import decode_flow
from tasks.shards import FrameRow, VideoLabel

STATIC_MOTION = 1e-4
"""Mean motion below which a clip counts as static: a tenth of a pixel per frame at 480x854.

Still pictures that were encoded as videos of common quality, some with sensor noise, measured 6e-6 to 1.0e-4, the
calmest of ten real sequences 1.8e-3 (``pipelines/experiments/LOG.md``).
"""

_EVERY = 4  # rows and columns of optical flow that its mean is taken over: 1/16 of a million is plenty
_REDUCED = (
    (8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
    (4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    (2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
)


@dataclass(frozen=True, kw_only=True)
class ClipFacts:
    """One clip in figures.

    first_frame: index in the video, as it was decoded, of the clip's frame 0; seconds: from first to last frame.
    mean_motion: mean displacement per frame over all pixels and frames, divided by the frame's diagonal, so that it
        does not depend on the size; None where no frame has optical flow.
    too_short: no frame has optical flow over every gap. is_static: less motion than STATIC_MOTION.
    fingerprint: ``tasks/fingerprint.py``; None where there is nothing to see.
    """

    video_id: str
    recipe_hash: str
    shot: int
    clip: str
    source: str
    first_frame: int
    num_frames: int
    seconds: float
    mean_motion: float | None
    too_short: bool
    is_static: bool
    fingerprint: bytes | None


def frames_of_all_gaps(gaps: Sequence[int]) -> int:
    """Length of the shortest clip in which some frame has optical flow over every one of ``gaps``."""
    return max(0, *gaps) - min(0, *gaps) + 1


class ClipObserver:
    """Watches the rows of one clip on their way to a shard; one frame is held at a time."""

    def __init__(self, label: VideoLabel, first_frame: int = 0) -> None:
        self.label, self._first_frame = label, first_frame
        self._gap = label.recipe.gaps[0]  # the shortest, forward if there are both
        self._looks = FingerprintBuilder()
        self._motion, self._num_flows = 0.0, 0
        self._times: tuple[float, float] = (0.0, 0.0)
        self._num_frames = 0

    def watch(self, rows: Iterable[FrameRow]) -> Iterator[FrameRow]:
        """Pass ``rows`` on."""
        for row in rows:
            flow = row.flows[self._gap]
            if flow is not None:
                self._motion += _mean_length(flow) / abs(self._gap) / hypot(row.width, row.height)
                self._num_flows += 1
            self._looks.add(_grey(row))
            self._times = (self._times[0] if self._num_frames else row.time_seconds, row.time_seconds)
            self._num_frames += 1
            yield row

    def facts(self) -> ClipFacts:
        """What the rows that passed tell."""
        label, recipe = self.label, self.label.recipe
        motion = self._motion / self._num_flows if self._num_flows else None
        return ClipFacts(
            video_id=label.video_id,
            recipe_hash=recipe.hash(),
            shot=label.shot,
            clip=label.clip,
            source=label.source,
            first_frame=self._first_frame,
            num_frames=self._num_frames,
            seconds=self._times[1] - self._times[0],
            mean_motion=motion,
            too_short=self._num_frames < frames_of_all_gaps(recipe.gaps),
            is_static=motion is not None and motion < STATIC_MOTION,
            fingerprint=self._looks.finish(),
        )


def _mean_length(encoded: bytes) -> float:
    flow = decode_flow(encoded)[:, ::_EVERY, ::_EVERY]
    return float(np.hypot(flow[0], flow[1]).mean(dtype=np.float64))


def _grey(row: FrameRow) -> NDArray[np.uint8]:
    """The frame in grey, reduced while it is decoded as far as SIDE allows."""
    flags = [flag for factor, flag in _REDUCED if min(row.width, row.height) >= factor * SIDE]
    picture = cv2.imdecode(np.frombuffer(row.jpeg, np.uint8), flags[0] if flags else cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise FootageError("internal", "a frame that was encoded as JPEG can not be decoded")
    return np.asarray(picture, dtype=np.uint8)
