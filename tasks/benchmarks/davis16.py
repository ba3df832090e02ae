"""DAVIS2016 (Perazzi et al., CVPR 2016): one object per sequence, every frame annotated.

Its layout is also what people annotate their own footage in, so sequences of other names and lengths are scored too,
and the report says that they are not the published ones. Masks hold 0 and 255; foreground is above 128.
"""

from __future__ import annotations

from collections.abc import Mapping

from tasks.benchmarks.files import annotated_folders, require_folder, unnumbered
from tasks.benchmarks.types import BenchmarkFamily, BenchmarkSequence
from tasks.errors import DatasetError
from tasks.footage_files import list_folder

_LAYOUT = "JPEGImages/480p/<sequence>/*.jpg and Annotations/480p/<sequence>/*.png"

_NUM_FRAMES = (
    {"blackswan": 50, "bmx-trees": 80, "breakdance": 84, "camel": 90, "car-roundabout": 75, "car-shadow": 40}
    | {"cows": 104, "dance-twirl": 90, "dog": 60, "drift-chicane": 52, "drift-straight": 50, "goat": 90}
    | {"horsejump-high": 50, "kite-surf": 50, "libby": 49, "motocross-jump": 40, "paragliding-launch": 80}
    | {"parkour": 100, "scooter-black": 43, "soapbox": 99}
)
"""Of the validation split (ImageSets/480p/val.txt): 1376 frames in all."""

DAVIS16_VALIDATION = tuple(_NUM_FRAMES)


def _read(root: str) -> dict[str, BenchmarkSequence]:
    images = require_folder(f"{root}/JPEGImages/480p", "davis16", _LAYOUT)
    masks = require_folder(f"{root}/Annotations/480p", "davis16", _LAYOUT)
    return annotated_folders(images, masks)


def _check(chosen: Mapping[str, BenchmarkSequence]) -> tuple[str, ...]:
    """Refuse a full split with frames or masks missing; say so of anything less."""
    complaints = []
    for name in (name for name in chosen if name in _NUM_FRAMES):
        sequence, expected = chosen[name], _NUM_FRAMES[name]
        num_frames, num_annotated = len(sequence.annotations), sequence.num_annotated
        if num_frames != expected:
            missing = unnumbered(list_folder(sequence.footage.uri).images)
            complaints.append(f"{name} has {num_frames} frames where {expected} are published{missing}")
        elif num_annotated != expected:
            complaints.append(f"{name} has masks for {num_annotated} of its {expected} frames")
    if complaints and set(_NUM_FRAMES) <= set(chosen):
        raise DatasetError(
            f"davis16 is not complete: {'; '.join(complaints)}. Copy what is missing, or name the sequences to score"
        )
    return tuple(complaints)


DAVIS16 = BenchmarkFamily(read=_read, check=_check, published=DAVIS16_VALIDATION)
