"""The rendered scenes at a size that tests can afford."""

from __future__ import annotations

from tasks.rendering.scene import Scene
from tasks.rendering.stages import STAGES, build_scene

KINDS = list(STAGES)
SIZE = (144, 256)
NUM_FRAMES = 8


def small_scenes() -> dict[str, Scene]:
    """Build one scene of each kind."""
    return {
        kind: build_scene(kind, name=kind, seed=(0, index), num_frames=NUM_FRAMES, size=SIZE)
        for index, kind in enumerate(KINDS)
    }
