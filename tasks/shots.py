"""Shots: where a video was cut, found while its frames stream by.

Optical flow between two shots is noise, so every shot becomes a clip of its own and no frame pair crosses a cut.
PySceneDetect's adaptive detector compares the change between two frames with the changes around it, which tells a cut
from fast motion. It sees frames of ``THUMBNAIL_SIDE`` pixels only: there a cut changes as much as it does at full size,
and motion much less. It needs to see ``WINDOW`` frames past a cut, and those are all the frames that wait here.

A frame where nothing is brighter than ``BLACK_LEVEL`` is black: a run of them is a shot of its own, so that a fade
through black parts what it should. A flash changes as much as two cuts and counts as such. Cuts nearer than ``WINDOW``
frames to either end of a video, and slow dissolves, are not seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

import cv2
import numpy as np
from numpy.typing import NDArray
from scenedetect.common import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from tasks.decode import Frame
from tasks.footage import FootageKind
from tasks.identity import ShotDetection

THUMBNAIL_SIDE = 24
"""Longer side of what the detector sees, in pixels.

Of 24, 48, 96 and 256 the best on cuts made from the ten DAVIS sequences at 1, 2 and 4 times their speed
(``pipelines/experiments/LOG.md``): no false cut, and 100, 100 and 97 % of the cuts found.
"""

WINDOW = 2
"""Frames before and after a change that it is compared with: PySceneDetect's default."""

ADAPTIVE_RATIO = 2.0
"""How many times larger than the changes around it a cut is. PySceneDetect's 3 missed a third of the cuts above."""

MIN_CHANGE = 10.0
"""Smallest change that can be a cut: mean over hue, saturation and brightness, of 255."""

BLACK_LEVEL = 12
"""Of 255, as in PySceneDetect's ThresholdDetector, but asked of the brightest place: a dark scene with a light is not
black."""

_FRAME_RATE = 25.0  # the detector counts frames; a rate is part of how it names them


def splits_shots(detection: ShotDetection, kind: FootageKind) -> bool:
    """Tell whether footage of this kind is split at its cuts under a recipe."""
    return detection == "on" or (detection == "auto" and kind == "video")


def split_into_shots(frames: Iterable[Frame]) -> Iterator[Iterator[Frame]]:
    """Yield the frames of each shot. All shots together are all frames, in order; take one before the next."""
    for _, numbered in groupby(_numbered(frames), key=itemgetter(0)):
        yield (frame for _, frame in numbered)


def _numbered(frames: Iterable[Frame]) -> Iterator[tuple[int, Frame]]:
    """Yield (number of the shot, frame), ``WINDOW`` frames behind ``frames``."""
    detector = _Detector()
    waiting: deque[Frame] = deque()
    firsts: set[int] = set()
    shot = num_out = 0
    for frame in frames:
        firsts.update(detector.see(frame.image))
        waiting.append(frame)
        if len(waiting) > WINDOW:
            shot += num_out in firsts
            firsts.discard(num_out)
            yield shot, waiting.popleft()
            num_out += 1
    for index, frame in enumerate(waiting, start=num_out):
        shot += index in firsts
        yield shot, frame


class _Detector:
    """Sees frame after frame and tells which were the first of a shot, at most ``WINDOW`` frames late."""

    def __init__(self) -> None:
        # every shot counts, however short: the detector would pass over those of less than min_scene_len frames
        self._cuts = AdaptiveDetector(
            adaptive_threshold=ADAPTIVE_RATIO, min_scene_len=1, window_width=WINDOW, min_content_val=MIN_CHANGE
        )
        self._num_seen = 0
        self._was_black = False

    def see(self, image: NDArray[np.uint8]) -> list[int]:
        """Return indices of first frames of shots that are known now."""
        thumbnail = _thumbnail(image)
        bgr = np.ascontiguousarray(thumbnail[..., ::-1])
        firsts = [cut.frame_num for cut in self._cuts.process_frame(FrameTimecode(self._num_seen, _FRAME_RATE), bgr)]
        is_black = int(thumbnail.max()) <= BLACK_LEVEL
        if is_black != self._was_black and self._num_seen > 0:
            firsts.append(self._num_seen)
        self._was_black = is_black
        self._num_seen += 1
        return firsts


def _thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    scale = THUMBNAIL_SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
