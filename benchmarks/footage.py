"""Real footage for benchmarks, found where the tests find theirs."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.shared import DAVIS


def davis_frames(sequence: str, num_frames: int) -> list[Path]:
    """Return the first frames of a DAVIS sequence, or exit with where they were looked for."""
    folder = DAVIS / "JPEGImages" / "480p" / sequence
    paths = sorted(folder.glob("*.jpg"))[:num_frames]
    if len(paths) < num_frames:
        sys.exit(f"{folder} has {len(paths)} of {num_frames} frames: set GWM_TEST_SHARED to the folder above data/")
    return paths
