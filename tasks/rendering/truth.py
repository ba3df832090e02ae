"""Read and write what is known about a rendered clip: exact masks, exact flow, and the parameters that made it.

::

    <out>/footage/<clip>.mp4            what the pipeline sees
    <out>/truth/scene.json              all clips
    <out>/truth/<clip>/clip.json        the parameters of one; written last, its presence means the clip is finished
    <out>/truth/<clip>/masks/00000.png  0 background, 255 object; one per frame
    <out>/truth/<clip>/flow_p1/00000.npz  exact flow to the next frame; none for the last frame
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from tasks.errors import StorageError
from tasks.rendering.noise import Array


def gap_folder(gap: int) -> str:
    """Return the folder of a gap's flow: 1 -> ``flow_p1``, -2 -> ``flow_m2``."""
    return f"flow_{'p' if gap > 0 else 'm'}{abs(gap)}"


@dataclass(frozen=True, kw_only=True, eq=False)
class ExactFlow:
    """The flow from one frame to another.

    flow: float32 [2, h, w], pixels; along columns first. Stored as float16: off by less than 0.008 px up to 16 px.
    valid: bool [h, w]; False where the point is hidden, or outside the frame, in the second frame.
    """

    flow: Array
    valid: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ClipTruth:
    """What is known about one clip; arrays are read when asked for.

    folder: its truth folder. num_frames, size (height, width), frames_per_second: of the video.
    gaps: frame gaps that exact flow is kept for. kind: which object. parameters: everything in ``clip.json``.
    """

    folder: Path
    name: str
    kind: str
    num_frames: int
    size: tuple[int, int]
    frames_per_second: int
    gaps: tuple[int, ...]

    def mask(self, frame: int) -> npt.NDArray[np.bool_]:
        """Return where the object is visible, [h, w].

        Raises:
            StorageError: there is no such frame.
        """
        path = self.folder / "masks" / f"{frame:05d}.png"
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.is_file() else None
        if image is None:
            raise StorageError(f"no mask of frame {frame} at {path}; the clip has frames 0..{self.num_frames - 1}")
        return np.asarray(image) > 127

    def masks(self) -> npt.NDArray[np.bool_]:
        """Return all masks, [num_frames, h, w]."""
        return np.stack([self.mask(frame) for frame in range(self.num_frames)])

    def has_flow(self, frame: int, gap: int = 1) -> bool:
        """Tell whether exact flow is kept for a frame and a gap."""
        return gap in self.gaps and 0 <= frame < self.num_frames and 0 <= frame + gap < self.num_frames

    def exact_flow(self, frame: int, gap: int = 1) -> ExactFlow:
        """Return the exact flow of a frame to the one ``gap`` later.

        Raises:
            StorageError: there is none for this frame and gap.
        """
        path = self.folder / gap_folder(gap) / f"{frame:05d}.npz"
        if not self.has_flow(frame, gap) or not path.is_file():
            raise StorageError(
                f"no exact flow of frame {frame}, gap {gap}, at {path}; the clip has frames 0..{self.num_frames - 1} "
                f"and gaps {list(self.gaps)}"
            )
        with np.load(path) as stored:
            return ExactFlow(flow=stored["flow"].astype(np.float32), valid=stored["valid"].astype(bool))


def save_mask(folder: Path, frame: int, mask: npt.NDArray[np.bool_]) -> None:
    """Write one mask as a PNG of 0 and 255."""
    path = folder / "masks" / f"{frame:05d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), mask.astype(np.uint8) * 255)


def save_flow(folder: Path, frame: int, gap: int, flow: Array, valid: npt.NDArray[np.bool_]) -> None:
    """Write the exact flow of one frame."""
    path = folder / gap_folder(gap) / f"{frame:05d}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, flow=flow.astype(np.float16), valid=valid)


def load_truth(clip_dir: Path | str) -> ClipTruth:
    """Open the truth folder of one rendered clip.

    Args:
        clip_dir: ``<out>/truth/<clip>``.

    Raises:
        StorageError: there is no finished clip.
    """
    folder = Path(clip_dir)
    path = folder / "clip.json"
    if not path.is_file():
        raise StorageError(
            f"no rendered clip at {folder}: {path.name} is missing; expected <out>/truth/<clip>. Render it first"
        )
    record = json.loads(path.read_text())
    parameters = record["parameters"]
    height, width = parameters["size"]
    return ClipTruth(
        folder=folder,
        name=parameters["name"],
        kind=parameters["kind"],
        num_frames=int(parameters["num_frames"]),
        size=(int(height), int(width)),
        frames_per_second=int(record["frames_per_second"]),
        gaps=tuple(int(gap) for gap in parameters["gaps"]),
    )
