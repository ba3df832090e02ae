"""Footage with annotations to score against, read in place: DAVIS2016, and the footage this project renders.

A benchmark is a list of sequences; a sequence yields its frames, and its annotations by frame number, without
holding more than one of either. A third benchmark is one function and one line in ``BENCHMARKS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from tasks.decode import DecodeOptions, iterate_frames
from tasks.errors import ConfigError, DatasetError
from tasks.footage import FootageItem
from tasks.footage_files import base_name, list_folder, open_footage
from tasks.frame_images import decode_annotation
from tasks.pictures import Picture
from tasks.storage import fsspec_view, location

# The validation split of DAVIS2016 (Perazzi et al., CVPR 2016; ImageSets/480p/val.txt).
DAVIS16_VALIDATION = (
    *("blackswan", "bmx-trees", "breakdance", "camel", "car-roundabout", "car-shadow", "cows"),
    *("dance-twirl", "dog", "drift-chicane", "drift-straight", "goat", "horsejump-high", "kite-surf"),
    *("libby", "motocross-jump", "paragliding-launch", "parkour", "scooter-black", "soapbox"),
)


@dataclass(frozen=True, kw_only=True)
class BenchmarkSequence:
    """One clip with annotations. Holds addresses only, so it travels between processes.

    annotations: address of the mask of each frame, None for a frame without one.
    """

    name: str
    footage: FootageItem
    annotations: tuple[str | None, ...]

    def frames(self) -> Iterator[Picture]:
        """Yield the frames in order, uint8 RGB [H, W, 3]."""
        for frame in iterate_frames(self.footage, DecodeOptions()):
            yield frame.image

    def annotation(self, frame: int) -> NDArray[np.bool_] | None:
        """Return the mask [H, W] of a frame; None where there is none.

        Raises FootageError for a mask that can not be read.
        """
        address = self.annotations[frame] if frame < len(self.annotations) else None
        if address is None:
            return None
        with open_footage(address) as file:
            return decode_annotation(file.read(), base_name(address))


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Sequences to score a model on, under the name that numbers are filed under."""

    name: str
    root: str
    sequences: tuple[BenchmarkSequence, ...]


def open_benchmark(name: str, root: str, sequences: Sequence[str] | None = None) -> Benchmark:
    """Open benchmark ``name`` in the folder or URI ``root``; ``sequences`` narrows it to those named.

    Without ``sequences``: the validation split of davis16, as far as it is there; everything of the others.
    Raises ConfigError for an unknown benchmark or sequence, DatasetError naming a folder that is missing.
    """
    if name not in BENCHMARKS:
        raise ConfigError(f"no benchmark {name!r}: expected one of {', '.join(sorted(BENCHMARKS))}")
    root = location(root).uri
    chosen = _select(name, root, BENCHMARKS[name](root), sequences)
    return Benchmark(name=name, root=root, sequences=tuple(chosen.values()))


def _open_davis16(root: str) -> dict[str, BenchmarkSequence]:
    images = _folder(f"{root}/JPEGImages/480p", "davis16")
    masks = _folder(f"{root}/Annotations/480p", "davis16")
    annotated = {base_name(folder): folder for folder in list_folder(masks).folders}
    present = {
        base_name(folder): _frame_folder_sequence(folder, annotated[base_name(folder)])
        for folder in list_folder(images).folders
        if base_name(folder) in annotated
    }
    if not present:
        raise DatasetError(f"{images}: expected folders of frames, and folders of the same names in {masks}")
    return present


def _frame_folder_sequence(images: str, masks: str) -> BenchmarkSequence:
    name = base_name(images)
    by_stem = {_stem(mask): mask for mask in list_folder(masks).images}
    return BenchmarkSequence(
        name=name,
        footage=FootageItem(uri=images, clip=name, kind="frames"),
        annotations=tuple(by_stem.get(_stem(frame)) for frame in list_folder(images).images),
    )


def _open_rendered(root: str) -> dict[str, BenchmarkSequence]:
    """Pair videos in ``footage/`` with the masks of their frames, in order, in ``truth/<clip>/masks/``."""
    footage = _folder(f"{root}/footage", "rendered")
    truth = _folder(f"{root}/truth", "rendered")
    with_truth = {base_name(folder) for folder in list_folder(truth).folders}
    sequences = {}
    for video in list_folder(footage).videos:
        name = _stem(video)
        if name in with_truth:
            masks = _folder(f"{truth}/{name}/masks", "rendered")
            sequences[name] = BenchmarkSequence(
                name=name,
                footage=FootageItem(uri=video, clip=name, kind="video"),
                annotations=list_folder(masks).images,
            )
    if not sequences:
        raise DatasetError(f"{footage}: expected videos with masks of the same name in {truth}")
    return sequences


BENCHMARKS: dict[str, Callable[[str], dict[str, BenchmarkSequence]]] = {
    "davis16": _open_davis16,
    "rendered": _open_rendered,
}

_LAYOUTS = {
    "davis16": "JPEGImages/480p/<sequence>/*.jpg and Annotations/480p/<sequence>/*.png",
    "rendered": "footage/*.mp4 and truth/<clip>/masks/*.png",
}

# What is scored when nothing is named: a full DAVIS2016 folder holds the training sequences as well.
_DEFAULT_SEQUENCES = {"davis16": DAVIS16_VALIDATION}


def _select(
    benchmark: str, root: str, available: dict[str, BenchmarkSequence], names: Sequence[str] | None
) -> dict[str, BenchmarkSequence]:
    if names is None:
        split = [name for name in _DEFAULT_SEQUENCES.get(benchmark, ()) if name in available]
        return {name: available[name] for name in split} or available
    unknown = [name for name in names if name not in available]
    if unknown or not names:
        raise ConfigError(
            f"sequences {', '.join(unknown) or '(none)'} are not in {benchmark} at {root}: expected some of "
            f"{', '.join(sorted(available))}"
        )
    return {name: available[name] for name in dict.fromkeys(names)}


def _folder(address: str, benchmark: str) -> str:
    filesystem, path = fsspec_view(address)
    if not filesystem.isdir(path):
        raise DatasetError(f"benchmark {benchmark}: no folder {address}; expected {_LAYOUTS[benchmark]} below the root")
    return address


def _stem(address: str) -> str:
    return PurePosixPath(base_name(address)).stem
