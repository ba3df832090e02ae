"""SegTrackv2 (Li et al., ICCV 2013): 14 sequences, every frame annotated, up to six objects that count as one.

Two copies are in use. GWM's numbers are of all 1066 frames, those of IMAS and RCF of a list of 976, in which ``worm``
has 154 frames instead of 243 and ``bird_of_paradise`` 97 instead of 98. Which one a folder holds is told by counting.

Masks are one merged PNG per frame, or as distributed one folder of PNGs per object; where both are there, as Motion
Grouping's preparation leaves them, the objects count. That preparation adds masks of objects in eight bits, so that
pixels of two objects are 254: still foreground, as all above 128.
"""

from __future__ import annotations

from collections.abc import Mapping

from tasks.benchmarks.files import (
    frame_folder_sequence,
    is_folder,
    require_folder,
    shortened,
    stem,
    subfolders,
    unnumbered,
)
from tasks.benchmarks.types import BenchmarkFamily, BenchmarkSequence
from tasks.errors import DatasetError
from tasks.footage_files import base_name, list_folder

_LAYOUT = "JPEGImages/<sequence>/* and Annotations/<sequence>/[<object>/]*.png (or GroundTruth)"

_NUM_FRAMES = {"birdfall": 30, "bmx": 36, "cheetah": 29, "drift": 74, "frog": 279, "girl": 21, "hummingbird": 29} | {
    "monkey": 31,
    "monkeydog": 71,
    "parachute": 51,
    "penguin": 42,
    "soldier": 32,
}
"""Of the sequences on which both copies agree."""

_COPIES = {
    "the copy of 976 frames (RCF's list)": {"bird_of_paradise": 97, "worm": 154},
    "the copy of 1066 frames (GWM's)": {"bird_of_paradise": 98, "worm": 243},
}

SEGTRACKV2_SEQUENCES = tuple(sorted({*_NUM_FRAMES, "bird_of_paradise", "worm"}))


def _read(root: str) -> dict[str, BenchmarkSequence]:
    images = require_folder(f"{root}/JPEGImages", "segtrackv2", _LAYOUT)
    folders = [f"{root}/Annotations", f"{root}/GroundTruth"]
    masks = next((folder for folder in folders if is_folder(folder)), folders[0])
    annotated = subfolders(require_folder(masks, "segtrackv2", _LAYOUT))
    present = {
        name: frame_folder_sequence(name, folder, _masks_by_frame(name, folder, annotated[name]))
        for name, folder in subfolders(images).items()
        if name in annotated
    }
    if not present:
        raise DatasetError(f"{images}: expected folders of frames, and folders of the same names in {masks}")
    return present


def _masks_by_frame(name: str, frames: str, masks: str) -> dict[str, tuple[str, ...]]:
    """Return the mask files of each frame by the frame's stem; several where objects have folders of their own."""
    objects = [folder for folder in list_folder(masks).folders if base_name(folder).isdecimal()]
    by_stem: dict[str, tuple[str, ...]] = {}
    for folder in objects or [masks]:
        for file in list_folder(folder).images:
            by_stem[stem(file)] = (*by_stem.get(stem(file), ()), file)
    known = {stem(frame) for frame in list_folder(frames).images}
    strange = [file for file in by_stem if file not in known]
    if strange:
        raise DatasetError(
            f"segtrackv2, {name}: masks {shortened(strange)} in {masks} are named like no frame in {frames}; "
            "expected masks to have the names of their frames"
        )
    return by_stem


def _check(chosen: Mapping[str, BenchmarkSequence]) -> tuple[str, ...]:
    """Refuse counts that no copy has, and a mixture of two copies; say which copy was found."""
    complaints, copies = [], set(_COPIES)
    for name, sequence in chosen.items():
        fitting = {copy for copy, counts in _COPIES.items() if _count(name, counts) == sequence.num_annotated}
        if name in SEGTRACKV2_SEQUENCES and not fitting:
            complaints.append(_complaint(name, sequence))
        elif name in SEGTRACKV2_SEQUENCES:
            copies &= fitting
    if complaints or not copies:
        reason = "; ".join(complaints) or "worm is of one copy and bird_of_paradise of the other"
        raise DatasetError(f"segtrackv2 is not as published: {reason}. Expected {' or '.join(_COPIES)} throughout")
    return tuple(f"the frames of {copy}" for copy in copies) if len(copies) == 1 else ()


def _count(name: str, of_copy: Mapping[str, int]) -> int | None:
    return of_copy.get(name, _NUM_FRAMES.get(name))


def _complaint(name: str, sequence: BenchmarkSequence) -> str:
    expected = " or ".join(str(count) for count in dict.fromkeys(_count(name, counts) for counts in _COPIES.values()))
    missing = unnumbered([file for files in sequence.annotations if files for file in files.addresses])
    return (
        f"{name} has {len(sequence.annotations)} frames, {sequence.num_annotated} of them with a mask, where "
        f"{expected} are published{missing}"
    )


SEGTRACKV2 = BenchmarkFamily(
    read=_read,
    check=_check,
    published=SEGTRACKV2_SEQUENCES,
    headline_protocol="gwm-frames",
)
