"""FBMS59 (Ochs, Malik and Brox, PAMI 2014): 30 test videos, of which about every 20th frame is annotated.

Layouts: as distributed (``Testset/<video>/*.jpg``, masks in ``Testset/<video>/GroundTruth``), or as Motion Grouping's
preparation writes it (``FBMS_clean/JPEGImages`` and ``Annotations``, frames renamed 00001.jpg, 00002.jpg, ...).

Masks as distributed follow the recipe that CIS and Motion Grouping share, threshold for threshold: grey is foreground
above 0.1 of full white, in marple7 above 0.05 and in marple2 above 0.4; where there are .ppm files only those without
``PROB`` count, and there white (above 0.99) is background. Several objects become one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from model.optical_flow import GAP_PRESETS
from tasks.benchmarks.files import (
    annotated_folders,
    files_ending,
    is_folder,
    last_number,
    require_folder,
    shortened,
    stem,
    subfolders,
)
from tasks.benchmarks.types import BenchmarkFamily, BenchmarkSequence, MaskFiles
from tasks.errors import DatasetError, FootageError
from tasks.footage import FootageItem
from tasks.footage_files import base_name, list_folder
from tasks.frame_images import load_picture

_LAYOUT = (
    "Testset/<video>/*.jpg with Testset/<video>/GroundTruth/*.ppm or *.pgm, or FBMS_clean/JPEGImages/<video>/*.jpg "
    "with FBMS_clean/Annotations/<video>/*.png"
)

_NUM_ANNOTATED = (
    {"camel01": 6, "cars1": 3, "cars10": 4, "cars4": 6, "cars5": 4, "cats01": 9, "cats03": 6, "cats06": 18}
    | {"dogs01": 11, "dogs02": 22, "farm01": 14, "giraffes01": 17, "goats01": 15, "horses02": 13, "horses04": 41}
    | {"horses05": 23, "lion01": 9, "marple12": 8, "marple2": 11, "marple4": 5, "marple6": 21, "marple7": 16}
    | {"marple9": 8, "people03": 10, "people1": 5, "people2": 4, "rabbits02": 14, "rabbits03": 12}
    | {"rabbits04": 16, "tennis": 16}
)
"""Annotated frames of the test set, 367 in all (the list that RCF publishes)."""

FBMS59_TEST = tuple(_NUM_ANNOTATED)
_NUM_TEST_FRAMES = 7306  # frames of the test set, annotated or not (the same list)

_THRESHOLDS = {"marple7": 0.05, "marple2": 0.4}
_THRESHOLD = 0.1
_WHITE = 0.99


def decode_fbms_mask(data: bytes, name: str, *, threshold: float, white_is_background: bool) -> NDArray[np.bool_]:
    """Decode a mask as FBMS59 distributes it to bool [H, W], true for foreground.

    threshold: share of full white above which grey is foreground. Raises FootageError "corrupt" or "too_large".
    """
    picture = load_picture(data, name, formats=("PPM",))
    if picture.mode not in ("L", "RGB"):
        raise FootageError("corrupt", f"{name} is of mode {picture.mode}; expected 8-bit grey or RGB")
    grey = cv2.cvtColor(np.asarray(picture.convert("RGB")), cv2.COLOR_RGB2GRAY) / 255.0
    if white_is_background:
        grey[grey > _WHITE] = 0.0
    mask: NDArray[np.bool_] = grey > threshold
    return mask


def _read(root: str) -> dict[str, BenchmarkSequence]:
    if is_folder(f"{root}/Testset"):
        return _as_distributed(root)
    prepared = f"{root}/FBMS_clean" if is_folder(f"{root}/FBMS_clean") else root
    if not is_folder(f"{prepared}/JPEGImages") and is_folder(f"{root}/FBMS_val"):
        raise DatasetError(
            f"benchmark fbms59: {root}/FBMS_val holds the annotated frames only, 20 apart, in which motion can not be "
            f"seen; expected {root}/FBMS_clean with all frames beside it"
        )
    return _as_prepared(prepared)


def _as_distributed(root: str) -> dict[str, BenchmarkSequence]:
    videos: dict[str, str] = {}
    for part in ("Testset", "Trainingset"):
        videos |= subfolders(f"{root}/{part}") if is_folder(f"{root}/{part}") else {}
    sequences = {name: _distributed_sequence(name, folder) for name, folder in videos.items()}
    if not sequences:
        raise DatasetError(f"benchmark fbms59: {root}/Testset is empty; expected {_LAYOUT} below the root")
    return sequences


def _as_prepared(root: str) -> dict[str, BenchmarkSequence]:
    images = require_folder(f"{root}/JPEGImages", "fbms59", _LAYOUT)
    return annotated_folders(images, require_folder(f"{root}/Annotations", "fbms59", _LAYOUT))


def _distributed_sequence(name: str, folder: str) -> BenchmarkSequence:
    truth = require_folder(f"{folder}/GroundTruth", "fbms59", _LAYOUT)
    ppm = files_ending(truth, {".ppm"})
    coloured = [file for file in ppm if "PROB" not in base_name(file)]
    grey = () if ppm else files_ending(truth, {".pgm"})
    decode = partial(decode_fbms_mask, threshold=_THRESHOLDS.get(name, _THRESHOLD), white_is_background=bool(coloured))
    numbered = {_frame_number(file): file for file in coloured or grey}
    frames = list_folder(folder).images
    masks = {position: numbered[number] for number, position in _positions(name, frames, list(numbered)).items()}
    return BenchmarkSequence(
        name=name,
        footage=FootageItem(uri=folder, clip=name, kind="frames"),
        annotations=tuple(
            MaskFiles(addresses=(masks[position],), decode=decode) if position in masks else None
            for position in range(len(frames))
        ),
    )


def _frame_number(file: str) -> int:
    """Return the frame that a mask belongs to: the second part of a .ppm's name, the last integer of a .pgm's."""
    name = stem(file)
    part = name.split("_")[1] if file.lower().endswith(".ppm") and "_" in name else name
    number = last_number(part)
    if number is None:
        raise DatasetError(f"{file}: no frame number in the name; expected such as camel01_0020_gt.ppm or cars1_10.pgm")
    return number


def _positions(name: str, frames: tuple[str, ...], numbers: list[int]) -> dict[int, int]:
    """Return the place in the list of frames that each annotated number stands for.

    Frames carry numbers in their names, and those decide. Where they count otherwise, a number is a place from 1, as
    Motion Grouping has it.
    """
    by_name = {last_number(stem(frame)): position for position, frame in enumerate(frames)}
    if all(number in by_name for number in numbers):
        return {number: by_name[number] for number in numbers}
    outside = [number for number in numbers if not 1 <= number <= len(frames)]
    if outside or any(number in by_name for number in numbers):
        missing = [number for number in numbers if number not in by_name]
        raise DatasetError(
            f"fbms59, {name}: frames {shortened(missing)} are annotated but missing; there are {len(frames)} frames, "
            f"{shortened([base_name(frame) for frame in frames[:2]])}, ..."
        )
    return {number: number - 1 for number in numbers}


def _check(chosen: Mapping[str, BenchmarkSequence]) -> tuple[str, ...]:
    """Refuse test videos that lack annotated frames, or all others; say when the test set has another length."""
    complaints = []
    for name in (name for name in chosen if name in _NUM_ANNOTATED):
        num_frames, found = len(chosen[name].annotations), chosen[name].num_annotated
        if found != _NUM_ANNOTATED[name]:
            at = [index + 1 for index, files in enumerate(chosen[name].annotations) if files is not None]
            complaints.append(
                f"{name} has {found} annotated frames ({shortened(at)}) where {_NUM_ANNOTATED[name]} are published"
            )
        elif num_frames == found:
            complaints.append(f"{name} has no frames but the annotated ones, in which motion can not be seen")
    if complaints:
        raise DatasetError(f"fbms59 is not as published: {'; '.join(complaints)}. Copy what is missing")
    total = sum(len(sequence.annotations) for name, sequence in chosen.items() if name in _NUM_ANNOTATED)
    if set(_NUM_ANNOTATED) <= set(chosen) and total != _NUM_TEST_FRAMES:
        return (f"{total} frames, annotated or not, where {_NUM_TEST_FRAMES} are published",)
    return ()


FBMS59 = BenchmarkFamily(
    read=_read,
    check=_check,
    published=FBMS59_TEST,
    headline_protocol="gwm-frames",
    saliency_gaps=GAP_PRESETS["fbms"],
)
